"""Two step curves in SVG units."""

import re

import numpy as np
import pytest

from pipeline.reports.histogram import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, chart


def test_curves_start_and_end_on_the_axis_and_the_highest_bin_reaches_the_top() -> None:
    drawn = chart("tissue", np.array([0.0, 50.0, 100.0]), np.array([1.0, 4.0]), 80.0, ("image", np.array([3.0, 2.0])))
    base = HEIGHT - BOTTOM
    middle, right = LEFT + (WIDTH - LEFT - 8) / 2, WIDTH - 8
    assert drawn.before == f"M{LEFT}.0 {base}.0V{base - (base - TOP) / 4:.1f}H{middle:.1f}V{TOP}.0H{right}.0V{base}.0"
    heights = [float(height) for height in re.findall(r"V([\d.]+)", drawn.after)]
    assert heights == pytest.approx([base - (base - TOP) * 3 / 4, base - (base - TOP) / 2, base])
    assert drawn.window == pytest.approx(LEFT + 0.8 * (WIDTH - LEFT - 8), abs=0.1)


def test_ticks_are_round_numbers_in_place() -> None:
    drawn = chart("tissue", np.linspace(-0.5, 1250, 65), np.arange(64.0), 1000.0)
    assert [text for _, text in drawn.across] == ["0", "250", "500", "750", "1000", "1250"]
    assert drawn.across[4][0] == drawn.window
    assert [text for _, text in drawn.up] == ["0", "20", "40", "60"]


def test_the_means_are_told_to_who_cannot_see_the_curves() -> None:
    edges, before = np.array([0.0, 50.0, 100.0]), np.array([1.0, 1.0])
    drawn = chart("tissue", edges, before, 80.0, ("filled image", np.array([1.0, 0.0])))
    assert drawn.alt == "tissue: mean intensity 50 in the input, 25 in the SYNTHETIC filled image"
    alone = chart("tissue", edges, before, 80.0)
    assert (alone.alt, alone.after) == ("tissue: mean intensity 50 in the input", "")
