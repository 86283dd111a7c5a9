"""Phantoms in four sequences, with two kinds of lesion."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli.phantom import phantom as phantom_command
from pipeline.cohorts import find_cases
from pipeline.phantoms.brain import CONTRASTS, brain_phantom
from pipeline.phantoms.sequences import write_sequences_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sequences")
    done = CliRunner().invoke(phantom_command, ["-o", str(folder), "--kind", "sequences", "--subjects", "2"])
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.slow
def test_every_person_has_all_sequences_on_one_grid_and_a_kind_of_lesion(cohort: Path) -> None:
    found = find_cases(cohort, channels=tuple(CONTRASTS), target="lesion")
    assert [(case.subject, case.target) for case in found.cases] == [("sub-001", "dark"), ("sub-002", "bright")]
    for case in found.cases:
        volumes = [nib.load(path) for path in (case.image, *case.channels.values())]
        assert len(volumes) == 4
        assert len({(volume.shape, volume.affine.tobytes()) for volume in volumes}) == 1


@pytest.mark.slow
def test_more_subjects_leave_the_first_alone(cohort: Path) -> None:
    before = {path: path.read_bytes() for path in cohort.rglob("*.nii.gz")}
    assert write_sequences_cohort(cohort, 3, 0) == ["sub-001", "sub-002", "sub-003"]
    assert all(path.read_bytes() == held for path, held in before.items())
    with (cohort / "participants.tsv").open() as file:
        kinds = [row["lesion"] for row in csv.DictReader(file, delimiter="\t")]
    assert kinds == ["dark", "bright", "dark"]


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_a_dark_lesion_is_where_a_bright_one_would_be_and_changes_the_signal_the_other_way(contrast: str) -> None:
    bright, dark = (
        brain_phantom(0, (44, 52, 12), (4.0, 4.0, 10.0), contrast, lesions=kind) for kind in ("bright", "dark")
    )
    np.testing.assert_array_equal(bright.lesion, dark.lesion)
    np.testing.assert_array_equal(bright.healthy, dark.healthy)
    change = [(one.image.astype(int) - one.healthy)[one.lesion > 0].mean() for one in (bright, dark)]
    assert change[0] * change[1] < 0
    assert (change[0] < 0) == (contrast == "T1w")
