"""FLAIR and T1w of `lgg` as datalists of two modalities."""

import csv
from collections.abc import Callable
from pathlib import Path


def test_each_modality_has_its_scans_with_masks_and_ages(script: Callable[..., str], tmp_path: Path) -> None:
    names = [f"sub-{n}/anat/sub-{n}_FLAIR" for n in (1, 2)] + ["sub-2/anat/sub-2_ce-gadolinium_T1w"]
    names += [f"derivatives/manual/sub-{n}/anat/sub-{n}_label-lesion_mask" for n in (1, 2)]
    for name in names:
        path = tmp_path / "data/lgg" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "data/lgg/participants.tsv").write_text("participant_id\tage\nsub-1\t60\nsub-2\t41\n")
    assert script("lgg_modalities.py", tmp_path / "data", "-o", tmp_path / "lists") == "FLAIR: 2 scans\nT1w: 1 scans\n"
    with (tmp_path / "lists/T1w.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["patient"], row["age"]) == ("sub-2", "41.0")
    assert row["T1w"].endswith("sub-2_ce-gadolinium_T1w.nii.gz")
    assert row["mask"].endswith("sub-2_label-lesion_mask.nii.gz")
