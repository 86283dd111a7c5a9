"""Slices with holes: the truth under them, what a network is shown, and that a training can go on where it stopped."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.hole_slices import HoleDataset, healthy_tissue
from pipeline.preprocessing.slab import Slab

GRID = Grid(4.0, (64, 64))


@pytest.fixture(scope="module")
def dataset(phantom_cohort: Path) -> HoleDataset:
    return HoleDataset(phantom_cohort, "training", GRID)


def samples(dataset: HoleDataset, count: int = 6) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    return [sample for index in range(count) for sample in dataset[index]]


def test_outside_the_hole_the_network_is_shown_the_truth_and_inside_a_fill(dataset):
    for sample in samples(dataset):
        shown, truth, hole = sample["shown"][1:2], sample["image"], sample["mask"] > 0
        assert hole.any()
        assert torch.equal(shown[~hole], truth[~hole])
        assert torch.equal(sample["shown"][4:5], sample["mask"])
        assert not torch.equal(shown[hole], truth[hole])


def test_a_slice_comes_with_its_neighbours_and_the_other_side(dataset):
    for sample in samples(dataset):
        assert sample["shown"].shape == (12, 64, 64)
        assert sample["image"].shape == sample["mask"].shape == (1, 64, 64)
        assert sample["shown"].min() >= 0
        assert sample["shown"].max() <= 1


def test_an_item_has_at_most_the_slices_asked_for(phantom_cohort):
    two = HoleDataset(phantom_cohort, "training", GRID, slices=2)
    assert {len(two[index]) for index in range(6)} <= {1, 2}


@pytest.mark.parametrize("fixed", [True, False])
def test_a_crop_is_shown_around_a_hole(phantom_cohort, fixed):
    cropped = HoleDataset(phantom_cohort, "training", GRID, crop=(32, 48), fixed=fixed)
    for sample in samples(cropped, 3):
        assert sample["shown"].shape == (12, 32, 48)
        assert sample["mask"].any()


def test_a_crop_has_the_sides_of_a_canvas(phantom_cohort):
    with pytest.raises(ValueError, match="sides divisible by 16"):
        HoleDataset(phantom_cohort, "training", GRID, crop=(33, 48))


def test_no_hole_lies_in_a_drawn_lesion_or_in_air(dataset):
    for volume in dataset.volumes:
        assert not (volume.allowed & volume.lesion).any()
        assert not (volume.allowed & ~volume.head).any()


def test_holes_are_drawn_anew_from_torchs_random_state_which_checkpoints_keep(dataset):
    first, again = samples(dataset), samples(dataset)
    assert all(torch.equal(one["shown"], other["shown"]) for one, other in zip(first, again, strict=True))
    torch.manual_seed(1)
    assert not torch.equal(dataset[0][0]["shown"], first[0]["shown"])


def test_fixed_holes_are_the_same_each_time_in_the_scan_as_it_is(phantom_cohort):
    fixed = HoleDataset(phantom_cohort, "validation", GRID, fixed=True)
    first, again = fixed[0], fixed[0]
    assert all(torch.equal(one["shown"], other["shown"]) for one, other in zip(first, again, strict=True))
    levels = torch.from_numpy(np.asarray(fixed.scans.images).astype(np.float32) / 65535)
    for sample in first:
        assert (levels - sample["image"]).abs().amax(dim=(1, 2, 3)).min() == 0


def test_without_a_lesion_there_is_no_shape_to_take(phantom_scans, tmp_path):
    (tmp_path / "scans").mkdir()
    for number in range(4):
        name = f"sub-{number}"
        (tmp_path / "scans" / f"{name}.nii.gz").symlink_to(phantom_scans / name / "anat" / f"{name}_FLAIR.nii.gz")
    settings = Settings(slab=Slab(thickness_mm=None), healthy=True, split=(0.5, 0.25, 0.25))
    preprocess(tmp_path / "scans", tmp_path / "cohort", settings, layout="healthy", workers=1)
    with pytest.raises(UsageError, match="found no lesion in the training split, expected healthy tissue and lesions"):
        HoleDataset(tmp_path / "cohort", "training", GRID)
    assert len(HoleDataset(tmp_path / "cohort", "validation", GRID, fixed=True)) == 0


def test_in_a_whole_head_holes_keep_away_from_the_scalp_in_a_stripped_brain_they_need_not():
    axes = np.meshgrid(np.arange(80) - 39.5, np.arange(80) - 39.5, indexing="ij")
    depth_mm = 70 - 2 * np.hypot(*axes)
    brain = np.where(depth_mm > 14, 0.5, 0)
    scalp, skull = (depth_mm > 0) & (depth_mm < 7), (depth_mm >= 7) & (depth_mm <= 14)
    whole = np.select([scalp, skull], [1.0, 0.3], brain)
    for image, nearest in ((whole, 12), (brain, 0)):
        volume = np.repeat(image[None].astype(np.float32), 12, axis=0)
        head = np.repeat((image > 0)[None], 12, axis=0)
        allowed = healthy_tissue(volume, np.zeros_like(head), head, (5.0, 2.0, 2.0))
        border_mm = depth_mm - (14 if nearest == 0 else 0)
        assert border_mm[allowed[0]].min() == pytest.approx(nearest, abs=3)


def test_around_a_drawn_lesion_a_margin_is_kept():
    head = np.ones((6, 20, 20), bool)
    lesion = np.zeros_like(head)
    lesion[2:4, 8:12, 8:12] = True
    image = np.random.default_rng(0).uniform(0.4, 0.6, head.shape).astype(np.float32)
    allowed = healthy_tissue(image, lesion, head, (2.0, 2.0, 2.0))
    assert not allowed[1:5, 7:13, 9].any()
