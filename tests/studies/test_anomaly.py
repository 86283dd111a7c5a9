"""Detectors of anomalies beside controls: what is compared, what chooses the threshold, and what the table says."""

import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.bundles import find_bundle
from pipeline.errors import UsageError
from pipeline.preprocessing.cohort_format import patient_hashes
from pipeline.preprocessing.grid import Grid
from pipeline.studies import anomaly
from pipeline.studies.anomaly import ARMS, _metrics, _verdict, measured
from pipeline.studies.anomaly_maps import (
    HEIGHTS,
    POOLED,
    Found,
    Network,
    Setting,
    Slices,
    controls,
    equalised,
    intensity,
    mean_brain,
)
from pipeline.studies.study import over_seeds

CONTROLS = ("intensity", "equalised intensity", "mean healthy brain")
TINY = {
    "spacing_mm": 12.0,
    "size": [16, 16],
    "code_size": 3,
    "filters": 2,
    "encoder_filters": 2,
    "discriminator_filters": 2,
    "gan_steps": 2,
    "search_steps": 2,
    "batch_size": 8,
    "validate_every": 2,
    "epochs": 2,
}


@pytest.fixture
def setting(phantom_cohort: Path) -> Setting:
    return Setting(phantom_cohort, Grid(6.0, (32, 32)), "brighter", 1, {"even": "*[024]", "none": "nobody"}, "cpu")


@pytest.fixture
def slices(setting: Setting) -> Slices:
    return setting.slices("training")


@pytest.fixture(scope="module")
def study(phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished study with one seed."""
    folder = tmp_path_factory.mktemp("studies") / "anomaly"
    return folder, go(phantom_cohort, folder)


def go(cohort: Path, folder: Path, **options: Any) -> str:
    return anomaly(cohort, folder, 1, **{"overrides": TINY, "sources": {"phantoms": "*"}, "device": "cpu", **options})


@pytest.mark.slow
def test_each_detector_and_control_has_a_row_for_all_patients_and_for_each_source(study: tuple[Path, str]) -> None:
    folder, page = study
    for heading in ("### All patients: 1 patient", "### phantoms: 1 patient"):
        rows = page.split(heading)[1].split("###")[0].splitlines()
        assert [row.split(" | ")[0].removeprefix("| ") for row in rows if row.startswith("| ")][2:] == [
            *ARMS,
            *CONTROLS,
        ]
    for name in ("table.md", "table.csv", "plot.png", "maps.png", "summary.json"):
        assert (folder / name).stat().st_size > 0
    assert "`epochs` 2 instead of 200" in page
    assert "With so few patients no p can be below 1" in page


@pytest.mark.slow
def test_anogan_searches_with_the_networks_of_f_anogan(study: tuple[Path, str]) -> None:
    folder, _ = study
    assert sorted(run.name for run in (folder / "runs").iterdir()) == [
        f"{name}_seed=0" for name in ("autoencoder", "bigan", "f_anogan", "vae")
    ]


@pytest.mark.slow
def test_a_finished_study_is_not_done_twice(
    study: tuple[Path, str], phantom_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, page = study
    before = (folder / "summary.json").read_text()
    # The package's name of it is the function's.
    monkeypatch.setattr(sys.modules["pipeline.studies.anomaly"], "measured", lambda *_: pytest.fail("measured again"))
    assert go(phantom_cohort, folder) == page
    assert (folder / "summary.json").read_text() == before
    with pytest.raises(UsageError, match=r"other settings \(overrides\)"):
        go(phantom_cohort, folder, overrides={**TINY, "epochs": 3})


@pytest.mark.parametrize("options", [{"presets": ["laptop", "vae"]}, {"overrides": {"seed": 1}}])
def test_what_the_study_sets_itself_is_refused(phantom_cohort: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="study itself; leave it out"):
        go(phantom_cohort, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_patients_belong_to_the_source_whose_pattern_their_name_fits(slices: Slices) -> None:
    groups = slices.groups()
    assert list(groups) == [POOLED, "even"]
    assert groups[POOLED].all()
    assert {name[-1] for name in slices.patients[groups["even"].numpy()]} <= {"0", "2", "4"}


def test_intensities_are_equalised_over_the_tissue_of_each_scan(slices: Slices) -> None:
    maps, tissue = equalised(slices).maps, slices.tissue
    for scan in slices.by_scan():
        ranks, values = maps[scan][tissue[scan]], slices.images[scan][tissue[scan]]
        assert float(ranks.max()) == 1
        assert float(ranks.median()) == pytest.approx(0.5, abs=0.01)
        assert bool((ranks[values.argsort()].diff() >= 0).all())
    assert not maps[~tissue].any()
    torch.testing.assert_close(intensity(slices).maps, slices.images * tissue)


def test_the_mean_brain_is_that_of_healthy_training_slices_of_the_same_height(setting: Setting) -> None:
    healthy = setting.slices("training", "healthy")
    heights = healthy.heights
    assert 0 <= int(heights.min()) <= int(heights.max()) < HEIGHTS
    part = int(heights[0])
    mean = healthy.images[heights == part].mean(dim=0)
    expected = (healthy.images[0] - mean).clamp_min(0) * healthy.tissue[0]
    torch.testing.assert_close(mean_brain(setting)(healthy).maps[0], expected)


def test_an_intensity_correlates_with_its_ranks_and_an_unrelated_map_does_not(setting: Setting) -> None:
    data = SimpleNamespace(validation=setting.slices("validation"), test=setting.slices("test"))
    torch.manual_seed(0)

    def noise(slices: Slices) -> Found:
        return Found(torch.rand(slices.images.shape) * slices.tissue, torch.rand(len(slices.images)))

    assert measured(intensity, data)["correlation"] > 0.99  # type: ignore[arg-type]
    assert abs(measured(noise, data)["correlation"]) < 0.1  # type: ignore[arg-type]


def test_a_slice_s_score_of_a_control_is_the_mean_of_its_map_over_the_head(slices: Slices) -> None:
    found = intensity(slices)
    assert found.scores[0] == pytest.approx(float(slices.images[0][slices.tissue[0]].mean()))


class Constant(nn.Module):
    """Reconstructs everything as 0.5."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.full_like(image, 0.5)


def test_the_error_of_an_inversion_is_that_of_tissue_in_percent_of_the_window(slices: Slices) -> None:
    found = Network(Constant(), torch.device("cpu")).inversion(slices)  # type: ignore[arg-type]
    assert found["error"] == pytest.approx(100 * float((slices.images - 0.5).abs()[slices.tissue].mean()))
    assert found["milliseconds"] > 0


def test_the_threshold_is_chosen_on_validation_patients_and_held_against_the_test_patients(setting: Setting) -> None:
    """A map that is right but twice as bright in validation: no threshold of theirs finds anything in the others."""
    data = SimpleNamespace(validation=setting.slices("validation"), test=setting.slices("test"))

    def detect(slices: Slices) -> Found:
        level = 2.0 if slices is data.validation else 1.0
        return Found(level * slices.lesions.float() * slices.tissue, slices.lesions.flatten(1).any(dim=1).float())

    found = measured(detect, data)  # type: ignore[arg-type]
    assert found["threshold"] == 2
    everyone = found["groups"][POOLED]
    assert everyone["dice"] == 0
    assert (everyone["average_precision"], everyone["best_dice"], everyone["auroc"]) == (1, 1, 1)
    assert found["bright_precision"] == 1
    assert 0 < found["bright_share"] < found["groups"][POOLED]["share"] * 10
    assert -1 <= found["correlation"] <= 1
    assert found["patients"] == dict.fromkeys(found["patients"], 1)
    assert len(found["patients"]) == 1


def results(values: dict[str, float], patients: int = 7) -> list[dict[str, Any]]:
    """Results whose average precision is as given, of each patient a little more or less."""
    return [
        {
            "arm": arm,
            "seed": None,
            "patients": {str(number): value * (1 + number / 100) for number in range(patients)},
            "group": POOLED,
            "average_precision": value,
            "dice": value,
            "best_dice": value,
            "auroc": value,
        }
        for arm, value in values.items()
    ]


def test_a_control_that_wins_is_said_to_win_and_stands_in_bold() -> None:
    values = {"VAE": 0.8, "intensity": 0.5, "equalised intensity": 0.7, "gvs, learned from masks": 0.75}
    found = results({**dict.fromkeys(ARMS, 0.4), **values})
    frame = over_seeds(found, ["arm", "group"], ["average_precision", "dice", "best_dice", "auroc"])
    said = _verdict(frame, found)
    assert (
        "- BiGAN: 0.400, below the best control, equalised intensity 0.700; above it in 0 of 7 patients, p = 0.078"
        in said
    )
    assert "- VAE: 0.800, above the best control, equalised intensity 0.700; above it in 7 of 7 patients" in said
    assert "| VAE | **0.800** |" in _metrics(frame)
    assert "| intensity | 0.500 |" in _metrics(frame)


def test_a_translator_s_difference_is_a_control(setting: Setting, trained: Path) -> None:
    """The run takes tanh 0.2 of the window away, everywhere."""
    made, test = controls(setting, find_bundle(str(trained))), setting.slices("test")
    name = f"{trained.name}, learned from masks"
    assert list(made) == [*CONTROLS, name]
    taken = made[name]()(test).maps[test.images > 0.3]
    assert float(taken.median()) == pytest.approx(math.tanh(0.2), abs=1e-3)
    assert float(taken.max()) < math.tanh(0.2) + 1e-3


def test_a_translator_that_was_trained_on_the_test_patients_is_refused(
    setting: Setting, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    seen = patient_hashes(setting.cohort, "test")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"training_patients": seen}))
    make = controls(setting, find_bundle(str(tmp_path / "run")))["run, learned from masks"]
    with pytest.raises(UsageError, match="was trained on 1 of the test patients"):
        make()
