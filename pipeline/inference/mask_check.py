"""Whether a lesion mask leaves a rim of the lesion out, and how it is grown."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.preprocessing.box import wider

# In millimetres within the slices: what may be a rim, and what is healthy for certain.
RIM_MM, AROUND_MM = 2.5, (5.0, 12.0)
# Of the lesion's contrast to its surroundings, in the rim. Of 77 FLAIR scans with drawn glioma and MS lesions, 95 %
# were below 0.42; with the masks made smaller by 2 mm, 95 % were above 0.52.
TIGHT = 0.47
LEAST_PIXELS = 20
DEVIATION = 1.4826  # of a normal distribution, in median absolute deviations


def rim_contrast(
    axial: NDArray[np.float32],
    hole: NDArray[np.bool_],
    head: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> float | None:
    """How much of the lesion's contrast the tissue just outside its mask has: 0 none, 1 as much as the lesion.

    Args:
        axial: intensities, shape (slices, right, anterior).
        hole: the mask, same shape.
        head: head or body, same shape.
        spacing_mm: voxel size along the same axes.

    Returns:
        None where there is too little tissue to tell, or the lesion does not stand out from the tissue around it.
    """
    box, distance_mm = _distances(hole, spacing_mm, AROUND_MM[1], within_slices=True)
    values, tissue = axial[box], head[box] & ~hole[box]
    rim = values[tissue & (distance_mm <= RIM_MM)]
    around = values[tissue & (distance_mm > AROUND_MM[0]) & (distance_mm <= AROUND_MM[1])]
    if min(len(rim), len(around)) < LEAST_PIXELS:
        return None
    normal = float(np.median(around))
    deviation = DEVIATION * float(np.median(np.abs(around - normal)))
    contrast = float(np.median(values[hole[box]])) - normal
    return None if abs(contrast) <= deviation else (float(np.median(rim)) - normal) / contrast


def tightness_warning(rim: float | None) -> str | None:
    """What to say of a mask with this rim; None if nothing."""
    if rim is None or rim < TIGHT:
        return None
    return (
        f"the mask looks too tight: up to {RIM_MM:g} mm outside it, tissue has {rim:.0%} of the lesion's contrast, "
        f"expected below {TIGHT:.0%}; what the mask leaves out is continued into the hole; draw it more generously, or "
        "give --grow 2"
    )


def grown(
    hole: NDArray[np.bool_], head: NDArray[np.bool_], spacing_mm: tuple[float, float, float], grow_mm: float
) -> NDArray[np.bool_]:
    """A mask with all of the head or body up to some millimetres from it."""
    box, distance_mm = _distances(hole, spacing_mm, grow_mm, within_slices=False)
    larger = hole.copy()
    larger[box] |= head[box] & (distance_mm <= grow_mm)
    return larger


def _distances(
    hole: NDArray[np.bool_], spacing_mm: tuple[float, float, float], reach_mm: float, within_slices: bool
) -> tuple[tuple[slice, ...], NDArray[np.float64]]:
    """The box around a mask, wider by `reach_mm`, and each of its voxels' distance from the mask in mm."""
    found = ndimage.find_objects(hole.view(np.uint8))[0]
    box = wider(found, reach_mm, spacing_mm)
    if within_slices:
        box = (found[0], *box[1:])
    # Too far from a slice to the next for its mask to be the nearest.
    sampling = (10 * reach_mm + 1e3, *spacing_mm[1:]) if within_slices else spacing_mm
    distance_mm: NDArray[np.float64] = ndimage.distance_transform_edt(~hole[box], sampling=sampling)
    return box, distance_mm
