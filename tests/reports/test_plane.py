"""Slices the way radiologists look at them, however the file's axes run."""

from collections.abc import Callable

import numpy as np
import pytest

from pipeline.inference.products import Result
from pipeline.reports.plane import AXIAL, CORONAL, SAGITTAL, Plane, body_to_mm, obliquity_degrees, outline

AXES = ["RAS", "LAS", "LPS", "PSR", "AIL"]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(
    ("plane", "index", "rows", "columns", "ends"),
    [
        # The lesion lies at 19:23 of 30 from the left, 22:28 of 36 from the back, 6:8 of 12 from below.
        (AXIAL, 6, slice(8, 14), slice(7, 11), ("R", "L", "A", "P")),
        (CORONAL, 22, slice(4, 6), slice(7, 11), ("R", "L", "S", "I")),
        (SAGITTAL, 19, slice(4, 6), slice(8, 14), ("A", "P", "S", "I")),
    ],
    ids=["axial", "coronal", "sagittal"],
)
def test_right_and_front_are_at_the_left_front_and_head_are_up(
    make_result: Callable[..., Result], axes: str, plane: Plane, index: int, rows: slice, columns: slice, ends: tuple
) -> None:
    result = make_result(axes)
    (anomaly,) = result.pictured("difference")
    slices = plane.slices(result.scan, anomaly.voxels)
    assert plane.ends == ends
    assert (slices[index, rows, columns] > 0).all()
    assert np.count_nonzero(slices[index]) == slices[index, rows, columns].size
    assert not slices[index - 1].any()


@pytest.mark.parametrize("axes", AXES)
def test_spacing_follows_the_slices(make_result: Callable[..., Result], axes: str) -> None:
    scan = make_result(axes).scan
    assert [plane.spacing_mm(scan) for plane in (AXIAL, CORONAL, SAGITTAL)] == [(5, 2, 2), (2, 5, 2), (2, 5, 2)]


@pytest.mark.parametrize("axes", AXES)
def test_a_voxel_counted_along_the_body_lies_where_it_did(make_result: Callable[..., Result], axes: str) -> None:
    assert body_to_mm(make_result(axes).scan, 19, 22, 6) == [-29 + 2 * 19, -35 + 2 * 22, -27 + 5 * 6]


def test_obliquity_is_the_angle_to_the_closest_axis(make_result: Callable[..., Result]) -> None:
    assert obliquity_degrees(make_result().scan) == pytest.approx(0, abs=1e-6)
    assert obliquity_degrees(make_result(tilt_degrees=12).scan) == pytest.approx(12)


def test_an_outline_runs_along_the_edges_of_pixels_around_holes_too() -> None:
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    assert outline(ring) == "M0 0h3M1 1h1M1 2h1M0 3h3M0 0v3M1 1v1M2 1v1M3 0v3"
    assert outline(np.zeros((3, 3), dtype=bool)) == ""
