"""Healthy or pathological, slice by slice."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Label = Literal["healthy", "pathological", "excluded"]


def label_slices(areas_mm2: NDArray[np.floating], min_lesion_mm2: float = 0.0) -> list[Label]:
    """Name each slice by its lesion area.

    Args:
        areas_mm2: lesion area of each slice, shape (slices,).
        min_lesion_mm2: a slice with some lesion, but less than this, is `excluded`: it is neither healthy nor a useful
            example of disease.

    >>> label_slices(np.array([0.0, 3.0, 50.0]), min_lesion_mm2=10.0)
    ['healthy', 'excluded', 'pathological']
    """
    return ["healthy" if area == 0 else "pathological" if area >= min_lesion_mm2 else "excluded" for area in areas_mm2]
