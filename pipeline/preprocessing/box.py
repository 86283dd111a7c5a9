"""Boxes around what was found in a volume."""

import math
from collections.abc import Sequence


def wider(box: tuple[slice, ...], margin_mm: float, spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """A box with all voxels up to some millimetres from it along each axis, as far as the volume has them.

    Args:
        box: as `scipy.ndimage.find_objects` gives it.
        margin_mm: how far from the box.
        spacing_mm: voxel size along the same axes.

    >>> wider((slice(1, 4), slice(5, 6)), 4.0, (5.0, 2.0))
    (slice(0, 5, None), slice(3, 8, None))
    """
    margins = [math.ceil(margin_mm / mm) for mm in spacing_mm]
    return tuple(
        slice(max(0, side.start - margin), side.stop + margin) for side, margin in zip(box, margins, strict=True)
    )
