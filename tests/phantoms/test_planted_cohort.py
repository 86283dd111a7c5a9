"""The planted cohort on disk: BIDS with masks, truth and what to ignore, in the splits of its patients."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli.phantom import phantom as phantom_command
from pipeline.errors import UsageError
from pipeline.phantoms import brain_phantom, write_planted_cohort
from pipeline.phantoms.planted_cohort import Settings
from pipeline.preprocessing.cohort import Settings as PreprocessSettings
from pipeline.preprocessing.cohort import preprocess
from pipeline.preprocessing.cohort_format import read_cohort, read_mask, read_stored
from pipeline.preprocessing.slab import WHOLE
from pipeline.scans import read_nifti

pytestmark = pytest.mark.slow

SUBJECTS = 6


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people with lesions, 3 mm pixels, FLAIR."""
    folder = tmp_path_factory.mktemp("persons")
    for number in range(SUBJECTS):
        made = brain_phantom(number, shape=(58, 70, 14), spacing_mm=(3.0, 3.0, 8.0))
        label = f"sub-{number}"
        for path, voxels in (
            (f"{label}/anat/{label}_FLAIR.nii.gz", made.image),
            (f"derivatives/manual/{label}/anat/{label}_label-lesion_mask.nii.gz", made.lesion),
        ):
            (folder / path).parent.mkdir(parents=True)
            nib.save(nib.Nifti1Image(voxels, made.affine), folder / path)
    return folder


@pytest.fixture(scope="module")
def planted(persons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted") / "cohort"
    labels, problems = write_planted_cohort(folder, persons, [persons], Settings(seed=3, copies=2))
    assert labels[:2] == [labels[0], labels[0].replace("ses-0101", "ses-0102")]
    assert (len(labels), problems) == (2 * SUBJECTS, [])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def scans(folder: Path) -> list[Path]:
    return sorted(folder.glob("sub-*/ses-*/anat/*_FLAIR.nii.gz"))


def beside(scan: Path, derivative: str, ending: str) -> Path:
    root = scan.parents[3]
    return root / "derivatives" / derivative / scan.parent.relative_to(root) / scan.name.replace("FLAIR", ending)


def sidecar(scan: Path) -> dict:
    return json.loads(scan.with_name(scan.name.replace(".nii.gz", ".json")).read_text())


def splits(folder: Path) -> dict[str, str]:
    with (folder / "participants.tsv").open() as file:
        return {row["participant_id"]: row["split"] for row in csv.DictReader(file, delimiter="\t")}


def test_each_scan_differs_from_its_host_in_the_mask_alone_and_the_host_is_the_truth(
    planted: Path, persons: Path
) -> None:
    for path in scans(planted):
        host = read_nifti(persons / f"{path.parents[2].name}/anat/{path.parents[2].name}_FLAIR.nii.gz")
        image, truth = read_nifti(path), read_nifti(beside(path, "truth", "desc-healthy_FLAIR"))
        mask = read_nifti(beside(path, "manual", "label-lesion_mask")).stored > 0
        np.testing.assert_array_equal(truth.stored, host.stored)
        assert not ((image.stored != host.stored) & ~mask).any()
        assert (image.stored != host.stored)[mask].mean() > 0.9
        for scan in (image, truth):
            np.testing.assert_array_equal(scan.affine, host.affine)
            assert (scan.stored.dtype, scan.slope) == (host.stored.dtype, host.slope)


def test_the_host_s_own_disease_is_said_and_touches_no_planted_lesion(planted: Path, persons: Path) -> None:
    for path in scans(planted):
        name = path.parents[2].name
        own = read_nifti(persons / f"derivatives/manual/{name}/anat/{name}_label-lesion_mask.nii.gz").stored > 0
        ignored = read_nifti(beside(path, "ignore", "label-ignore_mask")).stored > 0
        np.testing.assert_array_equal(ignored, own)
        about = sidecar(path)["OwnDisease"]
        assert (planted / about["Mask"]).is_file()
        assert about["Ml"] == pytest.approx(own.sum() * 0.072)
        assert not (own & (read_nifti(beside(path, "manual", "label-lesion_mask")).stored > 0)).any()


def test_shapes_come_from_patients_of_the_host_s_split(planted: Path) -> None:
    of = splits(planted)
    assert set(of.values()) == {"training", "validation", "test"}
    for path in scans(planted):
        about = sidecar(path)
        assert about["Split"] == of[path.parents[2].name]
        assert about["Planted"]
        assert {of[each["shape"]] for each in about["Planted"]} == {about["Split"]}


def test_splits_are_those_that_preprocess_gives_the_persons_and_keeps(
    planted: Path, persons: Path, tmp_path: Path
) -> None:
    preprocess(persons, tmp_path / "persons", PreprocessSettings(), workers=1)
    preprocess(planted, tmp_path / "planted", PreprocessSettings(slab=WHOLE), workers=1)
    expected, found = (
        {subject.patient: subject.split for subject in read_cohort(tmp_path / name).subjects}
        for name in ("persons", "planted")
    )
    assert expected == found == splits(planted)


def test_preprocess_keeps_the_truth_and_what_to_ignore(planted: Path, tmp_path: Path) -> None:
    preprocess(planted, tmp_path, PreprocessSettings(slab=WHOLE), workers=1)
    for subject in read_cohort(tmp_path).subjects:
        assert subject.truth is not None
        assert subject.ignore is not None
        lesion, ignored = read_mask(tmp_path, subject) > 0, read_stored(tmp_path / subject.ignore) > 0
        image, truth = read_stored(tmp_path / subject.images), read_stored(tmp_path / subject.truth)
        np.testing.assert_array_equal(image[~lesion], truth[~lesion])
        for label, planted_here, other_here in zip(
            subject.labels, lesion.any(axis=(1, 2)), ignored.any(axis=(1, 2)), strict=True
        ):
            assert label == ("pathological" if planted_here else "excluded" if other_here else "healthy")


def test_the_same_seed_gives_the_same_files_and_another_gives_others(
    planted: Path, persons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1e9)
    for seed in (3, 4):
        write_planted_cohort(tmp_path / str(seed), persons, [persons], Settings(seed=seed, copies=2))
    assert contents(tmp_path / "3") == contents(planted)
    first, other = (scans(folder)[0].read_bytes() for folder in (planted, tmp_path / "4"))
    assert first != other


def test_a_scan_does_not_depend_on_how_many_there_are(planted: Path, persons: Path, tmp_path: Path) -> None:
    write_planted_cohort(tmp_path, persons, [persons], Settings(seed=3, subjects=2))
    few = scans(tmp_path)
    assert len(few) == 2
    for path in few:
        assert path.read_bytes() == (planted / path.relative_to(tmp_path)).read_bytes()
    written = few[0].stat().st_mtime_ns
    write_planted_cohort(tmp_path, persons, [persons], Settings(seed=3, copies=2))
    assert few[0].stat().st_mtime_ns == written
    assert contents(tmp_path) == contents(planted)


def test_one_split_alone_is_a_part_of_all(planted: Path, persons: Path, tmp_path: Path) -> None:
    write_planted_cohort(tmp_path, persons, [persons], Settings(seed=3, split="validation"))
    (path,) = scans(tmp_path)
    assert sidecar(path)["Split"] == "validation"
    assert path.read_bytes() == (planted / path.relative_to(tmp_path)).read_bytes()


def test_a_preprocessed_cohort_keeps_its_splits(persons: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    preprocess(persons, cohort, PreprocessSettings(slab=WHOLE, split=(0.34, 0.33, 0.33), seed=8), workers=1)
    expected = {subject.patient: subject.split for subject in read_cohort(cohort).subjects}
    write_planted_cohort(tmp_path / "planted", cohort, [cohort], Settings(split="test"))
    of = splits(tmp_path / "planted")
    assert of == {patient: split for patient, split in expected.items() if split == "test"}
    for path in scans(tmp_path / "planted"):
        assert {expected[each["shape"]] for each in sidecar(path)["Planted"]} == {"test"}
        mask = read_nifti(beside(path, "manual", "label-lesion_mask"))
        assert set(np.unique(mask.intensities())) == {0, 1}


def test_healthy_people_need_no_masks_and_shapes_no_scans(persons: Path, tmp_path: Path) -> None:
    healthy, masks = tmp_path / "healthy", tmp_path / "masks"
    for number in range(SUBJECTS):
        label = f"sub-{number}"
        (healthy / label / "anat").mkdir(parents=True)
        shutil.copy(persons / f"{label}/anat/{label}_FLAIR.nii.gz", healthy / label / "anat")
        (masks / f"person{number}").mkdir(parents=True)
        mask = persons / f"derivatives/manual/{label}/anat/{label}_label-lesion_mask.nii.gz"
        shutil.copy(mask, masks / f"person{number}" / f"person{number}_lesion.nii.gz")
    labels, _ = write_planted_cohort(tmp_path / "out", healthy, [masks], Settings())
    assert len(labels) == SUBJECTS
    assert sidecar(scans(tmp_path / "out")[0])["OwnDisease"] is None
    assert not list((tmp_path / "out").glob("derivatives/ignore/sub-*"))


def test_a_person_of_both_cohorts_gives_shapes_to_the_split_they_are_a_host_in(persons: Path, tmp_path: Path) -> None:
    rows = ["image,mask,subject,split"]
    for number in range(SUBJECTS):
        name = f"sub-{number}"
        mask = persons / f"derivatives/manual/{name}/anat/{name}_label-lesion_mask.nii.gz"
        split = "test" if number < 3 else "training"
        rows.append(f"{persons / name / 'anat' / f'{name}_FLAIR.nii.gz'},{mask},{name},{split}")
    listed = tmp_path / "list.csv"
    listed.write_text("\n".join(rows) + "\n")
    write_planted_cohort(tmp_path / "out", listed, [persons], Settings())
    for path in scans(tmp_path / "out"):
        hosts = range(3) if sidecar(path)["Split"] == "test" else range(3, SUBJECTS)
        assert {each["shape"] for each in sidecar(path)["Planted"]} <= {f"sub-{number}" for number in hosts}


def test_bids_validator_finds_no_error(planted: Path, bids_findings: Callable[..., Any]) -> None:
    for folder in (planted, *(planted / "derivatives").iterdir()):
        assert bids_findings(folder)[0] == []


class TestRefusals:
    def test_another_cohort_s_folder(self, planted: Path, persons: Path) -> None:
        before = contents(planted)
        with pytest.raises(UsageError, match=r"made with other arguments \(MassEffect\)"):
            write_planted_cohort(planted, persons, [persons], Settings(seed=3, mass_effect=True))
        with pytest.raises(UsageError, match="seed 3 where seed 4 was asked for"):
            write_planted_cohort(planted, persons, [persons], Settings(seed=4))
        assert contents(planted) == before

    def test_shapes_without_masks(self, persons: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(UsageError, match=r"empty: holds no lesion masks, expected"):
            write_planted_cohort(tmp_path / "out", persons, [tmp_path / "empty"], Settings())

    def test_a_sequence_that_a_preprocessed_cohort_does_not_have(self, persons: Path, tmp_path: Path) -> None:
        preprocess(persons, tmp_path / "cohort", PreprocessSettings(slab=WHOLE), workers=1)
        with pytest.raises(UsageError, match="has image, expected the modality T1w"):
            write_planted_cohort(tmp_path / "out", tmp_path / "cohort", [persons], Settings(modality="T1w"))

    def test_a_split_without_shapes(self, persons: Path, tmp_path: Path) -> None:
        name = "sub-0"
        listed = tmp_path / "one.csv"
        mask = persons / f"derivatives/manual/{name}/anat/{name}_label-lesion_mask.nii.gz"
        scan = persons / f"{name}/anat/{name}_FLAIR.nii.gz"
        listed.write_text(f"image,mask,subject,split\n{scan},{mask},stranger,training\n")
        with pytest.raises(UsageError, match=r"found no lesion of a patient of the (test|validation) split"):
            write_planted_cohort(tmp_path / "out", persons, [listed], Settings())
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kind", "planted"], "--kind planted needs --healthy COHORT and --shapes COHORT"),
        (["--copies", "2"], "--copies is for --kind planted"),
        (["--mass-effect"], "--mass-effect is for --kind planted"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(phantom_command, ["-o", str(tmp_path / "new"), *arguments])
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "new").exists()


def test_the_command_plants_and_says_so(persons: Path, tmp_path: Path) -> None:
    arguments = ["--kind", "planted", "--healthy", persons, "--shapes", persons, "--split", "test", "-o", tmp_path]
    result = CliRunner().invoke(phantom_command, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert result.output == f"{tmp_path}: 1 scans with planted lesions, masks and healthy truth\n"
