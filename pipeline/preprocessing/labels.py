"""What is lesion or brain in a mask, and healthy or pathological slice by slice."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import ScanError
from pipeline.scans.scan import Scan, check_labels

Label = Literal["healthy", "pathological", "excluded", "unknown"]

# A voxel of a soft mask is inside from here on, in `preprocess`, `synthesize --mask` and `--brain-mask` alike.
SOFT_THRESHOLD = 0.5
# Of the scan's range: above air. No lesion covers half of what is brighter; inverted masks and brain masks do.
BRIGHT, MOST_COVERED = 0.1, 0.5
# Share of a scan from which on the air around head or body shows whether a mask is one of the brain.
LEAST_AIR = 0.05
# Masks of fewer values are labels; of more, those whose values differ from voxel to voxel are maps.
FEW_VALUES = 10
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
        ScanError: if the mask is a scan or a map, covers most of the head or body, as an inverted mask does, or lies
            in the air around it.
    """
    values, intensities = mask.intensities(), scan.intensities()
    notes = _checked(mask, values, scan, intensities, "lesion", lesion_labels)
    lesion = values >= SOFT_THRESHOLD if lesion_labels is None else np.isin(values.round(), lesion_labels)
    bright = _bright(intensities)
    covered = float(lesion[bright].mean()) if bright.any() else 0.0
    if covered > MOST_COVERED:
        raise ScanError(
            f"{mask.origin}: the mask covers {covered:.0%} of the head or body, expected lesions; give a lesion mask, "
            "neither an inverted one nor one of the brain or organ"
        )
    if covered == 0 and bright.any() and lesion.any() and not lesion[~_outside(scan, bright)].any():
        raise ScanError(
            f"{mask.origin}: the mask marks nothing but air around the head or body, expected lesions in it; give the "
            f"mask that was drawn on {scan.origin}"
        )
    return lesion, notes


def brain_voxels(mask: Scan, scan: Scan) -> tuple[NDArray[np.bool_], list[str]]:
    """The brain that a mask marks on a scan.

    Args:
        mask: binary, of few labels, or soft with values from 0 to 1; on the grid of `scan`.
        scan: the scan that it belongs to.

    Returns:
        The brain on the scan's grid, shape (X, Y, Z), and notes on what was assumed.

    Raises:
        ScanError: if the mask is a scan or a map, is empty, or covers the air around the head, as an inverted one does.
    """
    values, intensities = mask.intensities(), scan.intensities()
    notes = _checked(mask, values, scan, intensities, "brain")
    brain = values >= SOFT_THRESHOLD
    if not brain.any():
        raise ScanError(f"{mask.origin}: the brain mask {empty(mask)}, expected a brain; check the mask")
    air = _outside(scan, _bright(intensities))
    covered = float(brain[air].mean()) if air.mean() > LEAST_AIR else 0.0
    if covered > MOST_COVERED:
        raise ScanError(
            f"{mask.origin}: the brain mask covers {covered:.0%} of the air around the head, expected the brain alone; "
            "give a brain mask, neither an inverted one nor one of the whole volume"
        )
    return brain, notes


def empty(mask: Scan) -> str:
    """How a message says that a mask has no voxel inside: a soft one may fall short of the threshold everywhere."""
    largest = float(mask.intensities().max())
    short = f" (its largest value is {largest:.3g}, {SOFT_THRESHOLD:g} and more are inside)" if largest else ""
    return f"is empty{short}"


def _bright(intensities: NDArray[np.float32]) -> NDArray[np.bool_]:
    low, high = float(intensities.min()), float(np.percentile(intensities.ravel(order="K"), 99.5))
    bright: NDArray[np.bool_] = intensities > low + BRIGHT * (high - low)
    return bright


def _outside(scan: Scan, bright: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is neither bright nor enclosed by what is, in its axial slice."""
    inside = bright.copy()
    for axial_slice in scan.axial(inside):
        axial_slice[...] = ndimage.binary_fill_holes(axial_slice)
    return ~inside


def _checked(
    mask: Scan,
    values: NDArray[np.float32],
    scan: Scan,
    intensities: NDArray[np.float32],
    kind: str,
    labels: Sequence[int] | None = None,
) -> list[str]:
    """Notes on what is assumed of a mask, which is neither the scan nor a map of anything."""
    soft = bool(values.min() >= 0 and values.max() <= 1)
    if _is_the_scan(values, intensities):
        raise ScanError(
            f"{mask.origin}: the mask has the intensities of the scan {scan.origin}, expected a {kind} mask; name the "
            "mask's file"
        )
    if not soft:
        check_labels(mask)
        if _is_map(values):
            raise ScanError(
                f"{mask.origin}: found values up to {values.max():g} that change from voxel to voxel, expected a mask "
                "of few labels; threshold the map, or scale probabilities to 0 to 1"
            )
    return _assumed(mask, values, soft, kind, labels)


def _is_map(values: NDArray[np.float32]) -> bool:
    """Whether most values have more neighbours of other values than of their own, as probabilities do, not labels."""
    found, numbers = np.unique(values, return_inverse=True)
    if len(found) <= FEW_VALUES:
        return False
    numbers = numbers.reshape(values.shape)
    inside = values > 0
    alike, unlike = np.zeros(len(found)), np.zeros(len(found))
    for axis in range(values.ndim):
        one, other = (np.moveaxis(numbers, axis, 0)[part] for part in (slice(1, None), slice(-1)))
        both = np.moveaxis(inside, axis, 0)[1:] & np.moveaxis(inside, axis, 0)[:-1]
        same = both & (one == other)
        alike += 2 * np.bincount(one[same], minlength=len(found))
        for ends in (one, other):
            unlike += np.bincount(ends[both & ~same], minlength=len(found))
    return bool((unlike > alike).sum() > np.count_nonzero(found > 0) / 2)


def _is_the_scan(values: NDArray[np.float32], intensities: NDArray[np.float32]) -> bool:
    if np.array_equal(values, intensities):
        return True
    if len(np.unique(values[:: max(1, len(values) // 8)])) <= 3 or not intensities.std() or not values.std():
        return False
    return float(np.corrcoef(values.ravel(), intensities.ravel())[0, 1]) > SAME


def _assumed(mask: Scan, values: NDArray[np.float32], soft: bool, kind: str, labels: Sequence[int] | None) -> list[str]:
    inside = values[values > 0]
    whole = inside == inside.round()
    if not whole.all():
        held = "values between 0 and 1" if soft else "values that are no whole numbers"
        return [f"{mask.origin.name}: holds {held}; {SOFT_THRESHOLD:g} and more were taken as {kind}"]
    several = np.unique(inside).astype(int).tolist()
    if labels is None and len(several) > 1:
        held = ", ".join(map(str, several[:5])) + (", …" if len(several) > 5 else "")
        return [f"{mask.origin.name}: holds the values {held}; all were taken as {kind}"]
    return []
