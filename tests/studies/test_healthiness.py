"""Healthiness by run and epoch of the segmentor that judges it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pipeline.bundles import find_bundle
from pipeline.errors import UsageError
from pipeline.evaluation import Judge
from pipeline.evaluation.judge import SCALES
from pipeline.evaluation.volumes import cohort_grid, pathological_subjects, read_volume
from pipeline.studies import healthiness
from pipeline.studies.training import each_epoch

pytestmark = pytest.mark.slow


def go(run: Path, cohort: Path, folder: Path, **options: Any) -> str:
    return healthiness([find_bundle(str(run))], cohort, folder, **{"seeds": 1, "epochs": 2, "device": "cpu", **options})


def test_each_epoch_judges_the_same_images_and_a_stopped_study_goes_on(
    laptop_run: Path, phantom_cohort: Path, tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    page = go(laptop_run, phantom_cohort, tmp_path / "whole")
    table = pd.read_csv(tmp_path / "whole" / "table.csv")
    images = ["untouched input", laptop_run.name]
    assert table[["epoch", "images"]].to_numpy().tolist() == [[epoch, name] for epoch in (1, 2) for name in images]

    # By hand: what the network of each epoch finds in the untouched slices, against what is annotated.
    scale = SCALES["default"]
    networks = each_epoch(tmp_path / "whole" / "segmentors" / "seed=0", scale.build, torch.device("cpu"))
    volumes = [read_volume(phantom_cohort, record) for record in pathological_subjects(phantom_cohort, "validation")]
    annotated = sum(int(volume.lesion.sum()) for volume in volumes)
    for epoch, network in networks.items():
        judge = Judge(network, cohort_grid(phantom_cohort, 2.0), torch.device("cpu"), {})
        found = sum(int(judge.predict(volume.image, volume.spacing_mm).sum()) for volume in volumes)
        row = table[(table["epoch"] == epoch) & (table["images"] == "untouched input")].iloc[0]
        assert row["healthiness"] == pytest.approx(1 - found / annotated)
    assert sorted(networks) == [1, 2]
    assert "lowest … highest, epochs 2 to 2" in page
    assert "so its healthiness is not the paper's" in page

    epochs_trained(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        go(laptop_run, phantom_cohort, tmp_path / "stopped")
    rest = epochs_trained()
    assert go(laptop_run, phantom_cohort, tmp_path / "stopped") == page
    assert rest == [2]
    for name in ("summary.json", "table.csv", "plot.png"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert json.loads((tmp_path / "whole" / "summary.json").read_text())["settings"]["generators"].keys() == {"laptop"}
    with pytest.raises(UsageError, match=r"other settings \(epochs\)"):
        go(laptop_run, phantom_cohort, tmp_path / "whole", epochs=3)


def test_what_was_trained_on_the_patients_is_not_judged_on_them(
    laptop_run: Path, phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.launch.known_patients", lambda cohort, split, hashes: ["sub-1"])
    with pytest.raises(UsageError, match="was trained on 1 of the validation patients"):
        go(laptop_run, phantom_cohort, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_two_runs_of_one_name_are_refused(laptop_run: Path, phantom_cohort: Path, tmp_path: Path) -> None:
    twice = [find_bundle(str(laptop_run))] * 2
    with pytest.raises(UsageError, match="second run named laptop"):
        healthiness(twice, phantom_cohort, tmp_path / "study", device="cpu")
