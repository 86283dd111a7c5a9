"""Whose labels a generator has seen: those of the segmentor that it serves, and no others."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.bundles import find_bundle, read_config
from pipeline.errors import UsageError
from pipeline.files import sha256
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset
from pipeline.studies import enhancement
from pipeline.studies.enhancement import Scale
from pipeline.studies.generators import generator_for

pytestmark = pytest.mark.slow


def test_another_share_or_other_patients_get_a_generator_of_their_own(
    laptop_run: Path, phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = find_bundle(str(laptop_run))
    trained: list[Any] = []

    def instead(*arguments: Any) -> Any:
        trained.append(arguments)
        return run

    monkeypatch.setattr("pipeline.studies.generators.run_trained", instead)
    for seed in (0, 1):
        assert generator_for(run, phantom_cohort, tmp_path, 1.0, seed, "cpu") is run
    assert trained == []
    generator_for(run, phantom_cohort, tmp_path, 0.5, 3, "cpu")
    ((_, cohort, folder, presets, settings),) = trained
    assert (cohort, folder, presets) == (phantom_cohort, tmp_path / "fraction=0.5_seed=3", ())
    assert settings == {"fraction": 0.5, "seed": 3, "device_name": "cpu"}


@pytest.mark.parametrize(("fraction", "seed", "serves"), [(0.5, 0, True), (0.5, 1, False), (1.0, 0, False)])
def test_a_run_on_a_share_serves_that_share_and_seed(
    laptop_run: Path, phantom_cohort: Path, tmp_path: Path, fraction: float, seed: int, serves: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "configs").mkdir()
    settings = {**read_config(laptop_run / "configs" / "train.json"), "fraction": 0.5}
    (tmp_path / "configs" / "train.json").write_text(json.dumps(settings))
    for name in ("run.json", "configs/metadata.json", "configs/inference.json"):
        (tmp_path / name).write_bytes((laptop_run / name).read_bytes())
    run = find_bundle(str(tmp_path))
    monkeypatch.setattr("pipeline.studies.generators.run_trained", lambda *_: None)
    assert (generator_for(run, phantom_cohort, tmp_path, fraction, seed, "cpu") is run) is serves


def test_a_generator_of_another_cohort_serves_all_patients_and_no_share(phantom_cohort: Path, tmp_path: Path) -> None:
    shipped = find_bundle("gvs")
    assert generator_for(shipped, phantom_cohort, tmp_path, 1.0, 0, "cpu") is shipped
    with pytest.raises(UsageError, match=r"is no run on .*expected one, by whose settings"):
        enhancement(shipped, phantom_cohort, tmp_path / "study", fractions=(0.5, 1.0), device="cpu")
    assert not (tmp_path / "study").exists()


def test_segmentors_of_a_share_are_enhanced_by_a_generator_of_the_same_patients(
    laptop_run: Path, phantom_cohort: Path, tmp_path: Path
) -> None:
    scale = Scale(spacing_mm=4.0, filters=4, epochs=1)
    run = find_bundle(str(laptop_run))
    enhancement(run, phantom_cohort, tmp_path, (0, 0.3), (0.5, 1.0), seeds=1, scale=scale, device="cpu")
    small = tmp_path / "generators" / "fraction=0.5_seed=0"
    served = {0.5: sha256(small / "models" / "model.pt"), 1.0: sha256(laptop_run / "models" / "model.pt")}
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert {(result["fraction"], result["generator_sha256"]) for result in results} == set(served.items())
    settings = read_config(small / "configs" / "train.json")
    dataset = settings["train"]["dataset"]
    assert (settings["fraction"], dataset["fraction"], dataset["seed"]) == (0.5, "@fraction", "@seed")
    grid = Grid(4.0, (64, 64))
    half, whole = (SliceDataset(phantom_cohort, "training", grid, fraction=share, seed=0) for share in (0.5, 1.0))
    assert len(set(half.patients)) == 2 < len(set(whole.patients))
    # Fig. 9 beside it, and the curve over the shares in the plot.
    assert (tmp_path / "segmentations_alpha=0.3.png").stat().st_size > 1000
    assert (
        (tmp_path / "segmentations_alpha=0.3.csv")
        .read_text()
        .startswith("patient,subject,slice,contrast,dice_alpha=0,")
    )
