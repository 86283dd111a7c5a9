"""A bundle trained with several values of a setting: what is trained, resumed, refused and shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.bundles import find_bundle, read_config
from pipeline.errors import UsageError
from pipeline.evaluation import ADiceSettings
from pipeline.files import sha256, write_json
from pipeline.metrics import A_DICE
from pipeline.metrics.catalogue import TRANSLATION
from pipeline.studies import sweep

pytestmark = pytest.mark.slow


# What a method without networks of its own is measured by.
MEASURED = {"twin", "image", "mask", "foreground", "found", "truth"}


def go(cohort: Path, folder: Path, values: list[Any], **options: Any) -> str:
    given: dict[str, Any] = {"seeds": 1, "judge_iterations": 1, "device": "cpu", "setting": "lambda", **options}
    return sweep(find_bundle("gvs"), cohort, folder, given.pop("setting"), values, **given)


def report(folder: Path, name: str, seed: int, healthiness: float, psnr: float | None, a_dice: Any = None) -> None:
    """A finished evaluation, as far as the table needs it."""

    def scores(healthy: float, db: float | None) -> dict[str, Any]:
        means = {"healthiness_pooled": healthy, "psnr_normal": db, "ssim_normal": 0.99}
        return {"metrics": {metric: {"mean": mean} for metric, mean in means.items()}}

    metrics = [metric.record() for metric in TRANSLATION if not set(metric.needs) - MEASURED]
    summary: dict[str, Any] = {
        "metrics": metrics,
        "a_dice": None,
        "methods": {name: scores(healthiness, psnr), "untouched input": scores(0.125, None)},
        "cohort": {"split": "validation", "patients": 3, "slices": 20},
        "judge": {"dice": {"validation": {"pooled": 0.8}}},
    }
    if a_dice is not None:
        metrics.append(A_DICE.record())
        images = {"healthy slices, random masks": {"mean": 0.25}}
        summary["a_dice"] = {"images": images, "learned": a_dice != 0.0}
        for row, mean in ((name, None if a_dice == "collapsed" else a_dice), ("untouched input", 0.75)):
            summary["methods"][row]["metrics"]["a_dice"] = {"mean": mean}
    write_json(folder / "reports" / f"{name}_seed={seed}" / "summary.json", summary)


def prepared(cohort: Path, folder: Path, **options: Any) -> None:
    """A study whose settings are written, and nothing else: trainings that would start are refused."""
    with pytest.raises(UsageError, match="has no such setting"):
        go(cohort, folder, [1], overrides={"nonsense": 1}, **options)
    settings = read_config(folder / "study.json")
    write_json(folder / "study.json", {**settings, "overrides": {}})


@pytest.mark.slow
def test_a_stopped_study_goes_on_and_ends_with_the_same_weights(
    phantom_cohort: Path, tiny: dict[str, Any], laptop_run: Path, tmp_path: Path, epochs_trained: Callable[..., Any]
) -> None:
    # The laptop preset trains with λ = 50 and seed 0, as `laptop_run` was: the run that nothing interrupted.
    options: dict[str, Any] = {"presets": ["laptop"], "overrides": {**tiny, "epochs": 3}}
    epochs_trained(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        go(phantom_cohort, tmp_path, [50.0], **options)
    rest = epochs_trained()
    table = go(phantom_cohort, tmp_path, [50.0], **options)
    assert rest[0] == 3  # what follows are epochs of the judge
    run = tmp_path / "runs" / "lambda=50.0_seed=0"
    expected, found = (torch.load(r / "models" / "model.pt", weights_only=True) for r in (laptop_run, run))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (tmp_path / "table.md").read_text().startswith(table)
    summary = json.loads((tmp_path / "summary.json").read_text())
    provenance = read_config(tmp_path / "reports" / "lambda=50.0_seed=0" / "summary.json")["provenance"]
    assert provenance["WeightsSha256"] == sha256(run / "models" / "model.pt")

    nothing = epochs_trained()
    assert go(phantom_cohort, tmp_path, [50.0], **options) == table
    assert nothing == []
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    with pytest.raises(UsageError, match=r"other settings \(presets\)"):
        go(phantom_cohort, tmp_path, [50.0], overrides={**tiny, "epochs": 3})


def test_the_table_has_a_row_for_each_value_and_for_the_controls(phantom_cohort: Path, tmp_path: Path) -> None:
    prepared(phantom_cohort, tmp_path)
    for seed, (first, second) in enumerate([(0.5, 0.9), (0.7, 0.8)]):
        report(tmp_path, "lambda=5", seed, first, 30.0 + seed)
        report(tmp_path, "lambda=1", seed, second, None)
    header, _, five, one, untouched = go(phantom_cohort, tmp_path, [5, 1], seeds=2).splitlines()[:5]
    assert header.startswith("| lambda | healthiness")
    assert five == "| lambda=5 | 0.600 ± 0.141 | 30.50 ± 0.71 | 0.9900 ± 0.0000 |"
    assert one == "| lambda=1 | 0.850 ± 0.071 | identical | 0.9900 ± 0.0000 |"
    assert untouched == "| untouched input | 0.125 | identical | 0.9900 |"
    table = (tmp_path / "table.csv").read_text().splitlines()
    assert table[1].startswith("lambda=5,method,0.6,30.5,0.99,0.1414")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_values_and_seeds_may_be_added(phantom_cohort: Path, tmp_path: Path) -> None:
    prepared(phantom_cohort, tmp_path)
    report(tmp_path, "lambda=5", 0, 0.5, 30.0)
    assert "lambda=1 " not in go(phantom_cohort, tmp_path, [5])
    report(tmp_path, "lambda=1", 0, 0.75, 30.0)
    assert "| lambda=1 | 0.750 |" in go(phantom_cohort, tmp_path, [1, 5])


def test_a_dice_stands_between_its_brackets(phantom_cohort: Path, tmp_path: Path) -> None:
    prepared(phantom_cohort, tmp_path, a_dice=ADiceSettings())
    report(tmp_path, "lambda=5", 0, 0.5, 30.0, a_dice=0.5)
    report(tmp_path, "lambda=1", 0, 0.5, 30.0, a_dice="collapsed")
    lines = go(phantom_cohort, tmp_path, [5, 1], a_dice=ADiceSettings()).splitlines()
    ends = {line.split(" | ")[0]: line.split(" | ")[-1] for line in lines if line.startswith("| ")}
    assert ends["| lambda"] == "A-Dice ↓ |"
    assert ends["| lambda=5"] == "0.500 |"
    assert ends["| lambda=1"] == "collapsed |"
    assert not any("not learned" in line for line in lines)
    assert ends["| untouched input"] == "0.750 |"
    assert ends["| healthy slices, random masks"] == "0.250 |"


def test_a_dice_that_learned_nothing_ranks_nothing(phantom_cohort: Path, tmp_path: Path) -> None:
    prepared(phantom_cohort, tmp_path, a_dice=ADiceSettings())
    report(tmp_path, "lambda=5", 0, 0.5, 30.0, a_dice=0.0)  # the first of two evaluations, not the last
    report(tmp_path, "lambda=1", 0, 0.5, 30.0, a_dice=0.5)
    assert "lesions of the original images themselves were not learned" in go(
        phantom_cohort, tmp_path, [5, 1], a_dice=ADiceSettings()
    )


def test_any_setting_can_be_varied(phantom_cohort: Path, tmp_path: Path) -> None:
    prepared(phantom_cohort, tmp_path, setting="upsampling")
    report(tmp_path, "upsampling=bilinear", 0, 0.5, 30.0)
    assert "| upsampling=bilinear | 0.500 |" in go(phantom_cohort, tmp_path, ["bilinear"], setting="upsampling")


@pytest.mark.parametrize(
    ("setting", "overrides"), [("seed", {}), ("lambda", {"seed": 3}), ("lambda", {"lambda": 3, "epochs": 1})]
)
def test_what_the_study_sets_cannot_be_set_beside_it(
    phantom_cohort: Path, tmp_path: Path, setting: str, overrides: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="set by the study itself"):
        go(phantom_cohort, tmp_path / "study", [1], setting=setting, overrides=overrides)
    assert not (tmp_path / "study").exists()
