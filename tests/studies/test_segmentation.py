"""Critics beside losses of pixels: what is counted of masks, how arms differ, and what the page says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pipeline.bundles import read_config
from pipeline.errors import UsageError
from pipeline.evaluation.controls import THRESHOLD
from pipeline.studies import segmentation
from pipeline.studies.arms import LESION_SLICES, MEASURES, measured, volumes_of
from pipeline.studies.segmentation import ARMS, CRITICS

TINY = {"spacing_mm": 8.0, "filters": 4, "critic_filters": 4, "epochs": 1, "batch_size": 24}


def go(cohort: Path, folder: Path, **settings: Any) -> str:
    return segmentation(cohort, folder, seeds=1, overrides={**TINY, **settings}, device="cpu")


def test_the_drawn_masks_are_perfect_and_what_is_all_lesion_has_the_dice_of_its_area(phantom_cohort: Path) -> None:
    items = list(volumes_of(phantom_cohort, "validation"))
    perfect = measured(lambda item: {"prediction": item.given["mask"]}, items)
    assert {metric.name: perfect[metric.name] for metric in MEASURES} == {m.name: m.perfect for m in MEASURES}
    everything = measured(lambda item: {"prediction": torch.ones_like(item.given["mask"])}, items)
    masks = torch.cat([item.given["mask"] for item in items])
    assert everything["dice_pooled"] == pytest.approx(2 * masks.sum() / (masks.sum() + masks.numel()))
    shown = masks[masks.flatten(1).any(dim=1)]
    assert everything[LESION_SLICES] == pytest.approx(2 * shown.sum() / (shown.sum() + shown.numel()))
    assert set(everything["patients"]) == {item.patient for item in items}


@pytest.mark.slow
def test_arms_differ_by_what_they_are_trained_for_and_a_stopped_study_goes_on(
    phantom_cohort: Path, tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    folder = tmp_path / "study"
    epochs_trained(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        go(phantom_cohort, folder)
    (done,) = (folder / "results").iterdir()
    before, rest = done.stat().st_mtime_ns, epochs_trained()
    page = go(phantom_cohort, folder)
    assert done.stat().st_mtime_ns == before
    assert len(rest) == len(ARMS) - 2

    configs = [read_config(path / "configs" / "train.json") for path in (folder / "runs").iterdir()]
    assert len(configs) == len(ARMS)
    for config in configs:
        assert all(config[name] == value for name, value in TINY.items() if name in config)
        assert config["labels"] == ["pathological", "healthy"]
    assert {(config["loss"], config.get("feedback"), config.get("sees")) for config in configs} == {
        ("ce", None, None),
        ("dice", None, None),
        ("ce", "scores", "product"),
        ("ce", "scores", "pair"),
        ("none", "scores", "pair"),
        ("none", "features", "masked"),
    }
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")][2:]
    assert rows == [*ARMS, THRESHOLD]
    for said in (*(f"- {name}: Dice" for name in CRITICS), "- holes in a slice: regions", "`spacing_mm` 8.0"):
        assert said in page
    for name in ("table.md", "plot.png", "segmentations.png"):
        assert (folder / name).is_file()
    frame = pd.read_csv(folder / "table.csv")
    assert {"holes", "fragments", "hd95_mm", "dice_sd"} <= set(frame.columns)
    summary = json.loads((folder / "summary.json").read_text())
    assert [one["arm"] for one in summary["results"]] == [*ARMS, THRESHOLD]
    with pytest.raises(UsageError, match=r"other settings \(settings\)"):
        go(phantom_cohort, folder, epochs=2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("labda", "no method of this study has such a setting"),
        ("loss", "is set by the study itself"),
        ("seed", "itself"),
    ],
)
def test_settings_that_are_none_or_the_study_s_own_are_refused(
    phantom_cohort: Path, tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        go(phantom_cohort, tmp_path / "study", **{setting: 1})
    assert not (tmp_path / "study").exists()
