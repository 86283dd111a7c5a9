"""Images of a class, for masks and with masks, and what segmentors learn from them (survey, Eq. 5)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.bundles import find_bundle, read_config
from pipeline.errors import UsageError
from pipeline.inference import load_predictor
from pipeline.studies import Lengths, conditional
from pipeline.studies.conditional import ARMS, LESSONS, Pairs
from pipeline.training.checkpoint import load_tensors

SMALL = {"spacing_mm": 8.0, "size": [32, 32], "filters": 2, "discriminator_filters": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def folder(phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one share of the patients and one seed, of a few steps."""
    folder = tmp_path_factory.mktemp("conditional") / "study"
    lengths = Lengths(steps=4, iterations=1, drawn=8)
    for _ in range(2):  # the second finds all of it there
        conditional(phantom_cohort, folder, [1.0], 1, lengths, ["laptop"], SMALL, "validation", "cpu")
    return folder


def rows(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    table = json.loads((folder / "summary.json").read_text())["table"]
    return {row["of"]: row for row in table if row["kind"] == kind}


def test_what_is_drawn_stands_beside_what_is_real(folder: Path) -> None:
    drawn = rows(folder, "drawn")
    assert list(drawn) == [*ARMS, "real, validation"]
    # Who is asked for what: a class for both of its kinds, masks for an agreement.
    assert {name for name, row in drawn.items() if row["found_healthy"] is not None} >= {"of a class"}
    assert drawn["unconditional"]["found_healthy"] is None
    assert {name for name, row in drawn.items() if row["agreement"] is not None} == {
        *("joint", "for masks", "real, validation")
    }
    for row in drawn.values():
        assert 0 <= row["found_pathological"] <= 1


def test_segmentors_taught_by_synthetic_slices_stand_beside_those_taught_by_real_ones(folder: Path) -> None:
    taught = rows(folder, "taught")
    assert list(taught) == list(LESSONS)
    assert all(0 <= row["dice"] <= 1 for row in taught.values())
    results = [json.loads(path.read_text()) for path in (folder / "results").glob("taught_*.json")]
    slices = {result["of"]: result["slices"] for result in results}
    assert (slices["joint"], slices["joint + real"]) == (8, 16)
    assert slices["real"] == slices["real, augmented"]
    for name in ("table.md", "table.csv", "plot.png", "drawn.png"):
        assert (folder / name).is_file()


def test_generators_are_runs_of_the_bundle_that_sample_takes(folder: Path) -> None:
    run = find_bundle(str(folder / "runs" / "for_masks_fraction=1_seed=0"))
    assert load_predictor(run, "sampler", "cpu")[0].condition == "mask"
    settings = read_config(run.config("train"))
    # Four steps of eight, in one epoch: the slices of four patients come again in it.
    assert settings["epochs"] == settings["validate_every"] == 1
    assert settings["repeats"] >= 1
    steps = load_tensors(run.root / "models" / "checkpoint.pt")["iteration"]
    assert 4 <= steps <= 8


def test_real_slices_come_again_where_they_are_fewer() -> None:
    few = Pairs(torch.arange(2.0).view(2, 1, 1, 1), torch.ones(2, 1, 1, 1))
    both = Pairs(torch.full((5, 1, 1, 1), 9.0), torch.zeros(5, 1, 1, 1)).beside(few)
    assert both.images.flatten().tolist() == [9] * 5 + [0, 1, 0, 1, 0]
    assert both.masks.flatten().tolist() == [0] * 5 + [1] * 5


def test_a_setting_of_the_study_s_own_is_refused(phantom_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--set joint: is what the study itself varies or derives"):
        conditional(phantom_cohort, tmp_path / "study", overrides={"joint": True})


def test_a_study_of_other_lengths_is_another(phantom_cohort: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"made with other settings \(iterations\)"):
        conditional(phantom_cohort, folder, [1.0], 1, Lengths(4, 2, 8), ["laptop"], SMALL, "validation", "cpu")
