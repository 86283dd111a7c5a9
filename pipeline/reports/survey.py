"""One pass over a scan and its twin: where the change is, where the body is, and the intensities before and after."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.mosaic import BORDER
from pipeline.preprocessing.foreground import AIR
from pipeline.reports.plane import ANTERIOR, RIGHT, SUPERIOR
from pipeline.scans import Scan

if TYPE_CHECKING:  # that room writes these pages
    from pipeline.inference.translator import Twin

# A line through the scan with so little of the tissue of the fullest line holds noise of the air.
SPECKS = 0.02
BINS = 64
# The histogram reaches so far beyond the window, in shares of its width: lesions do.
BEYOND = 0.25


@dataclass(frozen=True)
class Survey:
    """Profiles of change, extent and histograms, by which the pictures of a report are chosen.

    Attributes:
        change: for each body axis (right, anterior, superior), the absolute change of every slice across it, summed.
        edited: for each body axis, whether the slice was edited.
        box: for each body axis, where the body is, with a border.
        edges: of the histogram's bins, in scan units.
        tissue: voxels in each bin, in the tissue that could be edited: before and after, shape (2, bins).
        lesion: the same in what the method took for disease.
    """

    change: list[NDArray[np.float64]]
    edited: list[NDArray[np.bool_]]
    box: list[slice]
    edges: NDArray[np.float64]
    tissue: NDArray[np.int64]
    lesion: NDArray[np.int64]

    def peak(self, axis: int) -> int:
        """The slice across a body axis with the greatest change; the middle one of the edited, if nothing changed."""
        if self.change[axis].any():
            return int(self.change[axis].argmax())
        edited = np.flatnonzero(self.edited[axis])
        return int(edited[len(edited) // 2])

    def places(self, axis: int, count: int) -> list[int]:
        """At most so many slices across a body axis, the last first: spread over the edited part, one at the peak."""
        edited = np.flatnonzero(self.edited[axis])
        if len(edited) <= count:
            return [int(index) for index in edited[::-1]]
        spread = np.rint(np.linspace(edited[0], edited[-1], count + 2)[1:-1]).astype(int)
        peak = self.peak(axis)
        spread[np.abs(spread - peak).argmin()] = peak
        return sorted(set(spread.tolist()), reverse=True)


def survey(twin: "Twin", lesion: NDArray[np.bool_]) -> Survey:
    """Look through all slices of a twin once; no second volume is held in memory.

    Args:
        twin: the scan and its pseudo-healthy twin.
        lesion: what the method took for disease, bool, shape (X, Y, Z).
    """
    scan, window = twin.scan, twin.window
    # Axes: slices, right, anterior.
    stored, made, edited, removed = map(scan.axial, (scan.stored, twin.stored, twin.edited, lesion))
    slices, right, anterior = stored.shape
    change, touched, body = ([np.zeros(length) for length in (right, anterior, slices)] for _ in range(3))
    edges = _edges(twin)
    counts = np.zeros((2, 2, len(edges) - 1), dtype=np.int64)
    for index in range(slices):
        before = intensities(scan, stored[index])
        tissue = before > window.low + AIR * window.width
        _add(body, index, tissue)
        inside = np.ascontiguousarray(edited[index])
        if not inside.any():
            continue
        after = intensities(scan, made[index])
        _add(touched, index, inside)
        _add(change, index, np.abs(before - after))
        for region, where in enumerate((inside & tissue, np.ascontiguousarray(removed[index]))):
            for moment, values in enumerate((before[where], after[where])):
                counts[region, moment] += np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    return Survey(
        change=change,
        edited=[along > 0 for along in touched],
        box=[_extent((seen > SPECKS * seen.max()) | (along > 0)) for seen, along in zip(body, touched, strict=True)],
        edges=edges,
        tissue=counts[0],
        lesion=counts[1],
    )


def intensities(scan: Scan, stored: NDArray[np.generic]) -> NDArray[np.float32]:
    """Some stored voxels in the scan's units, float32, same shape."""
    voxels: NDArray[np.float32] = np.ascontiguousarray(stored, dtype=np.float32)
    return voxels * np.float32(scan.slope) + np.float32(scan.intercept)


def _add(profiles: list[NDArray[np.float64]], index: int, values: NDArray[np.float32] | NDArray[np.bool_]) -> None:
    """Add an axial slice, shape (right, anterior), to sums along each body axis."""
    profiles[RIGHT] += values.sum(axis=1)
    profiles[ANTERIOR] += values.sum(axis=0)
    profiles[SUPERIOR][index] = values.sum()


def _edges(twin: "Twin") -> NDArray[np.float64]:
    """Bins over the window and a little beyond; of integers, each holds as many values as the next."""
    window = twin.window
    reach = (1 + BEYOND) * window.width
    if not np.issubdtype(twin.stored.dtype, np.integer):
        return np.linspace(window.low, window.low + reach, BINS + 1, dtype=np.float64)
    unit = abs(twin.scan.slope)
    width = max(1, round(reach / BINS / unit)) * unit
    first = window.low - unit / 2
    return np.asarray(first + width * np.arange(int(np.ceil(reach / width)) + 1), dtype=np.float64)


def _extent(along: NDArray[np.bool_]) -> slice:
    inside = np.flatnonzero(along)
    return slice(max(0, int(inside[0]) - BORDER), min(len(along), int(inside[-1]) + 1 + BORDER))
