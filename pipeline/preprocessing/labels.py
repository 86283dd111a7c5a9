"""What is lesion in a mask, and healthy or pathological slice by slice."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.scans.scan import Scan, check_labels

Label = Literal["healthy", "pathological", "excluded", "unknown"]

# A voxel of a soft mask is lesion from here on, in `preprocess` and `synthesize --mask` alike.
SOFT_THRESHOLD = 0.5
# Of the scan's range: above air. No lesion covers half of what is brighter; inverted masks and brain masks do.
BRIGHT, MOST_COVERED = 0.1, 0.5
# Correlation from which a mask's values are the scan's own, rescaled or not.
SAME = 0.98


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


def lesion_voxels(
    mask: Scan, scan: Scan, lesion_labels: Sequence[int] | None = None
) -> tuple[NDArray[np.bool_], list[str]]:
    """The lesion that a mask marks on a scan: one rule for `preprocess` and `synthesize --mask`.

    Args:
        mask: binary, of few labels, or soft with values from 0 to 1; on the grid of `scan`.
        scan: the scan that it belongs to.
        lesion_labels: values that mean lesion; None: all of `SOFT_THRESHOLD` and more.

    Returns:
        The lesion on the scan's grid, shape (X, Y, Z), and notes on what was assumed.

    Raises:
        ScanError: if the mask is a scan, or covers most of the head or body, as an inverted mask does.
    """
    values, intensities = mask.intensities(), scan.intensities()
    soft = bool(values.min() >= 0 and values.max() <= 1)
    if _is_the_scan(values, intensities):
        raise ScanError(
            f"{mask.origin}: the mask has the intensities of the scan {scan.origin.name}, expected a lesion mask; name "
            "the mask's file"
        )
    if not soft:
        check_labels(mask)
    lesion = values >= SOFT_THRESHOLD if lesion_labels is None else np.isin(values.round(), lesion_labels)
    low, high = float(intensities.min()), float(np.percentile(intensities, 99.5))
    bright = intensities > low + BRIGHT * (high - low)
    covered = float(lesion[bright].mean()) if bright.any() else 0.0
    if covered > MOST_COVERED:
        raise ScanError(
            f"{mask.origin}: the mask covers {covered:.0%} of the head or body, expected lesions; give a lesion mask, "
            "neither an inverted one nor one of the brain or organ"
        )
    return lesion, _assumed(mask, values, soft, lesion_labels)


def _is_the_scan(values: NDArray[np.float32], intensities: NDArray[np.float32]) -> bool:
    if np.array_equal(values, intensities):
        return True
    if len(np.unique(values[:: max(1, len(values) // 8)])) <= 3 or not intensities.std() or not values.std():
        return False
    return float(np.corrcoef(values.ravel(), intensities.ravel())[0, 1]) > SAME


def _assumed(mask: Scan, values: NDArray[np.float32], soft: bool, lesion_labels: Sequence[int] | None) -> list[str]:
    inside = values[values > 0]
    whole = inside == inside.round()
    if not whole.all():
        held = "values between 0 and 1" if soft else "values that are no whole numbers"
        return [f"{mask.origin.name}: holds {held}; {SOFT_THRESHOLD:g} and more were taken as lesion"]
    labels = np.unique(inside).astype(int).tolist()
    if lesion_labels is None and len(labels) > 1:
        held = ", ".join(map(str, labels[:5])) + (", …" if len(labels) > 5 else "")
        return [f"{mask.origin.name}: holds the values {held}; all were taken as lesion"]
    return []
