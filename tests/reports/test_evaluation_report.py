"""The page of an evaluation: what a reader must see, and nothing that the numbers do not say."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.evaluation import Evaluation
from pipeline.evaluation.cases import Example
from pipeline.evaluation.slice_table import SliceTable
from pipeline.metrics.catalogue import METRICS, TRANSLATION
from pipeline.mosaic import PANEL_PIXELS
from pipeline.reports.evaluation_report import page, write_report


def score(mean: float | None, sd: float | None = 0.5, n: int = 3, identical: int = 0) -> dict[str, Any]:
    return {"mean": mean, "sd": sd, "n": n, "identical": identical}


def scores(pooled: float, psnr: dict[str, Any]) -> dict[str, Any]:
    names = ("psnr_normal", "ssim_normal", "psnr_slice", "ssim_slice", "identity", "healthiness")
    metrics = {name: score(0.9) for name in names} | {"psnr_normal": psnr}
    metrics["healthiness_pooled"] = score(pooled, None)
    return {"metrics": metrics | {"psnr_lesion": score(None, None, 0), "ssim_lesion": score(None, None, 0)}}


SUMMARY: dict[str, Any] = {
    "pipeline_version": "0.1.0",
    "warning": "Research use only, not for diagnosis.",
    "method": "gvs",
    "provenance": {"Bundle": "gvs", "WeightsSha256": "abc"},
    "device": "cpu",
    "cohort": {
        "sha256": "def",
        "split": "test",
        "patients": 3,
        "volumes": 3,
        "slices": 40,
        "unit": "pathological slice",
    },
    "task": "pseudo-healthy synthesis",
    "metrics": [metric.record() for metric in TRANSLATION],
    "left_out": {},
    "methods": {
        "gvs": scores(0.9412, score(31.234, 1.006)),
        "untouched input": scores(0.1, score(None, None, 3, 3)),
        "mean-filled lesion": scores(0.8, score(40.0, None, 1)),
    },
    "judge": {
        "network": "UNetSegmentor(filters=16)",
        "seed": 1234,
        "iterations": 600,
        "spacing_mm": 2.0,
        "departure": "",
        "dice": {"validation": None, "test": {"pooled": 0.81, "mean_per_slice": 0.74, "slices": 40, "patients": 3}},
    },
    "probes": {
        "hallucination": {
            "change": 0.1,
            "area_mm2": 20.0,
            "margin_mm": 5.0,
            "healthy_slices": {
                "slices": 12,
                "appeared_per_slice": 0.25,
                "vanished_per_slice": 1.5,
                "changed_share": 0.0123,
            },
            "outside_lesion": None,
        },
        "steganography": None,
    },
    "a_dice": None,
    "ms_ssim_padding": [],
    "cases_by": "healthiness",
    "definitions": {"healthiness": "one minus a ratio"},
}


def case(title: str, healthiness: float) -> Example:
    image = np.zeros((20, 24), np.float32)
    image[4:16, 5:20] = 0.5
    lesion = np.zeros(image.shape, bool)
    lesion[6:9, 8:12] = True
    return Example(title, f"sub-{title}", 7, healthiness, image, lesion, image, lesion, (1.0, 1.0))


CASES = [case("best", 0.99), case("median", 0.9), case("worst", -0.2)]


def changed(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(SUMMARY) | changes


def line(text: str, start: str) -> list[str]:
    (found,) = [row for row in text.splitlines() if row.startswith(f"| {start}")]
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_hallucination_is_counted_in_slices_that_exist() -> None:
    text = page(SUMMARY, CASES)
    assert line(text, "slices without lesion (12)") == ["0.25", "1.50", "1.23 %"]
    assert "normal tissue of pathological slices" not in text
    assert "does not apply" in text


def test_steganography_is_shown_where_there_is_a_way_back() -> None:
    probes = copy.deepcopy(SUMMARY["probes"])
    probes["steganography"] = {
        "cycle_error": 0.01,
        "quantised": [{"bits": 4, "cycle_error": 0.31, "noise": 0.02, "amplification": 15.0}],
    }
    text = page(changed(probes=probes), CASES)
    assert "does not apply" not in text
    assert line(text, "exact")[0] == "0.0100"
    assert line(text, "4 bits") == ["0.3100", "0.0200", "15.00"]


def test_a_dice_stands_between_its_brackets_and_a_collapse_is_told() -> None:
    def a_dice(mean: float | None, sd: float | None, collapsed: list[bool]) -> dict[str, Any]:
        return {"mean": mean, "sd": sd, "collapsed": collapsed, "seeds": [0, 1]}

    settings = {"slices": 40, "epochs": 20, "seeds": [0, 1], "network": "U", "optimizer": "SGD", "spacing_mm": 2.0}
    images = {
        "gvs": a_dice(0.4, None, [False, True]),
        "original images": a_dice(0.71, 0.02, [False, False]),
        "healthy slices, random masks": a_dice(None, None, [True, True]),
    }
    text = page(changed(a_dice={"settings": settings, "images": images, "learned": True, "vanished": 0}), CASES)
    table = text[text.index("## A-Dice") : text.index("## Probes")]
    assert line(table, "gvs") == ["0.400 (1 of 2 trainings collapsed and do not count)"]
    assert line(table, "original images") == ["0.710 ± 0.020"]
    assert line(table, "healthy slices")[0].startswith("–")


def test_methods_stand_side_by_side_with_mean_deviation_and_number_of_patients() -> None:
    text = page(SUMMARY, CASES)
    assert "| gvs | untouched input | mean-filled lesion |" in text
    assert line(text, "healthiness, all") == ["0.941", "0.100", "0.800"]
    assert line(text, "normal tissue PSNR") == ["31.23 ± 1.01 (3)", "identical (3)", "40.00 ± – (1)"]


def test_patients_with_infinite_psnr_are_told_beside_the_mean_of_the_others() -> None:
    methods = {"gvs": scores(0.5, score(30.0, 1.0, 3, 1))}
    assert line(page(changed(methods=methods), CASES), "normal tissue PSNR") == [
        "30.00 ± 1.00 (3, 1 of them identical)"
    ]


def test_a_metric_that_no_patient_has_is_left_out() -> None:
    assert "truth" not in page(SUMMARY, CASES).split("## The judge")[0].split("Higher is better")[0]


def test_the_page_warns_and_shows_the_cases_and_says_where_the_numbers_come_from() -> None:
    text = page(SUMMARY, CASES)
    for needed in (
        "Research use only, not for diagnosis.",
        "40 pathological slices of 3 patients, test split",
        "![Best, median and worst case](cases.png)",
        "worst, sub-worst, slice 7, healthiness of the volume -0.200",
        "*healthiness*: one minus a ratio.",
        "WeightsSha256: abc",
        "Dice is 0.810 pooled and 0.740",
    ):
        assert needed in text


@pytest.mark.parametrize(("pooled", "weak"), [(0.81, False), (0.3, True)])
def test_a_judge_that_hardly_sees_lesions_is_called_weak(pooled: float, weak: bool) -> None:
    summary = changed()
    summary["judge"]["dice"]["test"]["pooled"] = pooled
    assert ("That is weak" in page(summary, CASES)) == weak


def test_a_judge_that_knows_the_patients_is_not_called_independent() -> None:
    summary = changed()
    summary["cohort"]["split"] = "training"
    assert "not independent" in page(summary, CASES)
    assert "not independent" not in page(SUMMARY, CASES)


def test_padding_for_ms_ssim_is_stated_where_there_was_any() -> None:
    assert "padded" not in page(SUMMARY, CASES)
    text = page(changed(ms_ssim_padding=[{"slice": [208, 160], "added": [0, 16]}]), CASES)
    assert "208×160 by 0×16 pixels" in text


def test_the_files_hold_what_was_handed_in(tmp_path: Path) -> None:
    slices, keys = SliceTable(), {"method": "gvs", "patient": "p", "subject": "s", "slice": 4}
    slices.add([{**keys, "psnr_normal": float("inf"), "lesion_pixels": 3}])
    volumes = pd.DataFrame({"method": ["gvs"], "healthiness": [0.5]})
    write_report(tmp_path / "new", Evaluation(SUMMARY, slices, volumes, CASES))
    assert (tmp_path / "new" / "slices.csv").read_text() == (
        "method,patient,subject,slice,psnr_normal,lesion_pixels\ngvs,p,s,4,inf,3\n"
    )
    assert (tmp_path / "new" / "patients.csv").read_text() == "method,healthiness\ngvs,0.5\n"
    assert json.loads((tmp_path / "new" / "summary.json").read_text()) == SUMMARY
    assert (tmp_path / "new" / "report.md").read_text(encoding="utf-8") == page(SUMMARY, CASES)


def test_the_picture_has_a_row_of_five_panels_for_each_case_and_outlines_lesions_in_colour(
    tmp_path: Path,
) -> None:
    write_report(tmp_path, Evaluation(SUMMARY, SliceTable(), pd.DataFrame(), CASES))
    with Image.open(tmp_path / "cases.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    assert width == 5 * PANEL_PIXELS
    assert height > 3 * PANEL_PIXELS
    coloured = (pixels[..., 0] - pixels[..., 2]) > 100
    by_column = [bool(part.any()) for part in np.split(coloured, 5, axis=1)]
    assert by_column == [True, False, False, False, True]


SETTINGS = {"slices": 40, "epochs": 20, "seeds": [0, 1], "network": "U", "optimizer": "SGD", "spacing_mm": 2.0}


def test_a_dice_that_ranks_nothing_and_slices_that_vanished_are_told() -> None:
    image = {"mean": 0.0, "sd": 0.0, "collapsed": [False, False], "seeds": [0, 1]}
    images = {"gvs": image, "original images": image}
    text = page(changed(a_dice={"settings": SETTINGS, "images": images, "learned": False, "vanished": 3}), CASES)
    assert "lesions of the original images themselves were not learned" in text
    assert "3 slices whose lesion vanishes at pixels of 2 mm were left out" in text
    nothing = page(changed(a_dice={"settings": SETTINGS, "images": {}, "learned": False, "vanished": 40}), CASES)
    assert "Not measured: no lesion is left at pixels of 2 mm." in nothing
    learned = page(changed(a_dice={"settings": SETTINGS, "images": images, "learned": True, "vanished": 0}), CASES)
    assert "not learned" not in learned
    assert "vanishes" not in learned


def test_a_judge_that_departs_from_the_paper_says_how() -> None:
    judge = {**SUMMARY["judge"], "departure": "smaller than the paper's"}
    assert "pixels of 2 mm. smaller than the paper's." in page(changed(judge=judge), CASES)


def test_a_lower_is_better_metric_points_down() -> None:
    metrics = [metric.record() for metric in TRANSLATION] + [{**METRICS["hd95_mm"].record(), "name": "identity"}]
    assert line(page(changed(metrics=metrics), CASES), "HD95, mm ↓")[0] == "0.9 ± 0.5 (3)"
