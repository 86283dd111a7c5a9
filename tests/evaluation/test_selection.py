"""Which epoch is used: healthy enough first, then closest to the input."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.errors import UsageError
from pipeline.evaluation.selection import _merit, select_epoch


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([(0.95, 30.0), (0.91, 36.0), (0.5, 45.0)], 1),
        ([(0.2, 40.0), (0.6, 31.0), (0.5, 45.0)], 1),
        ([(0.9, 30.0), (0.89, 50.0)], 0),
        ([(-1.0, None), (0.3, 31.0)], 1),
        ([(0.97, 23.6), (0.76, 35.3), (0.2, 49.0)], 1),
        ([(0.97, 23.6), (0.8, 29.9)], 1),
    ],
    ids=[
        "closest of the healthy ones",
        "healthiest if none is",
        "the limits count",
        "nothing changed is not healthy",
        "not an image of somebody else, however healthy",
        "closest if none is close",
    ],
)
def test_the_rule(rows: list[tuple[float, float | None]], best: int) -> None:
    merits = [_merit({"healthiness_pooled": healthiness, "psnr_normal": psnr}) for healthiness, psnr in rows]
    assert merits.index(max(merits)) == best


@pytest.mark.slow
def test_the_chosen_epoch_becomes_the_run_s_weights(run_with_epochs: Callable[[], Path], phantom_cohort: Path) -> None:
    run = run_with_epochs()
    weights = run / "models" / "model.pt"
    record = select_epoch(run, phantom_cohort, "cpu", judge_iterations=2)
    first, second = record["epochs"]
    assert (first["epoch"], first["psnr_normal"], first["changed_in_healthy_slices"]) == (1, None, 0)
    assert second["psnr_normal"] > 0
    chosen = {1: first, 2: second}[record["epoch"]]
    assert _merit(chosen) == max(_merit(first), _merit(second))
    found = torch.load(weights, weights_only=True)
    kept = torch.load(weights.with_name(f"model_epoch{record['epoch']:04}.pt"), weights_only=True)
    assert all(torch.equal(found[name], kept[name]) for name in kept)


def test_a_run_that_kept_nothing_says_how_to_keep_epochs(laptop_run: Path, phantom_cohort: Path) -> None:
    with pytest.raises(UsageError, match="keep_every=1"):
        select_epoch(laptop_run, phantom_cohort, "cpu")


@pytest.mark.slow
def test_a_run_is_not_measured_on_patients_that_it_was_trained_on(
    run_with_epochs: Callable[[], Path], phantom_cohort: Path, tmp_path: Path
) -> None:
    run = run_with_epochs()
    split = Path(shutil.copytree(phantom_cohort, tmp_path / "cohort", ignore=shutil.ignore_patterns("judge")))
    content = json.loads((split / "cohort.json").read_text())
    swap = {"training": "validation", "validation": "training"}
    for subject in content["subjects"]:
        subject["split"] = swap.get(subject["split"], subject["split"])
    (split / "cohort.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"was trained on \d+ of the validation patients"):
        select_epoch(run, split, "cpu", judge_iterations=2)
