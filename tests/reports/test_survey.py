"""What the pictures of a page are chosen by."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.inference.translator import Twin
from pipeline.reports.plane import ANTERIOR, RIGHT, SUPERIOR
from pipeline.reports.survey import survey


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PSR"])
def test_the_peak_is_in_the_lesion_and_the_box_around_the_body(make_twin: Callable[..., Twin], axes: str) -> None:
    twin = make_twin(axes)
    found = survey(twin, twin.scan.stored != twin.stored)
    assert 19 <= found.peak(RIGHT) < 23
    assert 22 <= found.peak(ANTERIOR) < 28
    assert 6 <= found.peak(SUPERIOR) < 8
    assert found.box == [slice(1, 29), slice(2, 34), slice(0, 12)]


def test_places_are_spread_over_what_was_edited_with_the_peak_among_them(twin: Twin, lesion: np.ndarray) -> None:
    found = survey(twin, lesion)
    assert found.places(SUPERIOR, 3) == [7, 6, 4]
    assert found.places(SUPERIOR, 6) == [8, 7, 6, 5, 4, 3]
    front = found.places(ANTERIOR, 3)
    assert len(front) == 3
    assert found.peak(ANTERIOR) in front
    assert front == sorted(front, reverse=True)


def test_specks_in_the_air_do_not_widen_the_box(twin: Twin, lesion: np.ndarray) -> None:
    twin.scan.stored[0, 0, 0] = twin.stored[0, 0, 0] = 300
    assert survey(twin, lesion).box[RIGHT] == slice(1, 29)


@pytest.mark.parametrize(("slope", "intercept", "dtype"), [(1, 0, np.int16), (0.5, -100, np.int32), (1, 0, np.float32)])
def test_the_histogram_counts_tissue_and_lesion_in_scan_units_before_and_after(
    make_twin: Callable[..., Twin], lesion: np.ndarray, slope: float, intercept: float, dtype: type
) -> None:
    twin = make_twin(slope=slope, intercept=intercept, dtype=dtype)
    found = survey(twin, lesion)

    def count(counts: np.ndarray, intensity: float) -> int:
        return int(counts[np.searchsorted(found.edges, intensity, side="right") - 1])

    tissue = int(twin.edited.sum())
    removed = int(lesion.sum())
    assert [count(found.tissue[0], 400), count(found.tissue[0], 900)] == [tissue - removed, removed]
    assert [count(found.tissue[1], 400), count(found.tissue[1], 900)] == [tissue, 0]
    assert [count(found.lesion[0], 900), count(found.lesion[1], 400)] == [removed, removed]


def test_bins_of_integers_hold_equally_many_of_them(make_twin: Callable[..., Twin], lesion: np.ndarray) -> None:
    edges = survey(make_twin(slope=3, dtype=np.int32), lesion).edges
    per_bin = np.diff(edges) / 3
    assert per_bin == pytest.approx(np.rint(per_bin))
    assert np.ptp(per_bin) == pytest.approx(0, abs=1e-6)
    assert edges[-1] >= 1250


def test_what_is_brighter_than_the_axis_counts_in_the_last_bin(twin: Twin, lesion: np.ndarray) -> None:
    twin.scan.stored[lesion] = 20_000
    assert survey(twin, lesion).lesion[0, -1] == lesion.sum()
