"""Slices or volumes: the experiment behind the card of `fill`."""

from collections.abc import Callable
from pathlib import Path

import pytest


def _cells(table: Path) -> list[list[str]]:
    """The rows of a Markdown table, without its head."""
    lines = [line for line in table.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.slow
def test_slices_and_volumes_are_trained_for_the_same_time(
    phantom_cohort: Path, script: Callable[..., str], tmp_path: Path
) -> None:
    script("fill_dimensions.py", phantom_cohort, "--minutes", "0.05", "-o", tmp_path / "dimensions.md")
    flat, solid = _cells(tmp_path / "dimensions.md")
    assert (flat[0], solid[0]) == ("2.5-D", "3-D")
    # 3×3×3 instead of 3×3 weights, of which a slice sees its neighbours' as channels.
    assert int(solid[1].replace(",", "")) > 2 * int(flat[1].replace(",", ""))
    assert all(int(row[2]) > 0 for row in (flat, solid))
    assert all(row[3].split(" ")[0] != "+nan" for row in (flat, solid))
