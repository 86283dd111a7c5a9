"""`predict` as a user meets it: a number, told, recorded and in a table."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Call = Callable[..., tuple[int, str, str]]


def test_the_number_is_said_and_stands_in_the_sidecar_and_the_page(
    call: Call, scorer_run: Path, write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    scan, out = write("sub-01_FLAIR.nii.gz", voxels), tmp_path / "out"
    code, said, _ = call("predict", scan, "-b", scorer_run, "-o", out, "--device", "cpu")
    assert code == 0
    assert "age 50 years" in said
    sidecar = json.loads((out / "sub-01_desc-age_FLAIR_number.json").read_text())
    assert sidecar["Request"]["Bundle"] == "age_regression"
    assert sidecar["Numbers"]["age"]["Value"] == 50
    assert sidecar["Numbers"]["age"]["Units"] == "years"
    assert "years" in (out / "sub-01_desc-age_FLAIR_number.html").read_text()
    assert not list(out.glob("*.nii.gz"))
    assert call("verify", out).code == 0


def test_scores_csv_has_one_row_for_each_scan(
    call: Call, scorer_run: Path, write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    scans = [write(f"sub-0{number}_FLAIR.nii.gz", np.roll(voxels, number, axis=0)) for number in (1, 2)]
    assert call("predict", *scans, "-b", scorer_run, "-o", tmp_path / "out", "--device", "cpu").code == 0
    with (tmp_path / "out" / "scores.csv").open() as file:
        rows = list(csv.reader(file))
    assert len(rows) == 3
    (place,) = [place for place, name in enumerate(rows[0]) if "age" in name]
    assert [float(row[place]) for row in rows[1:]] == [50, 50]


def test_a_dicom_series_gives_the_same_number(
    call: Call,
    scorer_run: Path,
    dicom_series: Callable[..., list[Path]],
    voxels: np.ndarray,
    tmp_path: Path,
) -> None:
    dicom_series(tmp_path / "dicom", voxels)
    out = tmp_path / "out"
    code, said, _ = call("predict", tmp_path / "dicom", "-b", scorer_run, "-o", out, "--device", "cpu", "--force")
    assert code == 0
    assert "age 50 years" in said
    text = "".join(path.read_text() for path in out.rglob("*") if path.suffix in (".json", ".html", ".csv"))
    assert "Leaked" not in text + said
    assert call("verify", out).code == 0


def test_done_scans_are_skipped(
    call: Call, scorer_run: Path, write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    given = (write("scan.nii.gz", voxels), "-b", scorer_run, "-o", tmp_path / "out", "--device", "cpu")
    assert call("predict", *given).code == 0
    again = call("predict", *given)
    assert again.code == 0
    assert "0 written, 1 done before" in again.out


@pytest.mark.parametrize(("bundle", "command"), [("gvs", "synthesize"), ("harmonic", "fill"), (None, "segment")])
def test_a_bundle_of_another_kind_says_which_command_it_is_for(
    call: Call,
    segmenter_run: Path,
    write: Callable[..., Path],
    voxels: np.ndarray,
    tmp_path: Path,
    bundle: str | None,
    command: str,
) -> None:
    code, _, said = call("predict", write("scan.nii.gz", voxels), "-b", bundle or segmenter_run, "-o", tmp_path / "out")
    assert code == 2
    assert f"for `phs-pipeline {command}`, expected a scorer" in said


def test_beside_the_number_stands_how_far_off_others_were(
    call: Call, scorer_run: Path, write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(scorer_run, run)
    error = {"split": "validation", "patients": 7, "scans": 9, "mean_absolute_error": 8.14}
    (run / "held_out.json").write_text(json.dumps(error))
    scans = [write(f"sub-0{number}_FLAIR.nii.gz", np.roll(voxels, number, axis=0)) for number in (1, 2)]
    code, said, _ = call("predict", *scans, "-b", run, "-o", out, "--device", "cpu")
    assert code == 0
    assert "age 50 years, mean absolute error 8.14 years on 7 held-out patients (validation)" in said
    assert json.loads((out / "sub-01_desc-age_FLAIR_number.json").read_text())["HeldOut"] == error
    assert "7 held-out patients (validation)" in (out / "sub-01_desc-age_FLAIR_number.html").read_text()
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["HeldOutError"] for row in rows] == ["8.14", "8.14"]


def test_where_the_error_is_not_known_that_is_said(
    call: Call, scorer_run: Path, write: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    _, said, _ = call("predict", write("scan.nii", voxels), "-b", scorer_run, "-o", tmp_path / "out", "--device", "cpu")
    assert "note: the bundle does not say how far its answers are off on patients that it was not trained on" in said
