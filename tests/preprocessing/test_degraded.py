"""Degraded slices beside what they were."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.errors import UsageError
from pipeline.preprocessing.degradation import Degradation, Noise, ThickSlices, Undersampling
from pipeline.preprocessing.degraded import LABELS, DegradedDataset
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset

GRID = Grid(4.0, (48, 48))
SLICES = 12  # of each phantom, 10 mm thick
NOISE, K_SPACE, THICK = Noise((0.05, 0.1)), Undersampling((0.3, 0.3)), ThickSlices(group=3, thickest_mm=10.0)


@pytest.mark.parametrize("degradation", [NOISE, K_SPACE, THICK])
def test_a_slice_comes_degraded_with_its_truth_and_its_lesion(phantom_cohort: Path, degradation: Degradation) -> None:
    slices = DegradedDataset(phantom_cohort, "training", GRID, degradation)
    assert len(slices) == len(slices.patients) == 4 * SLICES
    sample = slices[SLICES // 2]
    assert {name: tuple(value.shape) for name, value in sample.items()} == dict.fromkeys(
        ("image", "target_image", "mask"), (1, 48, 48)
    )
    assert torch.equal(sample["target_image"], slices.clean[SLICES // 2]["image"])
    assert 0 <= sample["image"].min() < sample["image"].max() <= 1
    assert not torch.equal(sample["image"], sample["target_image"])


@pytest.mark.parametrize("degradation", [NOISE, K_SPACE])
def test_draws_are_new_each_time_and_fixed_ones_the_same(phantom_cohort: Path, degradation: Degradation) -> None:
    drawn, fixed = (DegradedDataset(phantom_cohort, "test", GRID, degradation, fixed=fixed) for fixed in (False, True))
    assert not torch.equal(drawn[5]["image"], drawn[5]["image"])
    assert torch.equal(fixed[5]["image"], fixed[5]["image"])
    other = DegradedDataset(phantom_cohort, "test", GRID, degradation, fixed=True, seed=1)
    assert not torch.equal(fixed[5]["image"], other[5]["image"])


def test_other_channels_are_shown_as_they_are_and_neighbours_are_degraded_too(
    phantom_cohort: Path, tmp_path: Path
) -> None:
    """The second contrast is the same phantom here, so that what is not degraded is known."""
    cohort = tmp_path / "cohort"
    shutil.copytree(phantom_cohort, cohort)
    content = json.loads((cohort / "cohort.json").read_text())
    for subject in content["subjects"]:
        subject["channels"] = {"FLAIR": subject["images"], "T1w": subject["images"]}
    (cohort / "cohort.json").write_text(json.dumps(content))
    slices = DegradedDataset(cohort, "training", GRID, NOISE, ("FLAIR", "T1w"), neighbours=1, fixed=True)
    image, target = slices[6]["image"], slices[6]["target_image"]
    assert image.shape == (6, 48, 48)
    clean = slices.clean[6]["image"]
    assert torch.equal(image[3:], clean[3:])
    assert torch.equal(target, clean[1:2])
    assert all(not torch.equal(one, was) for one, was in zip(image[:3], clean[:3], strict=True))


def test_thick_slices_are_made_of_thin_scans_alone(phantom_cohort: Path) -> None:
    with pytest.raises(UsageError, match="no scan in the training split with slices of at most 2 mm, expected thin"):
        DegradedDataset(phantom_cohort, "training", GRID, ThickSlices(group=3))
    assert len(DegradedDataset(phantom_cohort, "validation", GRID, ThickSlices(group=3))) == 0


def test_what_is_left_over_of_a_scan_and_no_whole_thick_slice_is_left_out(phantom_cohort: Path) -> None:
    slices = DegradedDataset(phantom_cohort, "test", GRID, ThickSlices(group=5, thickest_mm=10.0))
    assert len(slices) == 10
    thick = torch.stack([slices[place]["image"][0] for place in range(5)]).mean(dim=0)
    truth = torch.stack([slices[place]["target_image"][0] for place in range(5)]).mean(dim=0)
    assert (thick - truth).abs().mean() < 0.02


@pytest.mark.parametrize(("degradation", "neighbours"), [(NOISE, 0), (NOISE, 1), (THICK, 2)])
def test_a_whole_scan_is_its_slices_and_with_something_in_it_the_same_scan_with_that(
    phantom_cohort: Path, degradation: Degradation, neighbours: int
) -> None:
    slices = DegradedDataset(phantom_cohort, "test", GRID, degradation, neighbours=neighbours, fixed=True)
    (run,) = slices.runs
    scan = slices.scan(run)
    for place in (0, 5, SLICES - 1):
        for name, value in slices[place].items():
            torch.testing.assert_close(scan[name][place], value, atol=5e-4, rtol=0)
    change = torch.zeros_like(scan["target_image"])
    change[6, 0, 20:24, 20:24] = 0.2
    changed = slices.scan(run, change)
    torch.testing.assert_close(changed["target_image"], (scan["target_image"] + change).clamp(0, 1))
    difference = (changed["image"] - scan["image"])[:, neighbours].abs().amax(dim=(1, 2))
    assert difference[6] > 0.05
    assert difference[0] == 0


def test_slices_whose_lesion_is_too_small_for_the_grid_are_restored_too(phantom_cohort: Path) -> None:
    """All labels are taken, and a scan has no gap."""
    coarse = Grid(20.0, (16, 16))
    slices = DegradedDataset(phantom_cohort, "training", coarse, NOISE)
    assert len(slices) == 4 * SLICES
    assert len(SliceDataset(phantom_cohort, "training", coarse, LABELS)) < len(slices)
