"""The table of masks that were drawn tight or loosely, where the truth is known."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
def test_margins_below_a_pixel_change_nothing_and_how_the_mask_was_drawn_does(
    phantom_cohort: Path, script: Callable[..., str], tmp_path: Path
) -> None:
    """Its pixels have 4 mm, and the margins go up to 3."""
    script("measure_fill_masks.py", phantom_cohort, "-b", "harmonic", "--each", "2", "-o", tmp_path / "masks.md")
    masks, contrasts = (tmp_path / "masks.md").read_text().split("\n\n")
    cells = [line.strip("| ").split(" | ") for line in masks.splitlines()[2:]]
    psnr = {(size, drawn): {float(value) for value in values} for size, drawn, *values in cells}
    assert all(len(values) == 1 for values in psnr.values())
    sizes = {size for size, drawn in psnr if drawn == "tight"}  # a pixel has no smaller mask
    assert sizes
    for size in sizes:
        tight, exact, loose = (psnr[size, drawn].pop() for drawn in ("tight", "exact", "loose"))
        assert len({tight, exact, loose}) == 3
        assert min(tight, exact, loose) > 5
    assert len(contrasts.splitlines()) == 2, "a patient of one contrast has none to be compared with"
