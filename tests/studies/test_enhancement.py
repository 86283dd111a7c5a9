"""Lesions enhanced, segmented and counted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.bundles import Bundle, find_bundle
from pipeline.errors import UsageError
from pipeline.evaluation import Judge
from pipeline.evaluation.volumes import Volume
from pipeline.files import write_json
from pipeline.losses import weighted_cross_entropy
from pipeline.preprocessing.grid import Grid
from pipeline.studies import enhancement
from pipeline.studies.enhancement import EnhancedCohort, MixupSegmentation, Scale, score

pytestmark = pytest.mark.slow

GRID = Grid(4.0, (64, 64))


class Dimmer:
    """A generator that takes away half of everything: x_s − x_p = −x_p / 2."""

    def residual(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
        return windowed[:, 0] * np.float32(-0.5)


class Echo(nn.Module):
    """Calls lesion what is brighter than 0.5."""

    def forward(self, image: Tensor) -> Tensor:
        return image - 0.5


@pytest.fixture
def generator(laptop_run: Path) -> Bundle:
    return find_bundle(str(laptop_run))


@pytest.fixture
def enhanced(phantom_cohort: Path) -> EnhancedCohort:
    return EnhancedCohort(phantom_cohort, Dimmer(), GRID)  # type: ignore[arg-type]


def test_alpha_adds_the_pathological_signal_without_clipping(enhanced: EnhancedCohort) -> None:
    plain, strong = (enhanced.training(1.0, 0, alpha) for alpha in (0.0, 1.0))
    assert len(plain) == len(strong)
    brightest = 0.0
    for place in range(len(plain)):
        x_p, x_en = plain[place], strong[place]
        # x_p + 1.0 (x_p − x_p / 2), but for the rounding of the kept residual, and where there is body.
        inside = x_p["image"] > 0.1
        assert torch.allclose(x_en["image"][inside], 1.5 * x_p["image"][inside], atol=2e-3)
        assert torch.equal(x_en["mask"], x_p["mask"])
        brightest = max(brightest, float(x_en["image"].max()))
    assert brightest > 1.2
    assert {bool(plain[place]["mask"].any()) for place in range(len(plain))} == {True, False}  # healthy slices too


def test_a_fraction_takes_patients(enhanced: EnhancedCohort) -> None:
    half = enhanced.training(0.5, 0, 0.0).slices
    assert len(set(half.patients)) == 2
    assert set(half.patients) < set(enhanced.training(1.0, 0, 0.0).slices.patients)


@pytest.mark.parametrize(("loss", "terms"), [("ce", {"ce"}), ("ce+dice", {"ce", "dice"}), ("ce+mixup", {"ce"})])
def test_the_loss_has_the_terms_of_its_name(loss: str, terms: set[str]) -> None:
    batch = {"image": torch.rand(4, 1, 8, 8), "mask": (torch.rand(4, 1, 8, 8) > 0.5).float()}
    found = MixupSegmentation(Echo(), loss).supervise(batch, {})
    assert set(found) == terms
    if "mixup" not in loss:
        assert torch.equal(found["ce"], weighted_cross_entropy(batch["image"] - 0.5, batch["mask"]))


def test_mixup_mixes_images_and_masks_alike() -> None:
    seen: list[Tensor] = []

    class Watcher(Echo):
        def forward(self, image: Tensor) -> Tensor:
            seen.append(image)
            return super().forward(image)

    # Each image is its own mask: mixed alike, they stay so, and the loss is that of the mixture against itself.
    masks = torch.stack([torch.full((1, 4, 4), float(value)) for value in (0, 1)])
    method = MixupSegmentation(Watcher(), "ce+mixup")
    for seed in range(20):
        torch.manual_seed(seed)
        loss = method.supervise({"image": masks, "mask": masks}, {})["ce"]
        assert torch.equal(loss, weighted_cross_entropy(seen[-1] - 0.5, seen[-1]))
    shares = torch.stack(seen)[:, 0].mean(dim=(1, 2, 3))
    assert (shares >= 0).all()
    assert (shares <= 1).all()
    assert ((shares > 0.01) & (shares < 0.99)).any()


def volume(patient: str, image: Tensor, lesion: Tensor) -> Volume:
    places = list(range(len(image)))
    return Volume(patient, patient, (4.0, 4.0), places, image, lesion, torch.ones_like(lesion), None)


def test_scores_count_false_alarms_on_healthy_slices() -> None:
    lesion = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    lesion[..., 20:30, 20:30] = True
    healthy = torch.zeros_like(lesion)
    alarm = torch.zeros(1, 1, 64, 64)
    alarm[..., :10, :10] = 1
    segmentor = Judge(Echo(), GRID, torch.device("cpu"), {})
    nothing = torch.zeros(1, 1, 64, 64)
    found = score(
        segmentor,
        [
            (volume("a", lesion.float(), lesion), nothing),  # found exactly
            (volume("a", alarm, healthy), nothing),  # 100 pixels of false alarm
            (volume("b", nothing, lesion), nothing),  # missed
        ],
        alpha=1.0,
    )
    assert found["precision"] == pytest.approx(100 / 200)
    assert found["recall"] == pytest.approx(100 / 200)
    assert found["dice"] == pytest.approx(2 * 100 / (200 + 200))
    assert found["dice_patients"] == pytest.approx((2 * 100 / 300 + 0) / 2)
    assert (found["hd95_mm"], found["hd95_slices"]) == (0, 1)
    assert (found["patients"], found["slices"]) == (2, 3)


def test_a_lesion_too_faint_to_be_found_is_found_when_enhanced() -> None:
    lesion = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    lesion[..., 20:30, 20:30] = True
    faint, residual = 0.4 * lesion, -0.3 * lesion  # x_s = 0.1 in the lesion
    segmentor = Judge(Echo(), GRID, torch.device("cpu"), {})
    plain, strong = (score(segmentor, [(volume("a", faint, lesion), residual)], alpha) for alpha in (0.0, 0.7))
    assert (plain["dice"], plain["precision"], plain["hd95_mm"]) == (0, None, None)
    assert strong["dice"] == 1


@pytest.mark.slow
def test_a_stopped_study_ends_as_one_that_was_not(
    generator: Bundle, phantom_cohort: Path, tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    def go(folder: Path, alphas: tuple[float, ...] = (0, 1.0)) -> str:
        scale = Scale(spacing_mm=4.0, filters=4, epochs=2)
        return enhancement(generator, phantom_cohort, folder, alphas, seeds=1, scale=scale, device="cpu")

    all_epochs = epochs_trained()
    table = go(tmp_path / "whole")
    assert all_epochs == [1, 2, 1, 2]
    epochs_trained(stop_after=3)  # in the middle of the second training
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "summary.json").exists()
    rest = epochs_trained()
    assert go(tmp_path / "stopped") == table
    assert rest == [2]
    for name in ("summary.json", "table.csv", "table.md"):
        assert (tmp_path / "stopped" / name).read_text() == (tmp_path / "whole" / name).read_text()
    summary: dict[str, Any] = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert [(row["alpha"], row["gain_n"]) for row in summary["table"]] == [(0, 1), (1, 1)]
    with pytest.raises(UsageError, match=r"other settings \(split\)"):
        enhancement(generator, phantom_cohort, tmp_path / "whole", scale=Scale(4.0, 4, 2), split="test", device="cpu")


@pytest.mark.slow
def test_the_table_prints_gains_and_marks_best_and_second(
    generator: Bundle, phantom_cohort: Path, tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    def go(alphas: tuple[float, ...], seeds: int) -> str:
        scale = Scale(spacing_mm=4.0, filters=4, epochs=1)
        return enhancement(generator, phantom_cohort, tmp_path, alphas, seeds=seeds, scale=scale, device="cpu")

    epochs_trained(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        go((0,), 1)
    for seed in (0, 1):
        for alpha, dice in ((0, 0.8), (0.5, 0.9 + 0.02 * seed), (1, 0.7)):
            part = {"loss": "ce", "fraction": 1, "alpha": alpha, "seed": seed, "dice": dice, "dice_patients": dice}
            part |= {"precision": None, "recall": 0.5, "hd95_mm": 2.0, "slices": 9, "patients": 3}
            write_json(tmp_path / "results" / f"ce_fraction=1_alpha={alpha:g}_seed={seed}.json", part)
    page = go((0, 0.5, 1.0), 2)
    row = next(line for line in page.splitlines() if line.startswith("| ce, 100% of patients"))
    assert [cell.strip() for cell in row.strip("|").split("|")][1:] == [
        "<u>0.800 ± 0.000</u>",
        "**0.910 ± 0.014 (+0.110 ± 0.014)**",
        "0.700 ± 0.000 (-0.100 ± 0.000)",
    ]
    assert "| ce, 100%, α = 0.5 | 0.910 ± 0.014 | 0.910 ± 0.014 | – | 0.500 ± 0.000 | 2.0 ± 0.0 |" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": (0.5, 1.0)}, "expected 0 among them"),
        ({"losses": ("ce", "focal")}, "'focal'"),
        ({"fractions": (0.5, 1.5)}, "above 0 and at most 1"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_anything_is_written(
    generator: Bundle, phantom_cohort: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        enhancement(generator, phantom_cohort, tmp_path / "study", device="cpu", **options)
    assert not (tmp_path / "study").exists()
