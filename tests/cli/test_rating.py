"""`phs-pipeline rating`, as a user calls it: draw, rate, report."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pipeline.cli.rating import rating
from pipeline.errors import UsageError
from pipeline.evaluation.scores import score_methods
from pipeline.evaluation.twins import Twins, write_twins
from pipeline.metrics.catalogue import TRANSLATION


@pytest.fixture
def reports(tmp_path: Path) -> list[str]:
    """Two methods on four slices of one patient."""
    image = np.full((4, 16, 16), 0.5, np.float32)
    lesion = np.zeros(image.shape, bool)
    lesion[:, 4:8, 4:8] = True
    folders = []
    for method, level in (("first-method", 0.4), ("second-method", 0.6)):
        twin = np.full(image.shape, level, np.float32)
        twins = Twins("sub-1", np.arange(4), image, twin, lesion, image > 0, (1.0, 1.0))
        write_twins(tmp_path / method / "twins", twins)
        measured = [metric.name for metric in TRANSLATION if metric.level != "pooled"]
        scores = dict.fromkeys(measured, 0.9) | {"lesion_pixels": 16, "predicted_pixels": 1}
        row = {"method": method, "patient": "sub-1", "subject": "sub-1", "slices": 4, **scores}
        pd.DataFrame([row]).to_csv(tmp_path / method / "patients.csv", index=False)
        judge = {"network": "UNet", "seed": 1, "iterations": 1, "spacing_mm": 2.0, "dice": {}, "weights_sha256": "fed"}
        cohort = {"sha256": "abc", "split": "test", "patients": 1, "volumes": 1, "slices": 4, "unit": "slice"}
        summary = {
            "format": 2,
            "kind": "translator",
            "method": method,
            "metrics": [metric.record() for metric in TRANSLATION],
            "methods": score_methods(pd.DataFrame([row]), TRANSLATION),
            "a_dice": None,
            "judge": judge,
            "cohort": cohort,
        }
        (tmp_path / method / "summary.json").write_text(json.dumps(summary))
        folders.append(str(tmp_path / method))
    return folders


def test_a_study_from_draw_to_table(reports: list[str], tmp_path: Path) -> None:
    study = tmp_path / "study"
    drawn = CliRunner().invoke(rating, ["draw", *reports, "-o", str(study)])
    assert drawn.exit_code == 0, drawn.output
    assert drawn.stdout.splitlines()[:2] == [
        "only 4 of 100 cases are there, all of them are used",
        "1 instead of 10 cases come twice, a third of all at most",
    ]
    assert "methods 2, patients 1, cases 4, of them shown twice 1" in drawn.stdout
    assert f"for the raters: {study / 'rating.html'}" in drawn.stdout
    assert sorted(path.name for path in study.iterdir()) == ["key.json", "rating.html"]

    key = json.loads((study / "key.json").read_text())
    ratings = [
        {"case": case["case"], "image": letter, "healthiness": 2 if method == "first-method" else 4, "identity": 3}
        for case in key["cases"]
        for letter, method in case["images"].items()
    ]
    content = {"format": 1, "study": key["study"], "rater": "AB", "ratings": ratings[:-1]}
    (tmp_path / "rating_AB.json").write_text(json.dumps(content))
    told = CliRunner().invoke(
        rating, ["report", str(study), str(tmp_path / "rating_AB.json"), "-o", str(tmp_path / "table")]
    )
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    assert lines[1].split() == ["first-method", "2.000", "3.000"]
    assert lines[2].split() == ["second-method", "4.000", "3.000"]
    assert lines[3:] == ["AB: 2 scores are missing", f"table: {tmp_path / 'table' / 'table.md'}"]
    assert sorted(path.name for path in (tmp_path / "table").iterdir()) == ["summary.json", "table.csv", "table.md"]


def test_a_folder_that_is_no_report_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(rating, ["draw", str(tmp_path / "nothing"), "-o", str(tmp_path / "study")])
    assert isinstance(result.exception, UsageError)
    assert str(tmp_path / "nothing") in str(result.exception)


@pytest.mark.parametrize("arguments", [["draw", "-o", "study"], ["report", "study", "-o", "table"]])
def test_without_reports_or_files_there_is_nothing_to_do(arguments: list[str]) -> None:
    assert CliRunner().invoke(rating, arguments).exit_code == 2
