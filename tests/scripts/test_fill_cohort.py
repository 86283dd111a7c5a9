"""Every sequence of the patients that the shipped weights may know is a scan of its own, in the patient's split."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

SCRIPT = Path(__file__).parents[2] / "scripts" / "fill_cohort.py"


def test_sequences_are_scans_of_a_patient_who_stays_in_one_split(tmp_path: Path) -> None:
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
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "data"), "-o", str(tmp_path / "fill.json")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    splits = json.loads((tmp_path / "fill.json").read_text())
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
