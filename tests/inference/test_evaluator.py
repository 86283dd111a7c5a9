"""The scans that MONAI's commands work on, and the masks that belong to them."""

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.inference import ScanDataset


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name in ("scans/a.nii.gz", "scans/b/c.nii", "scans/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "scans"


def test_scans_are_the_nifti_files_of_a_folder_and_its_subfolders(scans: Path) -> None:
    dataset = ScanDataset(scans)
    assert [dataset[index] for index in range(len(dataset))] == [
        {"image": str(scans / "a.nii.gz")},
        {"image": str(scans / "b" / "c.nii")},
    ]


def test_a_mask_has_the_name_of_its_scan_in_a_folder_of_its_own(scans: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    (masks / "b").mkdir(parents=True)
    (masks / "a.nii.gz").touch()
    with pytest.raises(UsageError, match=r"masks/b/c\.nii: found no file, expected the lesion mask of .*c\.nii"):
        ScanDataset(scans, masks)
    (masks / "b" / "c.nii").touch()
    assert ScanDataset(scans, masks)[1]["mask"] == str(masks / "b" / "c.nii")


def test_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no NIfTI file"):
        ScanDataset(tmp_path)
