"""The curves behind A-Dice, at several rates."""

import json
import sys
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest

from pipeline.bundles import find_bundle
from pipeline.evaluation import ADiceSettings
from pipeline.studies import convergence

pytestmark = pytest.mark.slow


def test_curves_of_all_images_at_each_rate_average_to_a_dice(
    laptop_run: Path, phantom_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ADiceSettings((0, 1), epochs=3, filters=4, spacing_mm=4.0)

    def go(*rates: float) -> str:
        run = find_bundle(str(laptop_run))
        return convergence([run], phantom_cohort, tmp_path / "study", rates, settings, device="cpu")

    page = go(1e-4, 0.1)
    table = pd.read_csv(tmp_path / "study" / "table.csv")
    images = {laptop_run.name, "original images", "healthy slices, random masks"}
    assert len(table) == 2 * 3 * 2 * 3  # rates, images, seeds, epochs
    assert set(table["images"]) == images
    results = json.loads((tmp_path / "study" / "summary.json").read_text())["results"]
    for result in results:
        for name, scores in result["images"].items():
            rows = table[(table["rate"] == result["rate"]) & (table["images"] == name)]
            for seed, expected in zip(scores["seeds"], scores["per_seed"], strict=True):
                if expected is not None:
                    assert fmean(rows[rows["seed"] == seed]["dice"]) == pytest.approx(expected)
    assert "At the rate 0.0001" in page  # in three epochs nothing is learned so slowly, and that is said
    assert "mean over 3 epochs" in page
    assert (tmp_path / "study" / "plot.png").stat().st_size > 1000

    # What is finished is not trained again.
    trained: list[object] = []
    module = sys.modules[convergence.__module__]
    monkeypatch.setattr(module, "bracketed_a_dice", lambda *given: trained.append(given))
    assert go(1e-4, 0.1) == page
    assert trained == []
