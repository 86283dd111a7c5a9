"""A lesion as a label in a parcellation, and what the regions lost to it."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import ScanError, UsageError
from pipeline.inference.relabel import put_lesion, read_names, read_parcellation
from pipeline.scans import Scan

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
Volume = Callable[..., Scan]


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """Voxels written and read again, in NIfTI or FreeSurfer's format."""

    def make(stored: np.ndarray, affine: np.ndarray = AFFINE, name: str = "volume.nii.gz", code: int = 1) -> Scan:
        path = tmp_path / name
        if name.endswith("mgz"):
            nib.save(nib.MGHImage(stored, affine), path)
        else:
            image = nib.Nifti1Image(stored, affine)
            image.set_sform(affine, code)
            image.set_qform(affine, code)
            nib.save(image, path)
        return read_parcellation(path)

    return make


@pytest.fixture
def regions() -> np.ndarray:
    """Two regions of 10 × 20 × 10 voxels, 3 and 7, in a border of none."""
    labels = np.zeros((24, 24, 12), np.int16)
    labels[2:12, 2:22, 1:11], labels[12:22, 2:22, 1:11] = 3, 7
    return labels


@pytest.fixture
def lesion(regions: np.ndarray) -> np.ndarray:
    """40 voxels of region 3, 20 of region 7 and 10 outside."""
    mask = np.zeros(regions.shape, np.uint8)
    mask[8:14, 2:12, 5] = mask[2:3, 2:12, 0] = 1
    return mask


@pytest.mark.parametrize("name", ["volume.nii.gz", "volume.mgz"])
def test_the_lesion_is_a_label_of_its_own_and_each_region_says_what_it_lost(
    volume: Volume, regions: np.ndarray, lesion: np.ndarray, name: str
) -> None:
    made = put_lesion(volume(regions, name=name), volume(lesion, name="mask.nii.gz"), names={3: "left"})
    assert made.label == 8
    np.testing.assert_array_equal(made.labels, np.where(lesion, 8, regions))
    assert made.notes == []
    assert made.outside_ml == pytest.approx(0.02)
    table = made.table.set_index("index")
    assert table["name"].to_dict() == {3: "left", 7: "n/a", 8: "Lesion"}
    assert table["before_ml"].tolist() == pytest.approx([4.0, 4.0, 0.0])
    assert table["lost_ml"].tolist() == pytest.approx([0.08, 0.04, 0.0])
    assert table["after_ml"].tolist() == pytest.approx([3.92, 3.96, 0.14])


def test_a_number_is_unused_in_the_names_too_and_fits_the_type(
    volume: Volume, regions: np.ndarray, lesion: np.ndarray
) -> None:
    parcellation, mask = volume(regions.astype(np.uint8)), volume(lesion, name="mask.nii.gz")
    assert put_lesion(parcellation, mask, names={3: "left", 14175: "last"}).label == 14176
    made = put_lesion(parcellation, mask, label=40_000)
    assert (made.labels.dtype, made.labels.max()) == (np.int32, 40_000)
    assert put_lesion(parcellation, mask).labels.dtype == np.uint8
    with pytest.raises(UsageError, match=r"--label 3: is a region in .*take 8"):
        put_lesion(parcellation, mask, label=3)


@pytest.mark.parametrize("turned", [False, True], ids=["other spacing", "turned too"])
def test_a_mask_on_another_grid_of_the_same_space_is_resampled_and_that_is_told(
    volume: Volume, regions: np.ndarray, lesion: np.ndarray, turned: bool
) -> None:
    fine = np.repeat(lesion, 2, axis=2)
    affine = AFFINE @ np.diag([1.0, 1.0, 0.5, 1.0])
    affine[2, 3] = -0.5
    if turned:
        fine = fine[::-1].transpose(2, 0, 1)
        affine = affine @ np.array([[0, -1, 0, 23], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    made = put_lesion(volume(regions), volume(np.ascontiguousarray(fine), affine, "mask.nii.gz"))
    np.testing.assert_array_equal(made.labels == made.label, lesion > 0)
    (note,) = made.notes
    assert "resampled to the parcellation's by nearest neighbour: 0.14 ml became 0.14 ml" in note


def test_part_of_a_mask_outside_the_field_of_view_is_told(
    volume: Volume, regions: np.ndarray, lesion: np.ndarray
) -> None:
    made = put_lesion(volume(regions[:, :, 1:], AFFINE @ shift(0, 0, 1)), volume(lesion, name="mask.nii.gz"))
    assert made.notes[1] == "14% of the mask lies outside the parcellation's field of view"


def shift(*voxels: float) -> np.ndarray:
    moved = np.eye(4)
    moved[:3, 3] = voxels
    return moved


class TestRefused:
    def test_another_space(self, volume: Volume, regions: np.ndarray, lesion: np.ndarray) -> None:
        with pytest.raises(
            ScanError, match=r"0% of the mask lies in the field of view of volume\.nii\.gz, expected all"
        ):
            put_lesion(volume(regions), volume(lesion, AFFINE @ shift(100, 0, 0), "mask.nii.gz"))

    def test_another_grid_where_a_header_does_not_say_how_it_lies(
        self, volume: Volume, regions: np.ndarray, lesion: np.ndarray
    ) -> None:
        mask = volume(lesion[:-1], name="mask.nii.gz", code=0)
        with pytest.raises(ScanError, match=r"mask.nii.gz: the mask has shape .* does not say how it lies in space"):
            put_lesion(volume(regions), mask)

    def test_an_empty_mask(self, volume: Volume, regions: np.ndarray, lesion: np.ndarray) -> None:
        with pytest.raises(ScanError, match="the mask is empty"):
            put_lesion(volume(regions), volume(0 * lesion, name="mask.nii.gz"))

    def test_what_vanishes_on_the_grid(self, volume: Volume, regions: np.ndarray) -> None:
        point = np.zeros((96, 96, 48), np.uint8)
        point[45, 45, 21] = 1
        with pytest.raises(ScanError, match="nothing of the mask is left on the grid"):
            put_lesion(volume(regions), volume(point, AFFINE @ np.diag([0.25, 0.25, 0.25, 1]), "mask.nii.gz"))

    @pytest.mark.parametrize("value", [3.5, 3e9])
    def test_a_scan_is_no_parcellation(
        self, volume: Volume, regions: np.ndarray, lesion: np.ndarray, value: float
    ) -> None:
        wrong = np.where(regions == 3, value, regions).astype(np.float32)
        with pytest.raises(ScanError, match=rf"found the value {value:g}, expected whole numbers".replace("+", r"\+")):
            put_lesion(volume(wrong), volume(lesion, name="mask.nii.gz"))

    def test_nothing_but_background(self, volume: Volume, regions: np.ndarray, lesion: np.ndarray) -> None:
        with pytest.raises(ScanError, match="holds no label but 0"):
            put_lesion(volume(0 * regions), volume(lesion, name="mask.nii.gz"))


class TestNames:
    @pytest.mark.parametrize(
        "text",
        [
            "index\tname\tcolor\n3\tleft side\t#ff0000\n7\tright side\t#00ff00\n",
            "abbreviation\tname\tindex\nl\tleft side\t3\nr\tright side\t7\n",
        ],
    )
    def test_of_bids(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "x_dseg.tsv").write_text(text)
        assert read_names(tmp_path / "x_dseg.tsv") == {3: "left side", 7: "right side"}

    def test_of_freesurfer(self, tmp_path: Path) -> None:
        text = "#$Id\n#No. Label Name:   R   G   B   A\n\n0   Unknown   0 0 0 0\n17  Left-Hippocampus 220 216 20 0\n"
        (tmp_path / "LUT.txt").write_text(text)
        assert read_names(tmp_path / "LUT.txt") == {0: "Unknown", 17: "Left-Hippocampus"}

    @pytest.mark.parametrize("text", ["", "nothing of the kind\n", "index\tname\nx\tleft\n", "index\tname\n3\n"])
    def test_of_neither_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "names.tsv").write_text(text)
        with pytest.raises(UsageError, match="is no look-up table"):
            read_names(tmp_path / "names.tsv")
