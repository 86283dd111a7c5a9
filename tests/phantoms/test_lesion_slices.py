"""What a detector is trained on: slices with their neighbours, drawn lesions and planted ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.phantoms import lesion_slices
from pipeline.phantoms.lesion_slices import LesionSlices
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.slices import SliceDataset

GRID = Grid(4.0, (64, 64))


@pytest.fixture(scope="module")
def dataset(phantom_cohort: Path) -> LesionSlices:
    return LesionSlices(phantom_cohort, "training", GRID)


def samples(dataset: LesionSlices, count: int = 8) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    return [sample for index in range(count) for sample in dataset[index % len(dataset)]]


def test_a_slice_comes_with_its_neighbours_and_the_mask_of_the_middle_one(dataset: LesionSlices) -> None:
    for sample in samples(dataset):
        assert sample["image"].shape == (3, 64, 64)
        assert sample["mask"].shape == (1, 64, 64)
        assert set(sample["mask"].unique().tolist()) <= {0.0, 1.0}
        assert 0 <= sample["image"].min() <= sample["image"].max() <= 1


def test_slices_with_and_without_lesion_are_shown(dataset: LesionSlices) -> None:
    assert {bool(sample["mask"].any()) for sample in samples(dataset, 16)} == {True, False}


def test_they_are_drawn_anew_from_torchs_random_state_which_checkpoints_keep(dataset: LesionSlices) -> None:
    first, again = samples(dataset), samples(dataset)
    assert all(torch.equal(one["image"], other["image"]) for one, other in zip(first, again, strict=True))
    torch.manual_seed(1)
    assert not torch.equal(dataset[0][0]["image"], first[0]["image"])


def test_lesions_are_planted_in_healthy_brain_and_belong_to_the_mask(
    dataset: LesionSlices, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PLANTED", 1.0), ("STRIPPED", 0.0), ("VARIED", 0.0)):
        monkeypatch.setattr(lesion_slices, name, value)
    more = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        volume = dataset.volumes[seed % len(dataset.volumes)]
        plain, lesion, _, free, _ = volume.block(np.random.default_rng(seed))
        image, with_plants = dataset._varied(volume, rng)
        planted = with_plants & ~lesion
        assert (lesion <= with_plants).all()
        assert not (planted & ~free).any()
        # What is neither is the scan as it is, but for air.
        same = ~planted & (image > 0)
        np.testing.assert_array_equal(image[same], plain[same])
        more += int(planted.sum())
    assert more > 0


def test_a_whole_head_is_shown_without_its_skull_now_and_then(
    dataset: LesionSlices, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PLANTED", 0.0), ("STRIPPED", 1.0), ("VARIED", 0.0)):
        monkeypatch.setattr(lesion_slices, name, value)
    volume = dataset.volumes[0]
    stripped, lesion = dataset._varied(volume, np.random.default_rng(0))
    plain, _, brain, _, _ = volume.block(np.random.default_rng(0))
    assert not stripped[~(brain | lesion)].any()
    np.testing.assert_array_equal(stripped[lesion], plain[lesion])


def test_image_and_mask_are_turned_together(dataset: LesionSlices) -> None:
    masks = torch.zeros(2, 1, 64, 64)
    masks[:, :, 20:30, 35:50] = 1
    for seed in range(5):
        images, moved = lesion_slices._moved(masks.clone(), masks, np.random.default_rng(seed))
        np.testing.assert_array_equal(images >= 0.5, moved > 0)
        assert 0.5 < float(moved.sum() / masks.sum()) < 2


def test_a_cohort_without_lesions_is_refused(phantom_scans: Path, tmp_path: Path) -> None:
    shutil.copytree(phantom_scans, tmp_path / "scans", ignore=shutil.ignore_patterns("derivatives"))
    settings = Settings(slab=Slab(thickness_mm=None), healthy=True)
    preprocess(tmp_path / "scans", tmp_path / "cohort", settings, workers=1)
    with pytest.raises(UsageError, match="found no lesion in the training split"):
        LesionSlices(tmp_path / "cohort", "training", GRID)


def test_every_slice_of_a_cohort_can_be_taken_with_its_neighbours(phantom_cohort: Path) -> None:
    labels = ("healthy", "pathological", "excluded")
    plain = SliceDataset(phantom_cohort, "validation", GRID, labels)
    with_two = SliceDataset(phantom_cohort, "validation", GRID, labels, neighbours=1)
    starts = {0, *np.cumsum([len(places) for places in plain.places])}
    for index in range(len(plain)):
        image = with_two[index]["image"]
        assert torch.equal(image[1:2], plain[index]["image"])
        above = index + 1 if index + 1 not in starts else index  # at the ends the last slice again
        below = index - 1 if index not in starts else index
        assert torch.equal(image[2:3], plain[above]["image"])
        assert torch.equal(image[0:1], plain[below]["image"])
