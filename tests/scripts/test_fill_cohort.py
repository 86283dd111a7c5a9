"""Every sequence of the patients that the shipped weights may know is a scan of its own, in the patient's split."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

Splits = dict[str, list[dict[str, str]]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Scans of the three cohorts, by name."""
    names = [f"lgg/sub-{n}/anat/sub-{n}_FLAIR" for n in range(4)]
    names += [f"lgg/derivatives/manual/sub-{n}/anat/sub-{n}_label-lesion_mask" for n in range(4)]
    names += ["lgg/sub-2/anat/sub-2_ce-gadolinium_T1w"]
    for number in ("0001", "0003", "0004", "0006"):
        names += [f"brats2013/Brats13_{number}/Brats13_{number}_{kind}" for kind in ("flair", "t1ce", "seg")]
    for number in ("07", "19", "26"):
        names += [f"open_ms/patient{number}/patient{number}_{kind}" for kind in ("flair", "t1", "t2", "lesion")]
    for name in names:
        path = tmp_path / "data" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4)), path)
    return tmp_path / "data"


@pytest.fixture
def splits_of(data: Path, script: Callable[..., str]) -> Callable[..., Splits]:
    """What the script writes with further options."""

    def make(*more: str) -> Splits:
        listed = data.with_name("fill.json")
        script("fill_cohort.py", data, "-o", listed, *more)
        found: Splits = json.loads(listed.read_text())
        return found

    return make


def test_sequences_are_scans_of_a_patient_who_stays_in_one_split(splits_of: Callable[..., Splits]) -> None:
    splits = splits_of()
    rows = [row for entries in splits.values() for row in entries]
    assert len(rows) == 4 + 1 + 4 * 2 + 3 * 3
    assert len({row["subject"] for row in rows}) == len(rows)
    patients = [{row["patient"] for row in entries} for entries in splits.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 4 + 4 + 3
    assert {row["subject"] for row in rows if row["patient"] == "openms-07"} == {
        "openms-07-flair",
        "openms-07-t1",
        "openms-07-t2",
    }
    for row in rows:
        assert row["mask"] == next(other["mask"] for other in rows if other["patient"] == row["patient"])


def test_a_contrast_can_be_left_out_of_the_training_and_of_it_alone(splits_of: Callable[..., Splits]) -> None:
    all_of_them, without = splits_of(), splits_of("--without", "T1w", "contrast-enhanced T1w")
    assert {split: without[split] for split in ("validation", "test")} == {
        split: all_of_them[split] for split in ("validation", "test")
    }
    left = [Path(row["image"]).name for row in without["training"]]
    assert left
    assert not [name for name in left if "T1w" in name or "_t1" in name]
    assert {"patient07_flair.nii.gz", "patient07_t2.nii.gz"} <= set(left)
