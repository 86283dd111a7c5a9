"""From slices to volumes to patients: what the means run over."""

import math
from typing import Any

import pandas as pd
import pytest

from pipeline.evaluation.scores import score_methods, score_volumes
from pipeline.metrics import catalogue

# Those by size of lesion are measured only where the truth is known, contrast only where pixels have a size.
TRANSLATION = [metric for metric in catalogue.TRANSLATION if not {"sizes", "spacing_mm"} & set(metric.needs)]


def row(patient: str, subject: str, psnr: float, lesion: int = 10, predicted: int = 2) -> dict[str, Any]:
    measured = [metric.name for metric in TRANSLATION if metric.level == "slice"]
    metrics = {**dict.fromkeys(measured, math.nan), "psnr_normal": psnr}
    return {"method": "m", "patient": patient, "subject": subject, "slice": 0, **metrics} | {
        "lesion_pixels": lesion,
        "predicted_pixels": predicted,
    }


def scores(*rows: dict[str, Any]) -> dict[str, Any]:
    return score_methods(volumes(*rows), TRANSLATION)["m"]


def volumes(*rows: dict[str, Any]) -> pd.DataFrame:
    return score_volumes(pd.DataFrame(rows), TRANSLATION)


def test_a_volume_is_the_mean_of_its_slices_and_its_healthiness_the_ratio_of_sums() -> None:
    found = volumes(row("a", "a", 20, 10, 4), row("a", "a", 30, 30, 0))
    assert found.loc[0, ["slices", "psnr_normal", "healthiness"]].tolist() == [2, 25, 0.9]


def test_scans_of_one_person_count_as_one_patient() -> None:
    found = scores(row("a", "a_ses-1", 20), row("a", "a_ses-2", 22), row("b", "b", 31), row("c", "c", 41))
    expected = {"mean": 31.0, "sd": 10.0, "n": 3, "identical": 0}
    assert found["metrics"]["psnr_normal"] == expected


def test_one_patient_has_no_standard_deviation() -> None:
    expected = {"mean": 20.0, "sd": None, "n": 1, "identical": 0}
    assert scores(row("a", "a", 20))["metrics"]["psnr_normal"] == expected


def test_infinite_psnr_is_counted_and_kept_out_of_the_mean() -> None:
    found = scores(row("a", "a", math.inf), row("a", "a", 24), row("b", "b", math.inf), row("c", "c", 26))
    assert found["metrics"]["psnr_normal"] == {
        "mean": 25.0,
        "sd": pytest.approx(math.sqrt(2)),
        "n": 3,
        "identical": 1,
    }


def test_a_metric_without_reference_has_no_patients() -> None:
    expected = {"mean": None, "sd": None, "n": 0, "identical": 0}
    assert scores(row("a", "a", 20))["metrics"]["psnr_lesion"] == expected


def test_healthiness_below_zero_stays_below_zero() -> None:
    found = scores(row("a", "a", 20, lesion=10, predicted=30), row("b", "b", 20, lesion=30, predicted=0))
    assert found["metrics"]["healthiness_pooled"]["mean"] == 0.25
    assert found["metrics"]["healthiness"]["mean"] == -0.5


def test_a_slice_without_a_pixel_to_compare_enters_no_mean_and_keeps_its_part_in_healthiness() -> None:
    found = volumes(row("a", "a", 20, 10, 4), row("a", "a", math.nan, 30, 0))
    assert found.loc[0, ["slices", "psnr_normal", "healthiness"]].tolist() == [2, 20, 0.9]


def test_a_patient_with_such_slices_only_is_not_counted() -> None:
    found = scores(row("a", "a", math.nan), row("b", "b", 20), row("c", "c", 30))
    assert found["metrics"]["psnr_normal"] == {"mean": 25.0, "sd": pytest.approx(math.sqrt(50)), "n": 2, "identical": 0}
    assert found["metrics"]["healthiness"]["n"] == 3


def test_healthiness_is_undefined_without_lesion() -> None:
    slices = [row("a", "a", 20, lesion=0, predicted=3)]
    assert math.isnan(volumes(*slices).loc[0, "healthiness"])
    assert scores(*slices)["metrics"]["healthiness_pooled"] == {"mean": None, "sd": None, "n": 0, "identical": 0}
