"""What a study shows: which slices, and what is found in them."""

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.evaluation import Judge
from pipeline.evaluation.volumes import Volume
from pipeline.mosaic import PANEL_PIXELS
from pipeline.preprocessing.grid import Grid
from pipeline.studies.pictures import shown_slices, spread
from pipeline.studies.segmentations import write_segmentations

GRID = Grid(4.0, (64, 64))


def volume(patient: str, *areas: int, brightness: float = 0.8) -> Volume:
    """A slice for each area, with a lesion of so many rows of ten pixels."""
    lesion = torch.zeros(len(areas), 1, 64, 64, dtype=torch.bool)
    for row, rows in enumerate(areas):
        lesion[row, :, 10 : 10 + rows, 10:20] = True
    image = torch.where(lesion, brightness, 0.4)
    inside = torch.ones_like(lesion)
    return Volume(f"{patient}-scan", patient, (4.0, 4.0), list(range(5, 5 + len(areas))), image, lesion, inside, None)


def test_each_patient_is_shown_by_the_largest_lesion_of_all_scans() -> None:
    shown = shown_slices([volume("a", 1, 3, 2), volume("b", 0), volume("a", 4), volume("c", 2)])
    assert [(each.volume, each.row) for each in shown] == [(2, 0), (3, 0)]


@pytest.mark.parametrize(("count", "kept"), [(2, [0, 1]), (6, list(range(6))), (11, [0, 2, 4, 6, 8, 10])])
def test_shown_slices_are_spread_evenly(count: int, kept: list[int]) -> None:
    assert spread(list(range(count))) == kept


class Above(nn.Module):
    """Calls lesion what is brighter than 0.7."""

    def forward(self, image: Tensor) -> Tensor:
        return image - 0.7


def test_segmentations_come_with_their_dice_the_lowest_contrast_first(tmp_path: Path) -> None:
    judge = Judge(Above(), GRID, torch.device("cpu"), {})
    bright, faint = volume("bright", 5), volume("faint", 1, 5, brightness=0.6)
    pairs = [(each, torch.where(each.lesion, -0.4, 0.0)) for each in (bright, faint)]
    write_segmentations(tmp_path / "found.png", pairs, judge, judge, alpha=0.5)
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["patient"], row["slice"]) for row in rows] == [("faint", "6"), ("bright", "5")]
    assert [float(row["contrast"]) for row in rows] == pytest.approx([0.2, 0.4])
    # At 0.6 the faint lesion is overlooked; at 0.6 + 0.5 · 0.4 it is found.
    assert [(float(row["dice_alpha=0"]), float(row["dice_alpha=0.5"])) for row in rows] == [(0, 1), (1, 1)]
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.width == 5 * PANEL_PIXELS
        assert picture.height > 2 * PANEL_PIXELS
