"""The error of a filler by depth and size, fitted on holes with known truth, and what of it is stored."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.bundles import bundles_folder
from pipeline.inference import FillError
from pipeline.inference.fill_error import Place

ROOT = Path(__file__).parents[2]
# How far the error of the holes below reaches, in deviations of the tissue, at the depth of 0 and for each mm of it.
AT_EDGE, EACH_MM = 0.5, 0.1


@pytest.fixture(scope="module")
def calibrate() -> dict[str, Any]:
    """What the script defines."""
    return runpy.run_path(str(ROOT / "scripts" / "calibrate_fill.py"), run_name="calibrate_fill")


def planted(calibrate: dict[str, Any], patients: int = 16, voxels: int = 161) -> list[Any]:
    """Holes of each size whose error has a known deviation, and in which no two voxels are alike."""
    rng = np.random.default_rng(0)
    found = []
    for patient in range(patients):
        for size, ml in enumerate(calibrate["SIZES_ML"]):
            depth_mm = np.resize(calibrate["DEPTHS_MM"], voxels).astype(np.float32)
            place = Place(depth_mm, np.full(voxels, ml, np.float32), np.ones(voxels, np.float32))
            error = rng.normal(0, AT_EDGE + EACH_MM * depth_mm)
            found.append(calibrate["Hole"](f"p{patient:02}", size, error, place, rng.uniform(0, 40, (voxels, 3))))
    return found


def test_what_is_fitted_is_the_deviation_that_was_planted(calibrate: dict[str, Any]) -> None:
    holes = planted(calibrate)
    error = calibrate["fitted"](holes)
    assert isinstance(error, FillError)
    expected = AT_EDGE + EACH_MM * np.array(error.depths_mm)
    np.testing.assert_allclose(error.deviations, np.tile(expected, (len(error.sizes_ml), 1)), rtol=0.15)
    # Independent errors are alike at no distance that was measured.
    assert error.shares[0] > 0.9
    inside = calibrate["inside"](holes, error)
    assert np.mean([covered for _, covered, _ in inside]) == pytest.approx(0.9, abs=0.02)


def test_the_table_is_of_patients_that_the_fit_did_not_see(calibrate: dict[str, Any]) -> None:
    holes = planted(calibrate)
    for hole in holes:  # every other patient is filled three times as well
        if int(hole.patient[1:]) % 2:
            hole.error[:] /= 3
    _, _, *lines = calibrate["table"](holes)
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in calibrate["NAMES"]]
    for line in lines:
        each = [int(part) for part in line.split(" | ")[3].split(" and ")]
        # Intervals of the worse half hold all of the better, and those of the better few of the worse.
        assert min(each) < 50
        assert max(each) > 99


def test_a_config_keeps_its_other_lines_and_one_without_a_place_is_refused(
    calibrate: dict[str, Any], tmp_path: Path
) -> None:
    before = (bundles_folder() / "fill" / "configs" / "inference.json").read_text()
    (tmp_path / "inference.json").write_text(before)
    error = FillError((1.0,), (1.0,), [[0.7]], (1.0,), (1.0,))
    calibrate["write"](error, tmp_path / "inference.json")
    after = json.loads((tmp_path / "inference.json").read_text())
    assert after.pop("fill_error")["deviations"] == [[0.7]]
    assert after == {key: value for key, value in json.loads(before).items() if key != "fill_error"}
    (tmp_path / "inference.json").write_text("{}")
    with pytest.raises(SystemExit, match="has no `fill_error`, expected one"):
        calibrate["write"](error, tmp_path / "inference.json")


def test_sizes_without_holes_are_taken_for_their_neighbours_and_none_at_all_is_refused(
    calibrate: dict[str, Any],
) -> None:
    middle = [hole for hole in planted(calibrate) if hole.size in (1, 2)]
    *_, second, third, fourth, last = np.array(calibrate["fitted"](middle).deviations)
    first = calibrate["fitted"](middle).deviations[0]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(third, fourth)
    np.testing.assert_array_equal(third, last)
    with pytest.raises(SystemExit, match="found no depth with 150 voxels"):
        calibrate["fitted"]([])
    with pytest.raises(SystemExit, match="found holes in scans of 1 patients, expected two at least"):
        calibrate["table"]([hole for hole in middle if hole.patient == "p00"])


@pytest.mark.slow
def test_holes_of_a_cohort_are_filled_and_their_coverage_is_told_by_size(
    phantom_cohort: Path, script: Callable[..., str], calibrate: dict[str, Any], tmp_path: Path
) -> None:
    given = ("-b", "harmonic", "--split", "training", "--each", "2", "-o", tmp_path / "error.md")
    script("calibrate_fill.py", phantom_cohort, *given)
    header, _, *lines = (tmp_path / "error.md").read_text().splitlines()
    assert header == "| hole | holes | voxels inside, % | of the halves, % | means of holes inside, % |"
    # Voxels of 0.16 ml: none are below 0.1 ml.
    assert {line.split(" | ")[0].strip("| ") for line in lines} <= set(calibrate["NAMES"]) - {"below 0.1 ml"}
    assert lines
    for line in lines:
        assert 50 <= int(line.split(" | ")[2]) <= 100
