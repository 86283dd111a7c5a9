"""Evaluation reports of three methods, as the study reads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.scores import score_methods
from pipeline.evaluation.twins import Twins, write_twins
from pipeline.metrics.catalogue import TRANSLATION
from pipeline.rating import draw_study

NAMES = ("method-of-darkness", "method-of-dusk", "method-of-light")
# Volume, patient, slices: one patient has two volumes, and far more slices than the others.
VOLUMES = (
    ("sub-ada_ses-1", "sub-ada", 9),
    ("sub-ada_ses-2", "sub-ada", 9),
    ("sub-bob", "sub-bob", 4),
    ("sub-eve", "sub-eve", 5),
)


def twins_of(method: str, subject: str, slices: int) -> Twins:
    """A disc of noise with a bright square for a lesion; a method's image has a brightness of its own."""
    rng = np.random.default_rng(len(subject) + slices)
    right, anterior = np.mgrid[:24, :20]
    foreground = np.broadcast_to((right - 12) ** 2 + (anterior - 10) ** 2 < 64, (slices, 24, 20))
    lesion = np.zeros(foreground.shape, bool)
    lesion[:, 8:12, 8:12] = True
    image = (foreground * rng.uniform(0.3, 0.6, foreground.shape) + 0.3 * lesion).astype(np.float32)
    twin = image * np.float32(0.4 + 0.2 * NAMES.index(method))
    return Twins(subject, np.arange(slices) + 3, image, twin, lesion, foreground, (1.0, 1.0))


def write(folder: Path, method: str) -> Path:
    measured = [metric.name for metric in TRANSLATION if metric.level != "pooled"]
    scores = dict.fromkeys(measured, 0.9) | {"lesion_pixels": 16, "predicted_pixels": 1}
    rows = [
        {"method": method, "patient": patient, "subject": subject, "slices": slices, **scores}
        for subject, patient, slices in VOLUMES
    ]
    summary = {
        "format": 2,
        "kind": "translator",
        "method": method,
        "metrics": [metric.record() for metric in TRANSLATION],
        "methods": score_methods(pd.DataFrame(rows), TRANSLATION),
        "a_dice": None,
        "judge": {
            "network": "UNetSegmentor(filters=16)",
            "seed": 1234,
            "iterations": 600,
            "spacing_mm": 2.0,
            "dice": {"test": {"pooled": 0.8, "mean_per_slice": 0.7, "slices": 27, "patients": 3}},
            "cohort_sha256": "abc",
            "weights_sha256": "fed",
        },
        "cohort": {
            "sha256": "abc",
            "split": "test",
            "patients": 3,
            "volumes": 4,
            "slices": 27,
            "unit": "pathological slice",
        },
    }
    for subject, _, slices in VOLUMES:
        write_twins(folder / "twins", twins_of(method, subject, slices))
    pd.DataFrame(rows).to_csv(folder / "patients.csv", index=False)
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def reports(tmp_path: Path) -> list[Path]:
    """One report for each method; 27 slices of three patients."""
    return [write(tmp_path / f"report-{number}", method) for number, method in enumerate(NAMES)]


@pytest.fixture
def study(reports: list[Path], tmp_path: Path) -> Path:
    """Nine cases, three of them shown twice."""
    draw_study(reports, tmp_path / "study", cases=9, repeats=3)
    return tmp_path / "study"


@pytest.fixture
def rate(study: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a rater's file: `scores(case, method)` gives healthiness and identity."""
    key = json.loads((study / "key.json").read_text())

    def write_file(rater: str, scores: Callable[[dict[str, Any], str], tuple[int | None, int | None]]) -> Path:
        ratings = []
        for case in key["cases"]:
            for letter, method in case["images"].items():
                healthiness, identity = scores(case, method)
                ratings.append(
                    {"case": case["case"], "image": letter, "healthiness": healthiness, "identity": identity}
                )
        path = tmp_path / f"rating_{rater}.json"
        path.write_text(json.dumps({"format": 1, "study": key["study"], "rater": rater, "ratings": ratings}))
        return path

    return write_file
