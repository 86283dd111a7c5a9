"""One mask for several scans of a person: the same tissue in all, whatever grid they lie on."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pipeline.errors import ScanError, UsageError
from pipeline.inference.shared_mask import SharedMask
from pipeline.scans.sources import Source

SHAPE = (40, 44, 30)


def head(shift: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """An ellipsoid with parts that tell its sides apart."""
    grid = np.moveaxis(np.indices(SHAPE, dtype=np.float32), 0, -1) - np.array(SHAPE) / 2 - shift
    inside = (np.linalg.norm(grid / (16, 18, 12), axis=-1) < 1) * 400.0
    for centre, radius, value in (((6, 4, 2), 5, 300), ((-7, -5, -3), 4, -250), ((0, 9, 1), 4, 200)):
        inside += (np.linalg.norm(grid - centre, axis=-1) < radius) * value
    return ndimage.gaussian_filter(inside, 0.7).astype(np.float32)


def lesion(shift: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    x, y, z = shift
    mask[16 + x : 24 + x, 16 + y : 24 + y, 12 + z : 18 + z] = 1
    return mask


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, voxels: np.ndarray, mm: float = 1.0) -> Path:
        affine = np.diag([mm, mm, mm, 1.0])
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"{name}.nii.gz")
        return tmp_path / f"{name}.nii.gz"

    return write


def source(path: Path) -> Source:
    return Source(path, path.name.partition(".")[0], "nifti")


def on(shared: SharedMask, scan: Source) -> tuple[np.ndarray, list[str]]:
    mask, notes = shared.on(scan, scan.read())
    return mask.stored > 0, notes


def test_on_one_grid_the_mask_is_the_same_in_all(save):
    scans = [source(save(name, head())) for name in ("flair", "t1")]
    shared = SharedMask.of([save("mask", lesion())], scans)
    for scan in scans:
        np.testing.assert_array_equal(on(shared, scan)[0], lesion() > 0)


def test_on_another_grid_of_the_same_space_it_is_resampled_and_said(save):
    coarse = source(save("t2", head()[::2, ::2, ::2], 2.0))
    scans = [coarse, source(save("flair", head()))]
    inside, notes = on(SharedMask.of([save("mask", lesion())], scans), coarse)
    np.testing.assert_array_equal(inside, lesion()[::2, ::2, ::2] > 0)
    assert "mask.nii.gz was resampled from the grid of flair.nii.gz: 0.384 ml, 0.384 here" in notes


def test_a_mask_for_each_fills_the_union_in_all(save):
    scans = [source(save(name, head())) for name in ("flair", "t1")]
    drawn = [lesion(), lesion((2, 0, 0))]
    shared = SharedMask.of([save(f"mask{number}", each) for number, each in enumerate(drawn)], scans)
    for scan in scans:
        inside, notes = on(shared, scan)
        np.testing.assert_array_equal(inside, (drawn[0] | drawn[1]) > 0)
        assert "the union of 2 masks was filled, in all scans the same" in notes


@pytest.mark.slow
def test_a_visit_that_moved_gets_the_mask_by_rigid_registration(save):
    shift = (3, -2, 2)
    first, later = source(save("visit1", head())), source(save("visit2", head(shift)))
    mask = save("mask", lesion())
    inside, notes = on(SharedMask.of([mask], [first, later], moved=True), later)
    expected = lesion(shift) > 0
    assert 2 * (inside & expected).sum() / (inside.sum() + expected.sum()) > 0.9
    assert any(note.startswith("registered to visit1.nii.gz, in which mask.nii.gz was drawn") for note in notes)
    np.testing.assert_array_equal(on(SharedMask.of([mask], [first, later], moved=True), first)[0], lesion() > 0)


class TestWhatIsRefused:
    def test_a_mask_on_the_grid_of_none(self, save):
        scans = [source(save(name, head())) for name in ("flair", "t1")]
        with pytest.raises(UsageError, match="lies on the grid of none of the 2 scans"):
            SharedMask.of([save("mask", lesion(), 2.0)], scans)

    def test_a_scan_that_does_not_show_the_lesion(self, save):
        cut = source(save("t2", np.ascontiguousarray(head()[:18])))
        shared = SharedMask.of([save("mask", lesion())], [source(save("flair", head())), cut])
        with pytest.raises(ScanError, match=r"t2.nii.gz: found .* of the 0.384 ml of mask.nii.gz in it"):
            on(shared, cut)

    def test_a_mask_that_is_empty(self, save):
        scans = [source(save(name, head())) for name in ("flair", "t1")]
        with pytest.raises(ScanError, match="expected a lesion"):
            on(SharedMask.of([save("mask", 0 * lesion())], scans), scans[1])
