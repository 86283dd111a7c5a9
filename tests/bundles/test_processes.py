"""Two processes train a bundle as one does; a run that was started in two goes on in one.

In the suite the bundle that has most to disagree about; `make processes` (PHS_EVERY_BUNDLE=1) tries all of them. That
gradients are those of the whole batch, for means over samples, `tests/training/test_distributed.py` shows to the last
digits; losses and norms over a batch see each process's share of it.
"""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pipeline.bundles import Bundle, find_bundle, list_bundles, read_config
from pipeline.cli.main import main
from pipeline.errors import UsageError
from pipeline.launch import train
from pipeline.training.checkpoint import load_tensors

# Pools of images, batch norm, several discriminators.
SOME = ("duiit",)
EVERY = [bundle.name for bundle in list_bundles() if bundle.trainable]
PROCESSES = 2
pytestmark = pytest.mark.slow


def by_command(bundle: Bundle, cohort: Path, folder: Path, settings: dict[str, Any], *further: str) -> int:
    """`phs-pipeline train … --gpus 2`; returns its exit code."""
    given = {"--device": settings["device_name"], "--epochs": settings["epochs"]}
    rest = {name: value for name, value in settings.items() if name not in ("device_name", "epochs")}
    chosen = [part for name, value in rest.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    options = [str(part) for option in given.items() for part in option]
    with pytest.raises(SystemExit) as done:
        main(["train", bundle.name, "--data", str(cohort), "-o", str(folder), *options, *chosen, *further])
    return int(done.value.code or 0)


def first_weights(bundle: Bundle, settings: dict[str, Any]) -> dict[str, Tensor]:
    parser = ConfigParser({**read_config(bundle.config("train")), **read_config(bundle.config("laptop")), **settings})
    set_determinism(seed=0)
    return next(iter(parser.get_parsed_content("method").exports.values())).state_dict()


def way(start: dict[str, Tensor], end: dict[str, Tensor]) -> Tensor:
    """From weights to others, in one line."""
    return torch.cat([(end[name].double() - start[name].double()).flatten() for name in start])


@pytest.mark.parametrize("name", EVERY if os.environ.get("PHS_EVERY_BUNDLE") else SOME)
def test_two_processes_end_where_one_does_and_one_goes_on_where_two_ended(
    name: str,
    small: Callable[[Bundle], dict[str, Any]],
    cohort_for: Callable[[Bundle], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    bundle = find_bundle(name)
    cohort, settings = cohort_for(bundle), {**small(bundle), "epochs": 1, "average_decay": None}
    train(bundle, cohort, tmp_path / "one", ["laptop"], settings)
    assert by_command(bundle, cohort, tmp_path / "two", settings, "--preset", "laptop", "--gpus", str(PROCESSES)) == 0
    one, two = (load_tensors(tmp_path / folder / "models" / "model.pt") for folder in ("one", "two"))
    # That both processes ended with the same weights, the training itself has checked.
    # Each draws what stands beside its share, and Adam's first steps are as long for noise as for a gradient: what
    # agrees is the direction. In so many weights the cosine of unrelated ones is 0 to within 0.02.
    first = first_weights(bundle, settings)
    assert cosine_similarity(way(first, one), way(first, two), dim=0) > 0.1
    state = load_tensors(tmp_path / "two" / "models" / "checkpoint.pt")
    assert len(state["processes"]) == PROCESSES - 1
    assert not torch.equal(state["random"]["torch"], state["processes"][0]["random"]["torch"])

    train(bundle, cohort, tmp_path / "two", overrides={"device_name": "cpu", "epochs": 2}, resume=True)
    with (tmp_path / "two" / "curves.csv").open() as lines:
        assert [row["epoch"] for row in csv.DictReader(lines)] == ["1.0", "2.0"]
    assert "processes" not in load_tensors(tmp_path / "two" / "models" / "checkpoint.pt")


def test_a_batch_that_the_processes_cannot_share_is_refused(
    small: Callable[[Bundle], dict[str, Any]], phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.launch.world_size", lambda: 3)
    bundle = find_bundle("unet_segmentation")
    with pytest.raises(UsageError, match=r"batch_size is 4, expected a multiple of the 3 processes .* batch_size=6"):
        train(bundle, phantom_cohort, tmp_path / "run", ["laptop"], small(bundle))
    assert not (tmp_path / "run").exists()
