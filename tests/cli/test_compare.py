"""`phs-pipeline compare`, as a user calls it."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.cli.compare import compare
from pipeline.errors import UsageError
from pipeline.evaluation.scores import score_methods
from pipeline.evaluation.twins import Twins, write_twins
from pipeline.files import table_csv
from pipeline.metrics import METRICS
from pipeline.mosaic import PANEL_PIXELS

ORDER = ("healthiness_pooled", "healthiness", "identity", "ssim_normal", "psnr_normal", "psnr_lesion", "ssim_lesion")
SUBJECTS = [f"sub-{number}" for number in range(7)]


def write_report(folder: Path, method: str, healthiness: float, twins: bool = True, patients: int = 7) -> Path:
    """A report of seven patients or fewer; the twin of each slice is the input at 90 %."""
    volumes = pd.DataFrame(
        [
            {
                "method": name,
                "patient": subject,
                "subject": subject,
                "psnr_normal": psnr + place,
                "ssim_normal": ssim,
                "identity": ssim,
                "psnr_lesion": math.nan,
                "ssim_lesion": math.nan,
                "lesion_pixels": 1000,
                "predicted_pixels": round(1000 * (1 - value)) - place,
                "healthiness": value + place / 1000,
            }
            for name, psnr, ssim, value in ((method, 30.0, 0.9, healthiness), ("untouched input", math.inf, 1.0, 0.1))
            for place, subject in enumerate(SUBJECTS[:patients])
        ]
    )
    described = [METRICS[name] for name in ORDER]
    summary = {
        "format": 2,
        "kind": "translator",
        "metrics": [metric.record() for metric in described],
        "a_dice": None,
        "method": method,
        "provenance": {},
        "cohort": {
            "sha256": "c" * 64,
            "split": "test",
            "patients": patients,
            "volumes": patients,
            "slices": patients,
            "unit": "pathological slice",
        },
        "judge": {"network": "U-Net", "seed": 1, "iterations": 2, "weights_sha256": "f" * 64, "dice": {}},
        "methods": score_methods(volumes, described),
    }
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "patients.csv").write_text(table_csv(volumes), encoding="utf-8")
    image = np.full((1, 16, 16), 0.5, np.float32)
    lesion = np.zeros(image.shape, bool)
    lesion[:, 4:8, 4:8] = True
    for subject in SUBJECTS if twins else ():
        write_twins(
            folder / "twins",
            Twins(subject, np.array([3]), image, image * np.float32(0.9), lesion, image > 0, (1.0, 1.0)),
        )
    return folder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(compare, [str(argument) for argument in arguments])


def test_it_writes_table_and_panel_and_prints_the_table(tmp_path: Path) -> None:
    reports = [write_report(tmp_path / "a", "gvs", 0.9), write_report(tmp_path / "b", "vagan", 0.8)]
    result = call(*reports, "-o", tmp_path / "table")
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "table").iterdir()}
    assert names == {"table.md", "table.tex", "table.csv", "table.html", "comparison.json", "panel.png"}
    lines = result.stdout.splitlines()
    assert (
        lines[2]
        == "| gvs | **0.903** | **0.903 ± 0.002** * | **0.9000 ± 0.0000** | **0.9000 ± 0.0000** | **33.00 ± 2.16** |"
    )
    assert lines[-1] == f"table: {tmp_path / 'table' / 'table.html'}"
    assert "\n".join(lines[:-1]) in (tmp_path / "table" / "table.md").read_text(encoding="utf-8")
    with Image.open(tmp_path / "table" / "panel.png") as picture:
        assert picture.width == 3 * PANEL_PIXELS


def test_baseline_cases_and_controls_can_be_chosen(tmp_path: Path) -> None:
    reports = [write_report(tmp_path / "a", "gvs", 0.9), write_report(tmp_path / "b", "vagan", 0.8)]
    result = call(
        *reports, "-o", tmp_path / "t", "--baseline", "gvs", "--case", "sub-3:3", "--case", "sub-4", "--controls"
    )
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "t" / "comparison.json").read_text(encoding="utf-8"))
    assert content["baselines"] == ["gvs"]
    assert [row["cells"]["healthiness"]["mark"] for row in content["rows"]] == ["", "worse", "worse"]
    with Image.open(tmp_path / "t" / "panel.png") as picture:
        assert 4 * PANEL_PIXELS < picture.height < 5 * PANEL_PIXELS


@pytest.mark.parametrize("method", ["=1+cmd", "@SUM(A1)"])
def test_a_method_named_like_a_formula_is_compared_and_stays_text(tmp_path: Path, method: str) -> None:
    reports = [write_report(tmp_path / "a", method, 0.9), write_report(tmp_path / "b", "vagan", 0.8)]
    result = call(*reports, "-o", tmp_path / "table", "--no-panel")
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "table" / "table.csv").read_text(encoding="utf-8").splitlines()
    assert rows[1].startswith(f"'{method},")


def test_a_report_without_images_needs_no_panel(tmp_path: Path) -> None:
    report = write_report(tmp_path / "a", "gvs", 0.9, twins=False)
    refused = call(report, "-o", tmp_path / "table")
    assert isinstance(refused.exception, UsageError)
    assert "--no-panel" in str(refused.exception)
    assert not (tmp_path / "table").exists()
    assert call(report, "-o", tmp_path / "table", "--no-panel").exit_code == 0
    assert not (tmp_path / "table" / "panel.png").exists()


def test_a_folder_that_is_not_empty_is_overwritten_only_when_asked(tmp_path: Path) -> None:
    report = write_report(tmp_path / "a", "gvs", 0.9)
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "notes.txt").write_text("mine")
    refused = call(report, "-o", tmp_path / "table", "--no-panel")
    assert isinstance(refused.exception, UsageError)
    assert "not empty" in str(refused.exception)
    assert call(report, "-o", tmp_path / "table", "--no-panel", "--overwrite").exit_code == 0
    assert (tmp_path / "table" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("option", [["--case", "sub-1"], ["--controls"]])
def test_what_to_show_without_a_picture_is_a_contradiction(tmp_path: Path, option: list[str]) -> None:
    report = write_report(tmp_path / "a", "gvs", 0.9)
    refused = call(report, "-o", tmp_path / "table", "--no-panel", *option)
    assert isinstance(refused.exception, UsageError)
    assert "--no-panel" in str(refused.exception)


def test_at_least_one_report_is_needed(tmp_path: Path) -> None:
    assert call("-o", tmp_path / "table").exit_code == 2


def test_with_six_patients_and_two_methods_it_says_that_no_star_is_possible(tmp_path: Path) -> None:
    reports = [write_report(tmp_path / name, name, value, patients=6) for name, value in (("a", 0.9), ("b", 0.8))]
    said = call(*reports, "-o", tmp_path / "table").stdout
    assert "Too few pairs differ for any mark in healthiness of a volume (6)" in said
    assert "No star is possible there, so its absence means nothing." in said
    one = call(reports[0], "-o", tmp_path / "one").stdout
    assert "No star" not in one, "six pairs suffice for a single row"


def test_reports_of_one_name_are_trainings_only_on_request(tmp_path: Path) -> None:
    reports = [write_report(tmp_path / "a", "gvs", 0.9), write_report(tmp_path / "b", "gvs", 0.8)]
    refused = call(*reports, "-o", tmp_path / "table")
    assert "or give --trainings" in str(refused.exception)
    result = call(*reports, "-o", tmp_path / "table", "--trainings", "--no-panel")
    assert result.exit_code == 0, result.output
    assert "0.853 ± 0.002 (trainings ± 0.071)" in result.stdout.splitlines()[2]
