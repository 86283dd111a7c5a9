"""Study of samples: equal time, what images are held against, and what the page says of all families."""

import importlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pipeline.bundles import find_bundle
from pipeline.errors import UsageError
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset
from pipeline.studies import latent_space, samples
from pipeline.studies.families import Families
from pipeline.studies.samples import (
    ARMS,
    COMPONENTS,
    OTHERS,
    REAL_ONLY,
    TRAINING,
    WITH_COMPONENTS,
    WITH_SAMPLES,
    _Study,
    components,
)

SMALL = {"size": [32, 32], "spacing_mm": 8.0, "batch_size": 8}
# The package's name `samples` is the function.
module = importlib.import_module("pipeline.studies.samples")
families_module = importlib.import_module("pipeline.studies.families")


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that measure and those that are measured learn for a moment."""
    for name in ("FEATURE_STEPS", "DETECTOR_STEPS", "CLASSIFIER_STEPS"):
        monkeypatch.setattr(module, name, 4)
    monkeypatch.setattr(latent_space, "FOUND_FROM", 64)
    monkeypatch.setattr(latent_space, "TRIED_ON", 16)
    monkeypatch.setattr(Families, "steps", lambda families, family, slices: families._epoch(family, slices))


def test_images_of_principal_components_have_mean_and_deviations_of_theirs() -> None:
    images = torch.rand(300, 1, 4, 4, generator=torch.Generator().manual_seed(0)) / 2 + 0.25
    drawn = components(images, 4000, seed=0)
    torch.testing.assert_close(drawn.mean(dim=0), images.mean(dim=0), atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.std(dim=0), images.std(dim=0), atol=0.02, rtol=0)
    assert torch.equal(drawn, components(images, 4000, seed=0))
    assert not torch.equal(drawn, components(images, 4000, seed=1))


def test_the_time_is_the_same_for_all_whatever_an_epoch_takes(
    phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that only trainings move, of 2 s or 5 s for an epoch of 6 steps."""
    now, taken = [0.0], {(): 2.0, ("mlp",): 5.0}
    chosen = Families(find_bundle("dcgan"), ["laptop"], SMALL, tmp_path, 100.0, torch.device("cpu"))

    def train(families: Families, run: Path, family: tuple[str, ...], slices: Any, seed: int, steps: int) -> None:
        now[0] += taken[family] * steps / 6

    monkeypatch.setattr(Families, "_train", train)
    monkeypatch.setattr(families_module.time, "process_time", lambda: now[0])
    slices: Any = range(48)
    assert [chosen.steps(family, slices) for family in taken] == [50 * 6, 20 * 6]
    before = now[0]
    assert chosen.steps((), slices) == 300
    assert now[0] == before  # measured once, and kept
    assert [chosen.taken(family, slices, seed=0) for family in taken] == [100, 100]


def test_a_family_trains_as_its_presets_say(phantom_cohort: Path, tmp_path: Path) -> None:
    overrides = {**SMALL, "batch_size": 4}
    chosen = Families(find_bundle("dcgan"), ["laptop"], overrides, tmp_path, 0.01, torch.device("cpu"))
    assert chosen.settings()["filters"] == 16
    assert chosen.settings(("mlp",))["filters"] == 512
    assert chosen.settings(("progressive",))["rate"] == 1e-3
    slices = SliceDataset(phantom_cohort, "training", Grid(8.0, (32, 32)), ("healthy", "pathological"))
    generator = chosen.generator(("progressive",), slices, seed=0)
    assert generator(generator.draw(3, 0)).shape == (3, 1, 32, 32)
    # Whatever the time, an epoch; it has grown by its end.
    assert float(generator.network.grown) == 4  # type: ignore[arg-type]
    again = chosen.generator(("progressive",), slices, seed=0)
    assert torch.equal(again(again.draw(3, 0)), generator(generator.draw(3, 0)))


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
def test_all_families_and_controls_are_measured_and_a_stopped_study_goes_on(
    phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = {"seeds": 1, "overrides": SMALL, "device": "cpu"}
    helped = _Study.helped

    def stop(study: _Study, name: str, seed: int) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(_Study, "helped", stop)
    with pytest.raises(KeyboardInterrupt):
        samples(phantom_cohort, tmp_path, **go)
    monkeypatch.setattr(_Study, "helped", helped)
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.pt")}
    page = samples(phantom_cohort, tmp_path, **go)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(done) == len(ARMS) + 2  # what measures features, and lesions

    rows = {row["row"]: row for row in json.loads((tmp_path / "summary.json").read_text())["results"]}
    assert list(rows) == [OTHERS, TRAINING, COMPONENTS, *ARMS, REAL_ONLY, WITH_SAMPLES, WITH_COMPONENTS]
    assert rows[TRAINING]["copying"] > 0.9  # slices of air are alike in all people
    assert rows[OTHERS]["copying"] < 0.8
    assert all(rows[name]["fid"] > rows[OTHERS]["fid"] for name in ARMS)  # of one epoch
    assert rows[WITH_SAMPLES]["slices"] == rows[WITH_COMPONENTS]["slices"] == 2 * rows[REAL_ONLY]["slices"]
    for name in (*rows, "**One seed", "32×32 pixels of 8 mm", "bits of the class"):
        assert name in page
    assert len(pd.read_csv(tmp_path / "table.csv")) == len(rows)
    names = {run.name for run in (tmp_path / "runs").glob("*_seed=0")}
    assert names >= {
        f"{family}_seed=0" for family in ("mlp", "dcgan", "laplacian", "progressive", "infogan", "conditional")
    }
    for name in ("samples", "nearest", "walk", "codes", "plot"):
        assert (tmp_path / f"{name}.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": {"epochs": 3}}, "--set epochs: is set by the study itself"),
        ({"presets": ["mlp"]}, "--preset mlp: is an arm of the study itself"),
        ({"presets": ["tiny"]}, "--preset tiny: found none of that name"),
        ({"overrides": {"widths": 3}}, "--set widths: found no such setting of dcgan"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_anything_is_written(
    phantom_cohort: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        samples(phantom_cohort, tmp_path / "study", device="cpu", **options)
    assert not (tmp_path / "study").exists()
