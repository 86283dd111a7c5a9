"""Slices of a target modality beside slices of others: unpaired, each with its own patient's target."""

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.cohort_format import read_cohort
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.modalities import ModalityDataset
from pipeline.preprocessing.slab import WHOLE
from pipeline.preprocessing.slices import SliceDataset
from pipeline.preprocessing.window import WindowRule

GRID = Grid(2.0, (32, 32))
SLICES = 3
# Name, modality, split, pixels a side, and target, which is the brightness in tens, too.
SCANS = [
    ("c0", "CT", "training", 32, 10),
    ("c1", "CT", "training", 32, 20),
    ("c2", "CT", "validation", 32, 30),
    ("c3", "CT", "test", 32, 40),
    ("m0", "MR", "training", 24, 50),
    ("m1", "MR", "training", 24, 60),
    ("p0", "PET", "training", 16, 70),
]


def write_cohort(root: Path) -> Path:
    """One scan a patient, of one modality each; modalities have images of different sizes."""
    rows = ["subject,image,split,age"]
    for name, _, split, side, age in SCANS:
        image = np.zeros((side, side, SLICES), np.float32)
        image[2:-2, 2:-2] = 10 * age
        nib.save(nib.Nifti1Image(image, np.diag([2.0, 2, 5, 1])), root / f"{name}.nii")
        rows.append(f"{name},{name}.nii,{split},{age}")
    (root / "scans.csv").write_text("\n".join(rows))
    settings = Settings(slab=WHOLE, target="age", window=WindowRule(fixed=(0, 1000)))
    preprocess(root / "scans.csv", root / "cohort", settings, workers=1)
    content = json.loads((root / "cohort" / "cohort.json").read_text())
    modalities = {name: modality for name, modality, *_ in SCANS}
    for subject in content["subjects"]:
        subject["channels"] = {modalities[subject["subject"]]: subject["images"]}
    (root / "cohort" / "cohort.json").write_text(json.dumps(content))
    return root / "cohort"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("modalities"))


def of(cohort: Path, *sources: str, split: str = "training", **options) -> ModalityDataset:
    return ModalityDataset(cohort, split, GRID, "CT", sources, **options)


def brightness(image: torch.Tensor) -> int:
    return round(1000 * float(image.max()))


def test_a_cohort_holds_scans_of_different_modalities(cohort):
    content = read_cohort(cohort)
    assert content.channels == ["CT", "MR", "PET"]
    assert [subject.subject for subject in content.having(["MR"])] == ["m0", "m1"]


def test_an_epoch_is_the_slices_of_the_target_modality_whatever_sources_there_are(cohort):
    for sources in ((), ("MR",), ("MR", "PET")):
        assert len(of(cohort, *sources)) == 2 * SLICES


def test_each_image_comes_with_its_own_patient_s_target_on_one_grid(cohort):
    torch.manual_seed(0)
    data, seen = of(cohort, "MR", "PET"), set()
    for index in [*range(len(data))] * 5:
        sample = data[index]
        assert set(sample) == {"image", "mask", "target", "image_MR", "target_MR", "image_PET", "target_PET"}
        assert {sample[key].shape for key in sample if "image" in key} == {(1, 32, 32)}
        for key in ("", "_MR", "_PET"):
            assert brightness(sample[f"image{key}"]) == pytest.approx(10 * sample[f"target{key}"].item(), abs=1)
        seen.add((sample["target"].item(), sample["target_MR"].item()))
    assert seen == {(10, 50), (10, 60), (20, 50), (20, 60)}  # unpaired


def test_what_is_drawn_beside_follows_torch_s_seed(cohort):
    def drawn() -> list[float]:
        torch.manual_seed(3)
        data = of(cohort, "MR")
        return [data[index]["target_MR"].item() for index in range(len(data))]

    assert drawn() == drawn()


def test_a_fraction_thins_the_target_modality_alone(cohort):
    data = of(cohort, "MR", fraction=0.5)
    assert len(data) == SLICES
    assert len(data.sources["MR"]) == 2 * SLICES


def test_slices_of_one_modality_are_validated_and_tested(cohort):
    for split, target in (("validation", 30), ("test", 40)):
        slices = SliceDataset(cohort, split, GRID, ("unknown",), channels=["CT"])
        assert {slices[index]["target"].item() for index in range(len(slices))} == {target}


def test_scans_of_different_modalities_are_not_taken_for_one(cohort):
    with pytest.raises(UsageError, match="scans of the modalities CT, MR, PET, expected the same of each scan"):
        SliceDataset(cohort, "training", GRID, ("unknown",))


def test_a_modality_that_is_missing_is_named(cohort):
    with pytest.raises(UsageError, match="has the channels CT, MR, PET, expected US too"):
        of(cohort, "US")


def test_the_target_modality_is_no_source_of_itself(cohort):
    with pytest.raises(UsageError, match="sources: found CT, which is the target modality"):
        of(cohort, "CT")


def test_scans_without_a_target_are_refused(tmp_path):
    cohort = write_cohort(tmp_path)
    content = json.loads((cohort / "cohort.json").read_text())
    for subject in content["subjects"]:
        subject["target"] = None
    (cohort / "cohort.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="found no target of its CT scans"):
        of(cohort, "MR")


def test_a_patient_with_both_modalities_is_told(tmp_path, caplog):
    cohort = write_cohort(tmp_path)
    content = json.loads((cohort / "cohort.json").read_text())
    for subject in content["subjects"]:
        if subject["subject"] == "m0":
            subject["patient"] = "c0"
    (cohort / "cohort.json").write_text(json.dumps(content))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        of(cohort, "MR", "PET")
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "1 of 2 patients with CT have MR, too, which adds no new patients to learn from"
    ]


def test_classes_are_counted_alike_in_all_modalities(tmp_path):
    cohort = write_cohort(tmp_path)
    content = json.loads((cohort / "cohort.json").read_text())
    for subject in content["subjects"]:
        subject["target"] = "old" if subject["target"] > 15 else "young"
    (cohort / "cohort.json").write_text(json.dumps(content))
    data = of(cohort, "MR")
    assert data.target.classes == data.sources["MR"].classes == ["old", "young"]
    assert {(sample["target"].item(), sample["target_MR"].item()) for sample in map(data.__getitem__, range(6))} == {
        (1, 0),
        (0, 0),
    }


def test_where_masks_are_learned_the_target_modality_brings_its_images_alone(tmp_path):
    cohort = write_cohort(tmp_path)
    content = json.loads((cohort / "cohort.json").read_text())
    for subject in content["subjects"]:
        subject["target"] = None
        if subject["subject"] != "m1":
            subject["labels"] = ["healthy"] * SLICES
    (cohort / "cohort.json").write_text(json.dumps(content))
    data = of(cohort, "MR", learned="mask")
    sample = data[0]
    assert {key: value.shape for key, value in sample.items()} == dict.fromkeys(
        ("image", "image_MR", "mask_MR"), (1, 32, 32)
    )
    assert set(data.sources["MR"].patients) == {"m0"}  # m1's lesions are not drawn
