"""Slices of one split in memory: which ones, on which grid, with which values."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.slices import SliceDataset

PATIENTS = 6


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients of 20 × 18 pixels of 2 mm in LPS orientation, four of them for training."""
    root = tmp_path_factory.mktemp("slices")
    rng = np.random.default_rng(0)
    rows = ["image,mask,split"]
    for number in range(PATIENTS):
        image = rng.integers(1, 1000, (20, 18, 6), dtype=np.int16)
        mask = np.zeros((20, 18, 6), np.uint8)
        mask[5:9, 6:10, 1 + number % 3] = 1
        for name, voxels in (("image", image), ("mask", mask)):
            nib.save(nib.Nifti1Image(voxels, np.diag([-2.0, -2, 5, 1])), root / f"p{number}_{name}.nii")
        split = ("training", "training", "training", "training", "validation", "test")[number]
        rows.append(f"p{number}_image.nii,p{number}_mask.nii,{split}")
    (root / "scans.csv").write_text("\n".join(rows))
    preprocess(root / "scans.csv", root / "out", Settings(slab=Slab(thickness_mm=None)), workers=1)
    return root / "out"


def test_pathological_slices_with_their_masks(cohort: Path) -> None:
    dataset = SliceDataset(cohort, "training", Grid(2.0, (32, 32)))
    assert len(dataset) == 4
    for item in (dataset[0], dataset[3]):
        assert item["image"].shape == item["mask"].shape == (1, 32, 32)
        assert item["image"].dtype == item["mask"].dtype == torch.float32
        assert item["image"].min() >= 0
        assert 0.9 < item["image"].max() <= 1
        assert item["mask"].sum() == 16


def test_values_are_those_of_the_preprocessed_volume(cohort: Path) -> None:
    dataset = SliceDataset(cohort, "test", Grid(2.0, (32, 32)))
    (subject,) = dataset.subjects
    place = subject.labels.index("pathological")
    expected = np.asarray(nib.load(cohort / subject.images).dataobj)[..., place]
    np.testing.assert_allclose(dataset[0]["image"][0, 6:26, 7:25], expected, atol=1e-6)


def test_splits_and_labels_are_those_of_the_table(cohort: Path) -> None:
    with (cohort / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    for split in ("training", "validation", "test"):
        for labels in (("healthy",), ("pathological",), ("healthy", "pathological")):
            expected = sum(row["split"] == split and row["label"] in labels for row in rows)
            assert len(SliceDataset(cohort, split, Grid(2.0, (32, 32)), labels)) == expected > 0


def test_slices_are_resampled_to_the_grid_and_cropped_to_its_size(cohort: Path) -> None:
    dataset = SliceDataset(cohort, "training", Grid(1.0, (32, 32)))
    assert dataset[0]["image"].shape == (1, 32, 32)
    assert set(dataset[0]["mask"].unique().tolist()) == {0.0, 1.0}
    assert dataset[0]["mask"].sum() == pytest.approx(64, abs=8)


def test_larger_fraction_contains_the_smaller_one(cohort: Path) -> None:
    taken = []
    for fraction in (0.25, 0.5, 1.0):
        dataset = SliceDataset(cohort, "training", Grid(2.0, (32, 32)), fraction=fraction, seed=3)
        taken.append({subject.subject for subject in dataset.subjects})
    assert [len(subjects) for subjects in taken] == [1, 2, 4]
    assert taken[0] < taken[1] < taken[2]


@pytest.mark.parametrize("fraction", [0, -1, 1.5, float("nan")])
def test_fraction_is_a_share(cohort: Path, fraction: float) -> None:
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        SliceDataset(cohort, "training", Grid(2.0, (32, 32)), fraction=fraction)


def test_no_slice_is_refused(cohort: Path) -> None:
    with pytest.raises(UsageError, match="found no excluded slice among the 4 training subjects"):
        SliceDataset(cohort, "training", Grid(2.0, (32, 32)), labels=("excluded",))


def test_folder_that_is_no_preprocessed_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no readable cohort\.json"):
        SliceDataset(tmp_path, "training", Grid(2.0, (32, 32)))


def test_damaged_volume_is_refused(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort.json").write_bytes((cohort / "cohort.json").read_bytes())
    with pytest.raises(UsageError, match=r"p5_image\.nii\.gz: is missing or damaged"):
        SliceDataset(tmp_path, "test", Grid(2.0, (32, 32)))


def test_a_slice_has_its_own_target_where_there_is_one(cohort: Path, tmp_path: Path) -> None:
    settings = Settings(slab=Slab(thickness_mm=None), target="lesion_area")
    preprocess(cohort.parent / "scans.csv", tmp_path / "out", settings, workers=1)
    dataset = SliceDataset(tmp_path / "out", "training", Grid(2.0, (32, 32)), ("pathological", "healthy"))
    for item in (dataset[index] for index in range(len(dataset))):
        assert float(item["target"]) == pytest.approx(float(item["mask"].sum()) * 4 / 100)  # cm²


def test_the_only_sequence_may_be_called_image_whatever_its_name_and_others_are_refused(
    cohort: Path, tmp_path: Path
) -> None:
    settings = Settings(modality="FLAIR", slab=Slab(thickness_mm=None))
    preprocess(cohort.parent / "scans.csv", tmp_path / "flair", settings, workers=1)
    grid = Grid(2.0, (32, 32))
    assert SliceDataset(tmp_path / "flair", "training", grid, channels=["image"]).channels == ["FLAIR"]
    with pytest.raises(UsageError, match="has the channels FLAIR, expected T1w too"):
        SliceDataset(tmp_path / "flair", "training", grid, channels=["T1w"])
