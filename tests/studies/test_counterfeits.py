"""Counterfeits: what they are, and what is said of them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipeline.evaluation import ADiceSettings
from pipeline.evaluation.controls import UNTOUCHED
from pipeline.mosaic import PANEL_PIXELS
from pipeline.studies import counterfeits
from pipeline.studies.counterfeits import MEAN, NOISE, noisy


def test_noise_has_its_variance_in_the_lesion_and_leaves_all_else_alone() -> None:
    x, mask = torch.full((4, 1, 64, 64), 0.5), torch.zeros(4, 1, 64, 64, dtype=torch.bool)
    mask[..., :32, :] = True
    made = noisy(x, mask, 0.01, seed=0)
    assert torch.equal(made[~mask], x[~mask])
    assert float((made - x)[mask].mean()) == pytest.approx(0, abs=0.005)
    assert float((made - x)[mask].var()) == pytest.approx(0.01, rel=0.05)
    assert torch.equal(made, noisy(x, mask, 0.01, seed=0))
    assert not torch.equal(made, noisy(x, mask, 0.01, seed=1))
    strong = noisy(x, mask, 0.2, seed=0)
    assert (float(strong.min()), float(strong.max())) == (0, 1)  # clipped to the window


@pytest.mark.slow
def test_the_study_judges_both_counterfeits_and_shows_them(
    phantom_cohort: Path, tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    def go(**options: object) -> str:
        return counterfeits(phantom_cohort, tmp_path / "study", 1, judge_iterations=1, device="cpu", **options)  # type: ignore[arg-type]

    a_dice = ADiceSettings((0,), epochs=2, filters=4, spacing_mm=4.0)
    page = go(a_dice=a_dice)
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert [row["images"] for row in summary["table"]] == [UNTOUCHED, MEAN, NOISE]
    result, measured = summary["results"]
    assert result["dice"]["patients"] == 1
    for row, kept in zip(summary["table"], result["rows"], strict=True):
        assert row["healthiness"] == pytest.approx(kept["healthiness"])
        assert 0 <= kept["found_inside"] <= 1
    assert set(measured["images"]) == {NOISE, MEAN, "original images", "healthy slices, random masks"}
    assert summary["table"][2]["a_dice"] == pytest.approx(measured["images"][NOISE]["mean"])
    assert "variance 0.2" in page
    with Image.open(tmp_path / "study" / "plot.png") as picture:
        assert picture.width == 7 * PANEL_PIXELS
    again = epochs_trained()
    assert go(a_dice=a_dice) == page
    assert again == []
    assert "A-Dice" not in go()
