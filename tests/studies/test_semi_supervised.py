"""Few labels: which arms there are, that they see the same labels for as many steps, and what the page says."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pipeline.bundles import read_config
from pipeline.errors import UsageError
from pipeline.evaluation.controls import THRESHOLD
from pipeline.phantoms.cluttered import scikit_digits
from pipeline.phantoms.cluttered_cohort import write_cluttered_cohort
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.few_labels import FewLabelsDataset, PartlyLabelledDataset
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import WHOLE
from pipeline.preprocessing.window import WindowRule
from pipeline.studies import semi_supervised
from pipeline.studies.semi_supervised import EVERY_LABEL, GENSEG, MOST_FREQUENT, SALIMANS, SUPERVISED, ZHANG, _right
from pipeline.training.checkpoint import load_tensors

TINY: dict[str, dict[str, Any]] = {
    "segmentation": {"spacing_mm": 8.0, "filters": 4, "critic_filters": 4, "epochs": 1, "batch_size": 12},
    "presence": {"spacing_mm": 8.0, "filters": 4, "generator_filters": 4, "epochs": 1, "batch_size": 24},
    "digits": {"filters": 4, "generator_filters": 4, "epochs": 1, "batch_size": 24},
}


@pytest.fixture(scope="module")
def plain_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as they are: 70 for training."""
    folder = tmp_path_factory.mktemp("plain")
    write_cluttered_cohort(folder / "raw", scikit_digits(), "plain", seed=0, count=100)
    how = Settings(modality="image", slab=WHOLE, window=WindowRule(fixed=(0, 255)), target="digit", healthy=True)
    preprocess(folder / "raw", folder / "cohort", how, workers=1)
    return folder / "cohort"


def go(cohort: Path, folder: Path, task: Any, **options: Any) -> str:
    given = {"labels": (0.25,), "seeds": 1, "overrides": TINY[task], "device": "cpu"}
    return semi_supervised(cohort, folder, task, **{**given, **options})


def test_accuracy_counts_the_most_probable_class_and_auroc_pairs() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    assert _right(probabilities, torch.tensor([0, 0, 1, 1])) == {"accuracy": 0.75, "auroc": 0.75, "slices": 4}
    assert set(_right(torch.eye(3), torch.tensor([0, 1, 2]))) == {"accuracy", "slices"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "arms", "control"),
    [
        ("segmentation", [SUPERVISED, ZHANG, GENSEG], THRESHOLD),
        ("presence", [SUPERVISED, SALIMANS], MOST_FREQUENT),
        ("digits", [SUPERVISED, SALIMANS], MOST_FREQUENT),
    ],
)
def test_arms_see_the_same_labels_for_about_as_many_steps(
    phantom_cohort: Path, plain_digits: Path, tmp_path: Path, task: str, arms: list[str], control: str
) -> None:
    cohort = plain_digits if task == "digits" else phantom_cohort
    page = go(cohort, tmp_path / "study", task)
    runs = {path.name: path for path in (tmp_path / "study" / "runs").iterdir()}
    assert len(runs) == len(arms) + 1
    shares, steps = [], set()
    for path in runs.values():
        config = read_config(path / "configs" / "train.json")
        shares.append((config["labelled"], config["labelled_share"]))
        assert config["labelled_by"] == ("examples" if task == "digits" else "patients")
        steps.add(load_tensors(path / "models" / "checkpoint.pt")["iteration"])
    assert sorted(shares) == sorted([(0.25, 1.0), (1.0, 1.0), *[(0.25, 0.5)] * (len(arms) - 1)])
    assert max(steps) - min(steps) <= 1
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert [one["arm"] for one in summary["results"]] == [*arms, control, EVERY_LABEL]
    assert len(pd.read_csv(tmp_path / "study" / "table.csv")) == len(arms) + 2
    assert (tmp_path / "study" / "segmentations.png").is_file() == (task == "segmentation")
    for said in (*(f"- 25 %: {name} " for name in arms[1:]), "### ", "each seed draws its own labels"):
        assert said in page
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study" / "results").iterdir()}
    go(cohort, tmp_path / "study", task)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_genseg_and_the_others_are_shown_the_masks_of_the_same_patients(phantom_cohort: Path) -> None:
    grid = Grid(8.0, (32, 32))
    for seed in range(3):
        given = {"labelled": 0.5, "labelled_by": "patients", "seed": seed}
        ours = PartlyLabelledDataset(phantom_cohort, "training", grid, **given)
        theirs = FewLabelsDataset(phantom_cohort, "training", grid, **given)
        pairs = ((ours, ours.slices.patients), (theirs, theirs.pathological.patients))
        known = [{name for name, label in zip(names, data.labelled, strict=True) if label} for data, names in pairs]
        assert known[0] == known[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": (0.0, 0.5)}, "--labels: found 0, expected shares above 0"),
        ({"overrides": {"loss": "ce"}}, "--set loss: is set by the study itself"),
        ({"overrides": {"latent": 3}}, "--set latent: no method of this study has such a setting"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_anything_is_written(
    phantom_cohort: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        go(phantom_cohort, tmp_path / "study", "segmentation", **options)
    assert not (tmp_path / "study").exists()
