"""Phantoms in three modalities of different people, whose age can be seen."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli.phantom import phantom as phantom_command
from pipeline.cohorts import find_cases
from pipeline.errors import UsageError
from pipeline.phantoms.cross_modal import MODALITIES, write_cross_modal_cohort

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross")
    done = CliRunner().invoke(phantom_command, ["-o", str(folder), "--kind", "cross-modal", "--subjects", "3"])
    assert done.exit_code == 0, done.output
    return folder


def test_each_modality_is_a_dataset_of_other_people_with_ages(cohort: Path) -> None:
    cases = {name: find_cases(cohort / name, modality=name, target="age").cases for name in MODALITIES}
    assert [len(found) for found in cases.values()] == [3, 3, 3]
    ages = [case.target for found in cases.values() for case in found]
    assert len({case.patient for found in cases.values() for case in found}) == len(set(ages)) == 9
    assert all(isinstance(age, float) and 20 <= age <= 90 for age in ages)


def test_age_is_what_the_brain_shows(cohort: Path) -> None:
    with (cohort / "FLAIR/participants.tsv").open() as file:
        age = {row["participant_id"]: float(row["age"]) for row in csv.DictReader(file, delimiter="\t")}

    def fluid(label: str) -> float:
        voxels = np.asarray(nib.load(cohort / f"FLAIR/{label}/anat/{label}_FLAIR.nii.gz").dataobj)
        return float(np.mean(voxels[voxels > 0] < 330))

    assert sorted(age, key=lambda label: age[label]) == sorted(age, key=fluid)


def test_the_same_people_can_be_drawn_in_the_contrast_of_the_target(cohort: Path, tmp_path: Path) -> None:
    write_cross_modal_cohort(tmp_path, 1, 0, contrast="FLAIR")
    path = "T2w/derivatives/manual/sub-T2w001/anat/sub-T2w001_label-lesion_mask.nii.gz"
    assert (tmp_path / path).read_bytes() == (cohort / path).read_bytes()
    name = "sub-T2w001/anat/sub-T2w001_"
    flair, t2 = (
        np.asarray(nib.load(root / f"T2w/{name}{contrast}.nii.gz").dataobj)
        for root, contrast in ((tmp_path, "FLAIR"), (cohort, "T2w"))
    )
    np.testing.assert_array_equal(flair > 0, t2 > 0)
    fluid = t2 > 880
    assert np.median(flair[fluid]) < 300 < np.median(flair[(t2 > 0) & ~fluid])


def test_more_subjects_leave_the_first_alone_and_another_seed_is_refused(cohort: Path, tmp_path: Path) -> None:
    made = write_cross_modal_cohort(tmp_path, 1, 0)
    assert made == {name: [f"sub-{name}001"] for name in MODALITIES}
    for path in tmp_path.rglob("*.nii.gz"):
        assert path.read_bytes() == (cohort / path.relative_to(tmp_path)).read_bytes()
    with pytest.raises(UsageError, match="seed 0 where seed 1 was asked"):
        write_cross_modal_cohort(tmp_path, 1, 1)
