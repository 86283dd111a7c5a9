"""The slab of middle slices, as a number or as millimetres."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ScanError
from pipeline.preprocessing.slab import Slab


@pytest.mark.parametrize(
    ("slab", "count", "spacing_mm", "expected"),
    [
        (Slab(slices=60, thickness_mm=None), 155, 1.0, (47, 107)),
        (Slab(slices=60, thickness_mm=None), 155, 3.0, (47, 107)),
        (Slab(), 155, 1.0, (47, 107)),
        (Slab(thickness_mm=60), 155, 0.5, (17, 137)),
        (Slab(thickness_mm=60), 23, 5.0, (5, 17)),
        (Slab(thickness_mm=1), 23, 5.0, (11, 12)),
        (Slab(thickness_mm=60), 10, 5.0, (0, 10)),
        (Slab(slices=60, thickness_mm=None), 20, 1.0, (0, 20)),
        (Slab(thickness_mm=None), 33, 2.0, (0, 33)),
        (Slab(slices=1, thickness_mm=None), 1, 2.0, (0, 1)),
    ],
)
def test_slab_by_hand(slab: Slab, count: int, spacing_mm: float, expected: tuple[int, int]) -> None:
    assert slab.range(count, spacing_mm) == expected


@given(wanted=st.integers(1, 300), count=st.integers(1, 300))
def test_slab_is_in_the_middle_and_within_the_scan(wanted: int, count: int) -> None:
    first, last = Slab(slices=wanted, thickness_mm=None).range(count, 1.0)
    assert last - first == min(wanted, count)
    assert 0 <= (count - last) - first <= 1


def test_slab_is_given_once() -> None:
    with pytest.raises(ValueError, match="not both"):
        Slab(slices=60, thickness_mm=60)


@pytest.mark.parametrize(("slices", "thickness_mm"), [(0, None), (None, 0.0), (None, -1.0)])
def test_slab_needs_a_slice(slices: int | None, thickness_mm: float | None) -> None:
    with pytest.raises(ValueError, match="at least one slice"):
        Slab(slices=slices, thickness_mm=thickness_mm)


def test_scan_without_slices_is_refused() -> None:
    with pytest.raises(ScanError):
        Slab().range(0, 1.0)
