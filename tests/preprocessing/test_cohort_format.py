"""What `cohort.json` may hold: format 1 is still read, nothing leads out of the folder, numbers can be."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.files import SMALL_FILE
from pipeline.preprocessing.cohort_format import known_patients, patient_hashes, read_cohort, read_mask, read_part

OF_FORMAT_2 = ("channels", "windows", "image_sha256", "session", "target")


def changed(cohort: Path, folder: Path, index: int = 0, **values: Any) -> Path:
    content = json.loads((cohort / "cohort.json").read_text())
    content["subjects"][index] |= values
    (folder / "cohort.json").write_text(json.dumps(content))
    return folder


def test_format_1_is_read_as_one_channel(phantom_cohort: Path, tmp_path: Path) -> None:
    content = json.loads((phantom_cohort / "cohort.json").read_text()) | {"format": 1}
    for count in content["counts"].values():
        del count["unknown"]
    content["subjects"] = [
        {key: value for key, value in subject.items() if key not in OF_FORMAT_2} for subject in content["subjects"]
    ]
    (tmp_path / "cohort.json").write_text(json.dumps(content))
    old, new = read_cohort(tmp_path), read_cohort(phantom_cohort)
    assert (old.format, new.format) == (1, 2)
    assert old.channels == ["image"]
    for before, now in zip(old.subjects, new.subjects, strict=True):
        assert before.channels == {"image": now.images}
        assert (before.labels, before.masks, before.split) == (now.labels, now.masks, now.split)


@pytest.mark.parametrize("name", ["../../../escaped", "a/b", "a\\b", "", ".", "-rf", "a\0", "a\n"])
@pytest.mark.parametrize("key", ["subject", "patient"])
def test_names_that_could_be_paths_are_refused(key: str, name: str, phantom_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"cohort\.json: subjects\[1\]\.{key} is"):
        read_cohort(changed(phantom_cohort, tmp_path, 1, **{key: name}))


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.nii.gz", "images/../../x", "C:\\x.nii", "\\\\host\\x", ""])
@pytest.mark.parametrize("key", ["images", "masks", "truth"])
def test_paths_that_lead_out_of_the_cohort_are_refused(
    key: str, path: str, phantom_cohort: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"subjects\[0\]\.{key} is .*a path inside the cohort's folder"):
        read_cohort(changed(phantom_cohort, tmp_path, **{key: path}))


@pytest.mark.parametrize(
    "values",
    [
        {"spacing_mm": [5, 0, 1]},
        {"spacing_mm": [5, float("nan"), 1]},
        {"spacing_mm": [5, float("inf"), 1]},
        {"spacing_mm": [5, 1e-300, 1]},
        {"spacing_mm": [5, 1e300, 1]},
        {"lesion_mm2": [-1.0]},
        {"labels": ["sick"]},
        {"split": "train"},
        {"target": float("inf")},
        {"first_slice": -1},
        {"channels": {"image": "images/other.nii.gz"}},
    ],
)
def test_values_that_cannot_be_are_refused(values: dict[str, Any], phantom_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape("cohort.json: subjects[0]")):
        read_cohort(changed(phantom_cohort, tmp_path, **values))


def test_what_is_said_of_thousands_of_scans_is_read(phantom_cohort: Path, tmp_path: Path) -> None:
    text = (phantom_cohort / "cohort.json").read_text()
    (tmp_path / "cohort.json").write_text(text + " " * SMALL_FILE)
    assert read_cohort(tmp_path) == read_cohort(phantom_cohort)


def test_two_subjects_of_one_name_are_refused(phantom_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cohort\.json: subjects is"):
        read_cohort(changed(phantom_cohort, tmp_path, 1, subject="sub-0"))


def test_patients_are_known_again_by_their_images_and_not_by_a_common_name(
    phantom_cohort: Path, tmp_path: Path
) -> None:
    hashes = patient_hashes(phantom_cohort, "training")
    trained = {subject.patient for subject in read_cohort(phantom_cohort).of("training")}
    assert not any(name in digest for digest in hashes for name in trained)
    assert known_patients(phantom_cohort, "test", hashes) == []
    content = json.loads((phantom_cohort / "cohort.json").read_text())
    for subject in content["subjects"]:
        subject["split"] = "test"
    (tmp_path / "cohort.json").write_text(json.dumps(content))
    assert known_patients(tmp_path, "test", hashes) == sorted(trained)
    for subject in content["subjects"]:  # other people of the same names
        subject["source"]["image"]["sha256"] = subject["subject"]
    (tmp_path / "cohort.json").write_text(json.dumps(content))
    assert known_patients(tmp_path, "test", hashes) == []


class TestVolumes:
    """What a cohort's files hold is held against `cohort.json` when they are read."""

    @pytest.fixture
    def cohort(self, phantom_cohort: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(phantom_cohort, tmp_path / "cohort"))

    @pytest.mark.parametrize("part", ["images", "masks"])
    @pytest.mark.parametrize(
        ("shape", "dtype", "reason"),
        [
            ((3, 3, 2), np.uint8, r"found 2 × 3 × 3 voxels .* expected \d+ × \d+ × \d+ as cohort.json"),
            (None, np.int16, "missing or damaged"),
            (None, np.complex64, "missing or damaged"),
            ((3, 3), np.uint8, "missing or damaged"),
        ],
    )
    def test_of_another_shape_or_type_are_refused(
        self, part: str, shape: tuple[int, ...] | None, dtype: type, reason: str, cohort: Path
    ) -> None:
        subject = read_cohort(cohort).subjects[0]
        file = subject.images if part == "images" else str(subject.masks)
        voxels = np.zeros(shape or nib.load(cohort / file).shape, dtype)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), cohort / file)
        with pytest.raises(UsageError, match=reason):
            read_part(cohort, subject, file)

    def test_masks_hold_zeros_and_ones(self, cohort: Path) -> None:
        subject = read_cohort(cohort).subjects[0]
        path = cohort / str(subject.masks)
        nib.save(nib.Nifti1Image(np.full(nib.load(path).shape, 7, np.uint8), np.eye(4)), path)
        with pytest.raises(UsageError, match="missing or damaged"):
            read_mask(cohort, subject)

    def test_a_flipped_bit_is_told_by_the_checksum(self, cohort: Path) -> None:
        subject = read_cohort(cohort).subjects[0]
        packed = (cohort / subject.images).read_bytes()
        (cohort / subject.images).write_bytes(packed[:-8] + bytes(4) + packed[-4:])
        with pytest.raises(UsageError, match="missing or damaged"):
            read_part(cohort, subject, subject.images)

    @pytest.mark.parametrize("linked", ["file", "folder"])
    def test_links_that_lead_out_are_refused(self, linked: str, cohort: Path, tmp_path: Path) -> None:
        subject = read_cohort(cohort).subjects[0]
        inside = cohort / subject.images if linked == "file" else cohort / "images"
        inside.rename(tmp_path / "outside")
        inside.symlink_to(tmp_path / "outside")
        with pytest.raises(UsageError, match="is a link that leads out of the cohort"):
            read_part(cohort, subject, subject.images)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
    def test_pipes_are_not_waited_for(self, cohort: Path) -> None:
        subject = read_cohort(cohort).subjects[0]
        (cohort / subject.images).unlink()
        os.mkfifo(cohort / subject.images)
        with pytest.raises(UsageError, match="missing or damaged"):
            read_part(cohort, subject, subject.images)
