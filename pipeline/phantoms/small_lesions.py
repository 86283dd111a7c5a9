"""Small bright lesions planted in healthy brain tissue of a scan: what a restoration must not lose."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.phantoms.appearance import Spacing
from pipeline.preprocessing.brain import brain_tissue
from pipeline.preprocessing.holes import MARGIN_MM, apart

DIAMETERS_MM = (5.0, 9.0)  # of 0.07 to 0.4 ml
ADDED = 0.2  # of the window, in the middle: as a faint FLAIR lesion
EDGE_MM = 2.0  # over which a lesion fades out
# Of the window: where there is no room below its end, a lesion would be cut off.
BRIGHTEST = 1 - ADDED


def small_lesions(
    image: NDArray[np.float32],
    lesion: NDArray[np.bool_],
    spacing_mm: Spacing,
    count: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Soft balls in brain tissue, away from drawn disease and from each other.

    Args:
        image: slices in [0, 1], shape (slices, right, anterior).
        lesion: the drawn lesion, same shape.
        spacing_mm: voxel size along the same axes.
        count: at most so many; fewer where there is no room.
        rng: of places and sizes.

    Returns:
        What to add to the image, 0 to `ADDED`; and the number of the lesion that each voxel belongs to, from 1, 0
        elsewhere. Both of the image's shape.
    """
    added, numbers = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.uint8)
    free = apart(brain_tissue(image, spacing_mm, lesion), lesion, spacing_mm) & (image < BRIGHTEST)
    if not free.any():
        return added, numbers
    # In its slice: thick slices above and below say little of where a ball lies.
    room = np.stack([ndimage.distance_transform_edt(one, sampling=spacing_mm[1:]) for one in free])
    for number in range(1, count + 1):
        radius = rng.uniform(*DIAMETERS_MM) / 2
        places = np.argwhere(room >= radius)
        if not len(places):
            continue
        distance = _distance_mm(places[rng.integers(len(places))], image.shape, spacing_mm)
        ball = ADDED * np.clip((radius - distance) / EDGE_MM + 0.5, 0, 1)
        inside = ball > 0
        added[inside], numbers[inside] = ball[inside], number
        room[distance < 2 * DIAMETERS_MM[1] / 2 + EDGE_MM + MARGIN_MM] = 0
    return added, numbers


def _distance_mm(centre: NDArray[np.intp], shape: tuple[int, ...], spacing_mm: Spacing) -> NDArray[np.float64]:
    """From a voxel to each voxel of a volume."""
    along = [mm * (np.arange(side) - place) for place, side, mm in zip(centre, shape, spacing_mm, strict=True)]
    squares: NDArray[np.float64] = sum(
        axis.reshape([-1 if number == place else 1 for number in range(3)]) ** 2 for place, axis in enumerate(along)
    )
    return np.sqrt(squares)
