"""Lesions by size: what a fill is worth in a punctate lesion says little of what it is worth in a large one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage


@dataclass(frozen=True)
class SizeClass:
    """Lesions of volumes from `least_ml` up to, but not including, `most_ml`."""

    name: str
    label: str
    least_ml: float
    most_ml: float


SIZES = (
    SizeClass("punctate", "lesions < 0.1 ml", 0.0, 0.1),
    SizeClass("small", "lesions 0.1–1 ml", 0.1, 1.0),
    SizeClass("medium", "lesions 1–10 ml", 1.0, 10.0),
    SizeClass("large", "lesions 10–50 ml", 10.0, 50.0),
    SizeClass("giant", "lesions > 50 ml", 50.0, np.inf),
)


def size_classes(
    lesion: Bool[np.ndarray, "slices right anterior"], voxel_ml: float
) -> UInt8[np.ndarray, "slices right anterior"]:
    """The size class of the lesion that each voxel belongs to, by its number in `SIZES` from 1; 0 outside lesions.

    Voxels that touch, by a corner even, are one lesion.

    >>> lesion = np.zeros((3, 3, 9), dtype=bool)
    >>> lesion[:, :, :5] = lesion[0, 0, 8] = True
    >>> np.unique(size_classes(lesion, voxel_ml=0.01))
    array([0, 1, 2], dtype=uint8)
    """
    labels, _ = ndimage.label(lesion, structure=np.ones((3, 3, 3)))
    volumes_ml = np.bincount(labels.ravel()) * voxel_ml
    classes = np.searchsorted([size.least_ml for size in SIZES], volumes_ml, side="right").astype(np.uint8)
    classes[0] = 0
    found: np.ndarray = classes[labels]
    return found
