"""Study of curves: what is measured of them, on which side a direction leads, and that a stopped study goes on."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.phantoms.centrelines import NAMES, CentrelineDataset
from pipeline.studies import curves
from pipeline.studies.curves import (
    ADVERSARIAL,
    MODEL,
    OTHERS,
    TRAINING,
    PointDistribution,
    _latent,
    _quality,
    values,
)
from pipeline.studies.latent_space import Generator

DATA, HELD_OUT = CentrelineDataset(range(200)), CentrelineDataset(range(1000, 1200))


def test_curves_of_the_same_kind_are_near_in_every_parameter_and_others_in_none() -> None:
    near = _quality("", 0, DATA.curves, DATA.curves, HELD_OUT.curves)
    noise = torch.randn(DATA.curves.shape, generator=torch.Generator().manual_seed(0)).abs()
    far = _quality("", 0, noise, DATA.curves, HELD_OUT.curves)
    for name in NAMES:
        assert near[f"off_{name}"] < 0.3 < far[f"off_{name}"] + 1e-9
    assert near["surface"] < 0.1 < far["surface"]
    assert near["gap"] == pytest.approx(1, abs=0.02)
    assert far["gap"] > 1.5
    assert (near["copying"], far["copying"]) == (1.0, 0.0)
    assert near["precision"] > 0.8 > far["precision"]


def test_a_parameter_of_many_curves_is_that_of_each() -> None:
    assert values(DATA.curves[:5], "length_mm").tolist() == pytest.approx(
        [known.length_mm for known in DATA.known[:5]], rel=0.01
    )


def test_a_point_distribution_model_has_mean_and_deviations_of_its_curves() -> None:
    model = PointDistribution(DATA.curves, latent=60)
    drawn = model(torch.randn(4000, 60, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(model(torch.zeros(1, 60))[0], DATA.curves.mean(dim=0))
    torch.testing.assert_close(drawn.std(dim=0), DATA.curves.std(dim=0), rtol=0.15, atol=0.02)


def test_the_side_is_told_by_the_model_s_latents_and_moved_by_its_direction() -> None:
    model = Generator(PointDistribution(DATA.curves), 16, torch.device("cpu"))
    found = _latent(model, 0)
    assert found["told_right"] > 0.5
    assert found["told_radius_mm"] > 0.9
    assert found["taken away"] < 0.1 < 0.9 < found["added"]
    assert abs(found["random"] - found["drawn"]) < 0.2


def test_a_stopped_study_goes_on_and_says_what_the_control_is(
    tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    settings = {"count": 64, "points": 16, "iterations": 5, "seeds": 1, "device": "cpu"}
    epochs_trained(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        curves(tmp_path, **settings)
    trained = epochs_trained()
    page = curves(tmp_path, **settings)
    assert len(trained) == 2  # of 2 steps of 32 curves, one epoch done before
    for said in (OTHERS, TRAINING, MODEL, ADVERSARIAL, "64 curves of 16 points", "**One seed"):
        assert said in page
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["row"] for row in summary["table"]] == [OTHERS, TRAINING, MODEL, ADVERSARIAL]
    assert len(pd.read_csv(tmp_path / "table.csv")) == 4
    assert (tmp_path / "plot.png").is_file()
    before = (tmp_path / "runs" / "curves_seed=0" / "trained.json").stat().st_mtime_ns
    assert curves(tmp_path, **settings) == page
    assert (tmp_path / "runs" / "curves_seed=0" / "trained.json").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"other settings \(iterations\)"):
        curves(tmp_path, **{**settings, "iterations": 6})
