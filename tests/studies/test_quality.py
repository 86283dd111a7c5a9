"""Restorations of known degradation: every loss beside the controls, closeness beside likeness, and lesions."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import UsageError
from pipeline.studies import quality
from pipeline.studies.quality import _possible
from pipeline.studies.quality_methods import (
    ADVERSARIAL,
    L1,
    NON_LOCAL_MEANS,
    TASKS,
    WASSERSTEIN,
    Scale,
    Setting,
    method_of,
    rows_of,
)

TINY = Scale(
    spacing_mm=6.0,
    field_mm=192.0,
    filters=2,
    discriminator_filters=2,
    feature_filters=2,
    steps=2,
    feature_steps=2,
    critic_steps=1,
    judge_filters=2,
    judge_steps=2,
    group=3,
    thickest_mm=10.0,
    planted=3,
)
TRAINED = [L1, ADVERSARIAL, WASSERSTEIN]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def study(phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise and thick slices of the phantoms, one seed."""
    folder = tmp_path_factory.mktemp("quality") / "study"
    quality(phantom_cohort, folder, ("denoise", "super-resolution"), None, 1, TINY, "validation", "cpu")
    return folder


def results(study: Path) -> dict[tuple[str, str], dict[str, Any]]:
    summary = json.loads((study / "summary.json").read_text())
    return {(result["task"], result["restoration"]): result for result in summary["results"]}


def test_every_loss_is_measured_beside_the_controls_of_its_task(study: Path) -> None:
    names = [name for _, name in results(study)]
    assert names == ["noisy", NON_LOCAL_MEANS, *TRAINED, "bicubic", *TRAINED]
    for result in results(study).values():
        assert (result["patients"], result["scans"]) == (1, 1)
        assert 5 < result["psnr"] < 60
        assert result["fid"] > 0
        assert 0 <= result["planted_lost"] <= 100
    page = (study / "table.md").read_text()
    assert "### denoise (1 patient, 12 slices)" in page
    assert "Closest to the truth by PSNR" in page
    assert all((study / name).is_file() for name in ("plot.png", "pictures_denoise.png", "table.csv"))


def test_noise_of_a_known_level_has_its_psnr_and_keeps_lesions_and_thick_slices_lose_small_ones(study: Path) -> None:
    noisy, thick = (results(study)[key] for key in (("denoise", "noisy"), ("super-resolution", "bicubic")))
    assert noisy["psnr"] == pytest.approx(-20 * math.log10(TINY.noise), abs=0.7)
    assert noisy["lesion_kept"] == pytest.approx(100, abs=20)
    assert noisy["planted_kept"] == pytest.approx(100, abs=10)
    assert noisy["planted_lost"] == 0
    assert thick["planted_kept"] < 75


def test_what_is_finished_is_not_done_twice_and_other_settings_are_refused(
    study: Path, phantom_cohort: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    epochs = epochs_trained()
    page = quality(phantom_cohort, study, ("denoise",), None, 1, TINY, "validation", "cpu")
    assert not epochs
    assert "super-resolution" not in page
    with pytest.raises(UsageError, match=r"made with other settings \(scale\)"):
        quality(phantom_cohort, study, ("denoise",), None, 1, replace(TINY, noise=0.2), "validation", "cpu")


def test_of_a_cohort_of_thick_slices_those_that_need_thin_ones_are_left_out(phantom_cohort: Path) -> None:
    assert _possible(phantom_cohort, None, TINY, "validation") == list(TASKS)
    assert _possible(phantom_cohort, None, Scale(), "validation") == ["denoise", "k-space"]


def test_tasks_that_are_none_or_for_which_the_cohort_has_no_slices_are_refused(
    phantom_cohort: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--task: found sharpen, expected some of denoise, k-space, super-resolution"):
        quality(phantom_cohort, tmp_path / "a", ("sharpen",))
    thin = replace(TINY, thickest_mm=2.0)
    with pytest.raises(UsageError, match="no scan with slices of at most 2 mm for super-resolution in the training"):
        quality(phantom_cohort, tmp_path / "b", ("super-resolution",), None, 1, thin, "validation", "cpu")


@pytest.mark.parametrize(("channels", "more"), [(("FLAIR",), []), (("FLAIR", "T1w"), ["L1, with T1w"])])
def test_a_second_contrast_is_tried_in_k_space_alone(channels: tuple[str, ...], more: list[str]) -> None:
    def rows(task: str) -> list[str]:
        setting = Setting(TASKS[task], Path(), Path(), channels, "validation", TINY, CPU)
        return [row.name for row in rows_of(setting)]

    assert rows("k-space") == ["zero-filled", *TRAINED, *more, *[f"{ADVERSARIAL}, with T1w" for _ in more]]
    assert rows("denoise") == ["noisy", NON_LOCAL_MEANS, *TRAINED]


@pytest.mark.parametrize(
    ("name", "players", "terms"),
    [
        (L1, ["generator"], {"l1"}),
        (ADVERSARIAL, ["discriminator", "generator"], {"gan", "l1"}),
        (WASSERSTEIN, ["features", "discriminator", "generator"], {"gan", "features"}),
    ],
)
def test_the_losses_are_those_of_the_survey(name: str, players: list[str], terms: set[str]) -> None:
    method = method_of(name, 1, TASKS["denoise"], TINY)
    assert [player.name for player in method.players] == players
    data = {key: torch.rand(1, 1, 32, 32) for key in ("image", "target_image")}
    assert set(method.translate(data, method.forward(data))) == terms


def test_a_grid_covers_the_field_with_sides_that_networks_can_halve() -> None:
    assert Scale().grid.size == (64, 64)
    assert Scale(spacing_mm=2.0).grid.size == (128, 128)
    assert TINY.grid.size == (32, 32)
