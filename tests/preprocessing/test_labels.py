"""Healthy, pathological, or neither: by lesion area."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import ScanError
from pipeline.preprocessing.labels import brain_voxels, label_slices, lesion_voxels
from pipeline.scans import Scan

GRID = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in (24, 28, 12)), indexing="ij"))
RADIUS = np.sqrt((GRID**2).sum(axis=0))
HEAD, BRAIN = RADIUS < 0.9, RADIUS < 0.7
LESION = np.sqrt(((GRID - 0.25) ** 2).sum(axis=0)) < 0.3
NOISE = np.random.default_rng(0).random(HEAD.shape)


def volume(voxels: Any, name: str = "mask.nii.gz") -> Scan:
    stored = np.asarray(voxels)
    header = nib.Nifti1Header()
    header.set_data_shape(stored.shape)
    header.set_sform(np.eye(4), 1)
    return Scan(stored, 1.0, 0.0, header, Path(name))


def scan(added: float = 0.0) -> Scan:
    """A head of some 400 with air of 0; the constant is added to all of it."""
    return volume((HEAD * (300 + 200 * NOISE) + added).astype(np.float32), "scan.nii.gz")


def percents(shape: np.ndarray) -> np.ndarray:
    """A map of the region that falls off over some voxels, in whole percents."""
    return np.clip(np.rint(100 * (1 - (shape - 0.1) / 0.5)), 0, 100).astype(np.uint8)


class TestLesionMasks:
    @pytest.mark.parametrize("inside", [1, 255, 0.6])
    def test_mark_what_is_half_or_more(self, inside: float) -> None:
        lesion, _ = lesion_voxels(volume(LESION.astype(np.float32) * inside), scan())
        np.testing.assert_array_equal(lesion, LESION)

    @pytest.mark.parametrize(
        ("voxels", "reason"),
        [
            (HEAD & ~LESION, "covers 9.% of the head"),
            (~LESION, "covers 9.% of the head"),
            (percents(np.sqrt(((GRID - 0.25) ** 2).sum(axis=0))), "values up to 100 that change from voxel to voxel"),
            (np.rint(199 * NOISE) * LESION, "values up to 1.. that change from voxel to voxel"),
            (RADIUS > 1.3, "nothing but air around the head"),
        ],
        ids=["inverted in the head", "inverted", "percents", "an 8-bit scan of a part", "in the air"],
    )
    def test_that_are_none_are_refused(self, voxels: np.ndarray, reason: str) -> None:
        for added in (0.0, 100.0):
            with pytest.raises(ScanError, match=rf"mask\.nii\.gz: .*{reason}.*expected"):
                lesion_voxels(volume(voxels.astype(np.uint8)), scan(added))

    def test_may_count_the_lesions(self) -> None:
        numbers = np.zeros(HEAD.shape, np.uint8)
        for number, place in enumerate(np.argwhere(BRAIN[::4, ::4, ::4])[:40], start=1):
            x, y, z = 4 * place
            numbers[x : x + 2, y : y + 2, z : z + 2] = number
        lesion, (note,) = lesion_voxels(volume(numbers), scan())
        np.testing.assert_array_equal(lesion, numbers > 0)
        assert "holds the values 1, 2, 3, 4, 5, …; all were taken as lesion" in note

    def test_may_lie_in_dark_tissue(self) -> None:
        dark = volume(np.where(LESION, 0, scan().stored), "scan.nii.gz")
        lesion, _ = lesion_voxels(volume(LESION.astype(np.uint8)), dark)
        assert lesion.any()


class TestBrainMasks:
    @pytest.mark.parametrize(
        ("voxels", "note"),
        [
            (BRAIN, None),
            (BRAIN * 255.0, None),
            (np.clip(0.7 - RADIUS + 0.5, 0, 1), "0.5 and more were taken as brain"),
        ],
        ids=["binary", "255", "soft"],
    )
    def test_mark_what_is_half_or_more(self, voxels: np.ndarray, note: str | None) -> None:
        brain, notes = brain_voxels(volume(voxels.astype(np.float32)), scan())
        np.testing.assert_array_equal(brain, RADIUS <= 0.7)
        assert bool(note) == bool(notes)
        assert all(note in found for found in notes)

    @pytest.mark.parametrize(
        ("voxels", "reason"),
        [
            (~BRAIN, "covers 100% of the air"),
            (np.ones(HEAD.shape), "covers 100% of the air"),
            (scan().stored, "has the intensities of the scan scan.nii.gz, expected a brain mask"),
            (scan().stored / 4, "has the intensities of the scan"),
            (BRAIN * 0, "is empty, expected a brain"),
            (BRAIN * 0.4, r"is empty \(its largest value is 0.4, 0.5 and more are inside\)"),
        ],
        ids=["inverted", "everything", "the scan", "the scan in 8 bits", "empty", "nowhere half"],
    )
    def test_that_are_none_are_refused(self, voxels: np.ndarray, reason: str) -> None:
        with pytest.raises(ScanError, match=reason):
            brain_voxels(volume(np.asarray(voxels, np.float32)), scan())

    def test_of_a_scan_without_air_are_taken(self) -> None:
        close = volume(scan().stored[8:16, 8:20, 4:8], "scan.nii.gz")
        brain, _ = brain_voxels(volume(np.ones(close.shape, np.uint8)), close)
        assert brain.all()


@pytest.mark.parametrize(
    ("min_lesion_mm2", "expected"),
    [
        (0.0, ["healthy", "pathological", "pathological", "pathological"]),
        (10.0, ["healthy", "excluded", "pathological", "pathological"]),
        (10.1, ["healthy", "excluded", "excluded", "pathological"]),
    ],
)
def test_a_slice_is_healthy_without_lesion_and_pathological_with_enough_of_it(
    min_lesion_mm2: float, expected: list[str]
) -> None:
    assert label_slices(np.array([0.0, 0.01, 10.0, 500.0]), min_lesion_mm2) == expected
