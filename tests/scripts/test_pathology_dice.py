"""The Dice of each kind of lesion, beside chance."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest

from pipeline.bundles import find_bundle
from pipeline.launch import train
from pipeline.phantoms import brain_phantom
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.slab import WHOLE

TINY = {
    "spacing_mm": 4.0,
    "size": [32, 64],
    "filters": [4, 4, 4, 4],
    "common_filters": 6,
    "unique_filters": 2,
    "discriminator_filters": [4, 4, 4, 4],
    "half_slice_rule::least_brain": 0.1,
    "labelled": 1.0,
    "amp": None,
    "epochs": 1,
    "device_name": "cpu",
}


@pytest.mark.slow
def test_each_kind_has_a_line_and_whatever_is_found_has_one(tmp_path: Path, script: Callable[..., str]) -> None:
    rows = ["subject,image,mask,kind,split"]
    for number, split in enumerate(("training", "training", "test", "test")):
        kind = ("bright", "dark")[number % 2]
        phantom = brain_phantom(number, (44, 52, 12), (4.0, 4.0, 10.0), lesions=kind)
        for name, voxels in (("image", phantom.image), ("mask", phantom.lesion)):
            nib.save(nib.Nifti1Image(voxels, phantom.affine), tmp_path / f"p{number}_{name}.nii.gz")
        rows.append(f"p{number},p{number}_image.nii.gz,p{number}_mask.nii.gz,{kind},{split}")
    (tmp_path / "scans.csv").write_text("\n".join(rows))
    preprocess(tmp_path / "scans.csv", tmp_path / "cohort", Settings(slab=WHOLE, target="kind"), workers=1)
    train(find_bundle("genseg"), tmp_path / "cohort", tmp_path / "run", ["scans", "pathologies"], TINY)
    header, *lines = script("pathology_dice.py", tmp_path / "run", tmp_path / "cohort").splitlines()
    cells = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    assert [(row["kind"], row["scans"]) for row in cells] == [("bright", "1"), ("dark", "1"), ("any", "2")]
    assert all(0 <= float(row["dice"]) <= 1 for row in cells)
    assert all(0 < float(row["dice of the whole head"]) < 0.3 for row in cells)
