"""One pass over a scan and its products: where there is most to see, where the body is, and the intensities."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.mosaic import BORDER
from pipeline.preprocessing.foreground import AIR
from pipeline.reports.plane import ANTERIOR, RIGHT, SUPERIOR
from pipeline.scans import Scan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.inference.products import ProductKind, Result

# Where there is no image to compare with the scan, slices are chosen by the first product of these kinds.
CHOOSING: tuple["ProductKind", ...] = ("mask", "difference", "map")
# A line through the scan with so little of the tissue of the fullest line holds noise of the air.
SPECKS = 0.02
BINS = 64
# The histogram reaches so far beyond the window, in shares of its width: lesions do.
BEYOND = 0.25


@dataclass(frozen=True)
class Survey:
    """What the pictures are chosen by.

    Attributes:
        amount: for each body axis (right, anterior, superior) and every slice across it, the sum of what there is to
            see: the absolute difference of the scan and the first image, else of what the first mask, difference or
            map holds.
        region: for each body axis, whether the slice has a part in the result's region.
        box: for each body axis, where the body is, with a border.
        edges: of the histogram's bins, in scan units.
        tissue: voxels in each bin, in the region's tissue: of the scan and of the first image, shape (2, bins).
        masked: the same inside the first mask.
        is_masked: whether the region is all inside the first mask.
    """

    amount: list[NDArray[np.float64]]
    region: list[NDArray[np.bool_]]
    box: list[slice]
    edges: NDArray[np.float64]
    tissue: NDArray[np.int64]
    masked: NDArray[np.int64]
    is_masked: bool

    def peak(self, axis: int) -> int:
        """The slice across a body axis with the most to see; the middle one of the region, if there is nothing."""
        if self.amount[axis].any():
            return int(self.amount[axis].argmax())
        inside = np.flatnonzero(self.region[axis])
        return int(inside[len(inside) // 2])

    def indices(self, axis: int, count: int) -> list[int]:
        """At most so many slices across a body axis, the last first: spread over the region, one at the peak."""
        inside = np.flatnonzero(self.region[axis])
        if len(inside) <= count:
            return [int(index) for index in inside[::-1]]
        spread = np.rint(np.linspace(inside[0], inside[-1], count + 2)[1:-1]).astype(int)
        peak = self.peak(axis)
        spread[np.abs(spread - peak).argmin()] = peak
        return sorted(set(spread.tolist()), reverse=True)


def survey(result: "Result") -> Survey:
    """Look through all slices of a scan and its products once; no second volume is held in memory."""
    scan, window = result.scan, result.window
    # Axes: slices, right, anterior.
    stored, region = scan.axial(scan.stored), scan.axial(result.region)
    made, mask, choosing = (_first(result, kinds) for kinds in (("image",), ("mask",), CHOOSING))
    slices, right, anterior = stored.shape
    amount, touched, body = ([np.zeros(length) for length in (right, anterior, slices)] for _ in range(3))
    edges = _edges(result)
    tissue_counts, mask_counts = np.zeros((2, 2, len(edges) - 1), dtype=np.int64)
    is_masked = True
    for index in range(slices):
        before = intensities(scan, stored[index])
        tissue = before > window.low + AIR * window.width
        _add(body, index, tissue)
        inside = np.ascontiguousarray(region[index])
        if not inside.any():
            continue
        _add(touched, index, inside)
        after = None if made is None else intensities(scan, made[index])
        if after is not None:
            _add(amount, index, np.abs(before - after))
        elif choosing is not None:
            _add(amount, index, np.abs(np.ascontiguousarray(choosing[index], dtype=np.float32)))
        masked = np.zeros_like(inside) if mask is None else np.ascontiguousarray(mask[index]) > 0
        is_masked &= not (inside & ~masked).any()
        for counts, where in ((tissue_counts, inside & tissue), (mask_counts, masked)):
            for row, image in enumerate(each for each in (before, after) if each is not None):
                counts[row] += np.histogram(np.clip(image[where], edges[0], edges[-1]), edges)[0]
    return Survey(
        amount=amount,
        region=[along > 0 for along in touched],
        box=[_extent((seen > SPECKS * seen.max()) | (along > 0)) for seen, along in zip(body, touched, strict=True)],
        edges=edges,
        tissue=tissue_counts,
        masked=mask_counts,
        is_masked=is_masked,
    )


def intensities(scan: Scan, stored: NDArray[np.generic]) -> NDArray[np.float32]:
    """Some stored voxels in the scan's units, float32, same shape."""
    voxels: NDArray[np.float32] = np.ascontiguousarray(stored, dtype=np.float32)
    return voxels * np.float32(scan.slope) + np.float32(scan.intercept)


def _first(result: "Result", kinds: "Iterable[ProductKind]") -> NDArray[Any] | None:
    """Axial slices of the first product of the first of these kinds that is there."""
    return next((result.scan.axial(each.voxels) for kind in kinds for each in result.pictured(kind)), None)


def _add(profiles: list[NDArray[np.float64]], index: int, values: NDArray[np.float32] | NDArray[np.bool_]) -> None:
    """Add an axial slice, shape (right, anterior), to sums along each body axis."""
    profiles[RIGHT] += values.sum(axis=1)
    profiles[ANTERIOR] += values.sum(axis=0)
    profiles[SUPERIOR][index] = values.sum()


def _edges(result: "Result") -> NDArray[np.float64]:
    """Bins over the window and a little beyond; of integers, each holds as many values as the next."""
    window = result.window
    reach = (1 + BEYOND) * window.width
    images = result.pictured("image")
    if not np.issubdtype((images[0].voxels if images else result.scan.stored).dtype, np.integer):
        return np.linspace(window.low, window.low + reach, BINS + 1, dtype=np.float64)
    unit = abs(result.scan.slope)
    width = max(1, round(reach / BINS / unit)) * unit
    first = window.low - unit / 2
    return np.asarray(first + width * np.arange(int(np.ceil(reach / width)) + 1), dtype=np.float64)


def _extent(along: NDArray[np.bool_]) -> slice:
    inside = np.flatnonzero(along)
    return slice(max(0, int(inside[0]) - BORDER), min(len(along), int(inside[-1]) + 1 + BORDER))
