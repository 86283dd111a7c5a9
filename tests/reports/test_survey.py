"""What the pictures of a page are chosen by."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.inference.products import Result
from pipeline.reports.plane import ANTERIOR, RIGHT, SUPERIOR
from pipeline.reports.survey import survey


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PSR"])
def test_the_peak_is_in_the_lesion_and_the_box_around_the_body(make_result: Callable[..., Result], axes: str) -> None:
    found = survey(make_result(axes))
    assert 19 <= found.peak(RIGHT) < 23
    assert 22 <= found.peak(ANTERIOR) < 28
    assert 6 <= found.peak(SUPERIOR) < 8
    assert found.box == [slice(1, 29), slice(2, 34), slice(0, 12)]


def test_indices_are_spread_over_the_region_with_the_peak_among_them(result: Result) -> None:
    found = survey(result)
    assert found.indices(SUPERIOR, 3) == [7, 6, 4]
    assert found.indices(SUPERIOR, 6) == [8, 7, 6, 5, 4, 3]
    front = found.indices(ANTERIOR, 3)
    assert len(front) == 3
    assert found.peak(ANTERIOR) in front
    assert front == sorted(front, reverse=True)


def test_specks_in_the_air_do_not_widen_the_box(make_result: Callable[..., Result]) -> None:
    def speck(stored: np.ndarray, made: np.ndarray) -> None:
        stored[0, 0, 0] = made[0, 0, 0] = 300

    assert survey(make_result(mend=speck)).box[RIGHT] == slice(1, 29)


@pytest.mark.parametrize(("slope", "intercept", "dtype"), [(1, 0, np.int16), (0.5, -100, np.int32), (1, 0, np.float32)])
def test_the_histogram_counts_tissue_and_lesion_in_scan_units_before_and_after(
    make_result: Callable[..., Result], lesion: np.ndarray, slope: float, intercept: float, dtype: type
) -> None:
    result = make_result(slope=slope, intercept=intercept, dtype=dtype)
    found = survey(result)

    def count(counts: np.ndarray, intensity: float) -> int:
        return int(counts[np.searchsorted(found.edges, intensity, side="right") - 1])

    tissue = int(result.region.sum())
    removed = int(lesion.sum())
    assert [count(found.tissue[0], 400), count(found.tissue[0], 900)] == [tissue - removed, removed]
    assert [count(found.tissue[1], 400), count(found.tissue[1], 900)] == [tissue, 0]
    assert [count(found.masked[0], 900), count(found.masked[1], 400)] == [removed, removed]


def test_bins_of_integers_hold_equally_many_of_them(make_result: Callable[..., Result]) -> None:
    edges = survey(make_result(slope=3, dtype=np.int32)).edges
    per_bin = np.diff(edges) / 3
    assert per_bin == pytest.approx(np.rint(per_bin))
    assert np.ptp(per_bin) == pytest.approx(0, abs=1e-6)
    assert edges[-1] >= 1250


def test_what_is_brighter_than_the_axis_counts_in_the_last_bin(
    make_result: Callable[..., Result], lesion: np.ndarray
) -> None:
    def brighten(stored: np.ndarray, made: np.ndarray) -> None:
        stored[lesion] = 20_000

    assert survey(make_result(mend=brighten)).masked[0, -1] == lesion.sum()


def test_without_an_image_the_first_mask_chooses_the_slices_and_the_scan_alone_is_counted(
    segmented: Result, lesion: np.ndarray
) -> None:
    found = survey(segmented)
    assert 19 <= found.peak(RIGHT) < 23
    assert 22 <= found.peak(ANTERIOR) < 28
    assert 6 <= found.peak(SUPERIOR) < 8
    assert found.masked.sum(axis=1).tolist() == [lesion.sum(), 0]
    assert not found.is_masked


def test_of_a_number_alone_slices_are_those_in_the_middle(scored: Result) -> None:
    found = survey(scored)
    assert found.peak(SUPERIOR) == 6  # of 2 to 9
    assert found.indices(SUPERIOR, 3) == [7, 6, 4]
    assert not found.masked.any()


def test_a_filled_region_is_all_inside_its_mask(filled: Result) -> None:
    assert survey(filled).is_masked
