"""A hole filled in each slice with a continuation of what lies around it that continues slopes, too."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.preprocessing.box import box_of, wider

# Pixels around a hole that the equation looks at; and as many that are taken along.
STENCIL, MARGIN = 2, 4


def biharmonic_fill(volume: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fill a hole with the solution of the biharmonic equation in each slice, with all pixels around it as boundary.

    Damelin and Hoang 2018, doi:10.1155/2018/3950312, as scikit-image has it. The values stay within those around the
    hole, which the solution may leave.

    Args:
        volume: intensities, shape (slices, right, anterior).
        hole: what to fill, same shape; a slice that is all hole is left as it is.

    Returns:
        `volume` with the hole filled.
    """
    from skimage.restoration import inpaint_biharmonic

    filled = volume.copy()
    for place in np.flatnonzero(hole.any(axis=(1, 2))):
        if hole[place].all():
            continue
        labels, _ = ndimage.label(ndimage.binary_dilation(hole[place], iterations=2 * MARGIN))
        for box in ndimage.find_objects(labels):
            inside, image = hole[place][box], filled[place][box]
            if inside.all():
                continue
            known = image[~inside]
            made = inpaint_biharmonic(image.astype(np.float64), inside)
            image[inside] = np.clip(made[inside], known.min(), known.max())
    return filled


def open_to_air(hole: NDArray[np.bool_], head: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of a hole that lie so near to air that the equation would continue it.

    Args:
        hole: shape (slices, right, anterior).
        head: head or body, same shape.
    """
    square = np.ones((1, 2 * STENCIL + 1, 2 * STENCIL + 1), bool)
    box = wider(box_of(hole), STENCIL, (1.0, 1.0, 1.0))  # in pixels
    labels, _ = ndimage.label(hole[box], structure=np.ones((3, 3, 3)))
    near = np.unique(labels[hole[box] & ndimage.binary_dilation(~head[box], square)])
    found = np.zeros_like(hole)
    found[box] = np.isin(labels, near[near > 0])
    return found
