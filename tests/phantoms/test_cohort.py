"""The phantom cohort on disk: a BIDS dataset that the same seed makes again, byte for byte."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli.phantom import phantom as phantom_command
from pipeline.errors import UsageError
from pipeline.phantoms.cohort import write_phantom_cohort

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cohort")
    assert write_phantom_cohort(directory, subjects=2, seed=7) == ["sub-001", "sub-002"]
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_the_tree_is_bids_with_masks_and_truth_as_derivatives(cohort: Path) -> None:
    expected = {"README", "dataset_description.json", "participants.tsv"}
    for derivative in ("derivatives/manual", "derivatives/truth"):
        expected |= {f"{derivative}/README", f"{derivative}/dataset_description.json"}
    for label in ("sub-001", "sub-002"):
        for stem in (
            f"{label}/anat/{label}_FLAIR",
            f"derivatives/manual/{label}/anat/{label}_label-lesion_mask",
            f"derivatives/truth/{label}/anat/{label}_desc-healthy_FLAIR",
        ):
            expected |= {f"{stem}.nii.gz", f"{stem}.json"}
    assert set(contents(cohort)) == expected
    assert (cohort / "participants.tsv").read_text() == "participant_id\nsub-001\nsub-002\n"


def test_descriptions_say_synthetic_free_to_use_and_who_generated_what(cohort: Path) -> None:
    raw = json.loads((cohort / "dataset_description.json").read_text())
    assert "synthetic" in raw["Name"].lower()
    assert (raw["License"], raw["DatasetType"]) == ("CC0", "raw")
    assert raw["BIDSVersion"]
    for derivative in ("manual", "truth"):
        description = json.loads((cohort / "derivatives" / derivative / "dataset_description.json").read_text())
        assert description["DatasetType"] == "derivative"
        assert description["GeneratedBy"][0]["Name"] == "phs-pipeline phantom"
        assert description["GeneratedBy"][0]["Seed"] == 7


def test_sidecars_point_derivatives_to_their_scan(cohort: Path) -> None:
    for sidecar in cohort.glob("derivatives/*/sub-*/anat/*.json"):
        content = json.loads(sidecar.read_text())
        assert content["SkullStripped"] is True
        (source,) = content["Sources"]
        assert (cohort / source.removeprefix("bids:raw:")).is_file()


def test_geometry_is_declared_by_both_codes_in_millimetres_on_one_grid(cohort: Path) -> None:
    for path in cohort.rglob("*.nii.gz"):
        image = nib.load(path)
        assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
        assert image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(image.header.get_zooms(), [2, 2, 5])
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_stored_truth_equals_the_stored_scan_wherever_the_mask_is_zero(cohort: Path) -> None:
    for label in ("sub-001", "sub-002"):
        scan, truth, mask = (
            np.asarray(nib.load(cohort / name).dataobj)
            for name in (
                f"{label}/anat/{label}_FLAIR.nii.gz",
                f"derivatives/truth/{label}/anat/{label}_desc-healthy_FLAIR.nii.gz",
                f"derivatives/manual/{label}/anat/{label}_label-lesion_mask.nii.gz",
            )
        )
        assert (scan.dtype, truth.dtype, mask.dtype) == (np.int16, np.int16, np.uint8)
        np.testing.assert_array_equal(scan != truth, mask == 1)
        assert mask.any()


@pytest.mark.slow
def test_same_seed_same_bytes_at_another_time(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_phantom_cohort(tmp_path / "again", subjects=2, seed=7)
    assert contents(tmp_path / "again") == contents(cohort)


@pytest.mark.slow
def test_other_seed_other_scans(cohort: Path, tmp_path: Path) -> None:
    write_phantom_cohort(tmp_path, subjects=1, seed=8)
    name = "sub-001/anat/sub-001_FLAIR.nii.gz"
    assert (tmp_path / name).read_bytes() != (cohort / name).read_bytes()


def test_subjects_differ_from_one_another(cohort: Path) -> None:
    first, second = (nib.load(p).get_fdata() for p in sorted(cohort.glob("sub-*/anat/*.nii.gz")))
    assert (first != second).any()


@pytest.mark.slow
def test_a_subject_does_not_depend_on_how_many_there_are(cohort: Path, tmp_path: Path) -> None:
    write_phantom_cohort(tmp_path, subjects=1, seed=7)
    first = tmp_path / "sub-001/anat/sub-001_FLAIR.nii.gz"
    written = first.stat().st_mtime_ns
    write_phantom_cohort(tmp_path, subjects=2, seed=7)
    assert first.stat().st_mtime_ns == written
    assert contents(tmp_path) == contents(cohort)


@pytest.mark.slow
def test_missing_files_are_written_again_and_no_subject_is_forgotten(cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(cohort, tmp_path, dirs_exist_ok=True)
    (tmp_path / "derivatives/truth/sub-001/anat/sub-001_desc-healthy_FLAIR.nii.gz").unlink()
    assert write_phantom_cohort(tmp_path, subjects=1, seed=7) == ["sub-001"]
    assert contents(tmp_path) == contents(cohort)


@pytest.mark.parametrize("description", [None, "{}", "not json", '{"GeneratedBy": [{"Name": "fMRIPrep"}]}', "[]"])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path, description: str | None) -> None:
    (tmp_path / "patients.csv").write_text("id\n1\n")
    if description is not None:
        (tmp_path / "dataset_description.json").write_text(description)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="not a phantom cohort"):
        write_phantom_cohort(tmp_path, subjects=1, seed=0)
    assert contents(tmp_path) == before


def test_the_cohort_of_another_seed_is_refused(cohort: Path) -> None:
    before = contents(cohort)
    with pytest.raises(UsageError, match="seed 7 where seed 8 was asked for"):
        write_phantom_cohort(cohort, subjects=1, seed=8)
    assert contents(cohort) == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.nii").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        write_phantom_cohort(tmp_path / "scan.nii", subjects=1, seed=0)


@pytest.mark.slow
def test_hidden_files_of_the_operating_system_do_not_make_a_folder_foreign(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("")
    assert write_phantom_cohort(tmp_path, subjects=1, seed=0) == ["sub-001"]


@pytest.mark.slow
def test_the_command_writes_the_same_cohort_and_says_so_in_one_line(cohort: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(phantom_command, ["-o", str(tmp_path), "--subjects", "2", "--seed", "7"])
    assert result.exit_code == 0
    assert result.output.count("\n") == 1
    assert "sub-001 to sub-002" in result.output
    assert contents(tmp_path) == contents(cohort)


@pytest.mark.parametrize("arguments", [["--subjects", "0"], ["--seed", "-1"]])
def test_the_command_refuses_numbers_that_make_no_cohort(tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(phantom_command, ["-o", str(tmp_path / "new"), *arguments])
    assert result.exit_code == 2
    assert not (tmp_path / "new").exists()
