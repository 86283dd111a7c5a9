"""Intensities added to a scan's stored voxels, in its data type or one that holds the sums."""

import numpy as np
from numpy.typing import NDArray

INTEGERS = (np.int16, np.int32, np.int64)
WIDER = {"uint8": "int16", "int8": "int16", "uint16": "int32", "int16": "int32"}


def stored_difference(stored: NDArray[np.generic], other: NDArray[np.generic]) -> NDArray[np.generic]:
    """`stored` − `other` in stored units, in the smallest signed type that holds it; same shape."""
    change: NDArray[np.generic] = np.subtract(stored, other, dtype=_difference_type(other.dtype))
    if change.dtype.kind != "i":
        return change
    largest = max(-int(change.min()), int(change.max()))
    smallest: NDArray[np.generic] = change.astype(
        next(kind for kind in INTEGERS if largest <= np.iinfo(kind).max), copy=False
    )
    return smallest


def add_intensity(
    stored: NDArray[np.generic], where: NDArray[np.bool_], change: NDArray[np.float32], slope: float
) -> tuple[NDArray[np.generic], list[str]]:
    """Add intensities to some stored voxels, in their data type or, if it does not hold the sums, in a wider one.

    Integers are rounded. The 0 of unsigned integers is taken for the floor of the scanner's own scale: no signal, or
    air; what would lie below it is held there.

    Args:
        stored: voxels in stored units; changed in place where their type is kept.
        where: voxels to touch, same shape; all others keep their exact value.
        change: what to add to these, in scan units, shape (number of them,).
        slope: scan units a stored unit.

    Returns:
        The voxels, and notes for the user if some were held or the type is another.
    """
    step = change / np.float32(slope)
    if not np.issubdtype(stored.dtype, np.integer):
        stored[where] = stored[where] + step.astype(stored.dtype)
        return stored, []
    notes = []
    sums = stored[where].astype(_difference_type(stored.dtype))
    sums += np.rint(step).astype(sums.dtype)
    if stored.dtype.kind == "u" and slope > 0 and (below := sums < 0).any():
        sums[below] = 0
        notes.append(f"{below.sum()} voxels reached 0, below which {stored.dtype} has no values, and were held there")
    dtype = stored.dtype
    if sums.size:
        dtype = _holding(float(sums.min()), float(sums.max()), dtype)
    if dtype != stored.dtype:
        notes.append(f"values beyond the limits of {stored.dtype} are kept in {dtype}")
        stored = stored.astype(dtype)
    stored[where] = sums.astype(dtype)
    return stored, notes


def _holding(low: float, high: float, dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """An integer type, or the next wider one that holds these values and that programs for NIfTI read."""
    while dtype.kind != "f":
        limits = np.iinfo(dtype)  # type: ignore[type-var]
        if limits.min <= low and high <= limits.max:
            break
        dtype = np.dtype(WIDER.get(dtype.name, "float64"))
    return dtype


def _difference_type(dtype: np.dtype[np.generic]) -> type[np.generic]:
    """A type that holds the difference of two values of `dtype`."""
    if np.issubdtype(dtype, np.floating):
        return np.float64 if dtype.itemsize > 4 else np.float32
    return np.int32 if dtype.itemsize <= 2 else np.int64
