"""From a folder of scans to a cohort ready for training: what is in it, and that it is always the same."""

import csv
import errno
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.errors import OutputError, UsageError
from pipeline.files import MACHINE, PARTIAL
from pipeline.preprocessing.cohort import Preprocessed, Settings, preprocess, preprocess_share
from pipeline.preprocessing.cohort_format import read_cohort, read_stored, stored_shape
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule
from pipeline.scans.nifti import MARK

WHOLE = Slab(thickness_mm=None)
ALL_SLICES = Settings(slab=WHOLE)
LPS_OBLIQUE = np.eye(4)
LPS_OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (8, -5, 11), degrees=True).as_matrix() @ np.diag([-0.9, -1.1, 5])
LPS_OBLIQUE[:3, 3] = (80, 100, -40)
ABSENT = object()
SAGITTAL = np.array([[0, 0, 4.0, -30], [-1, 0, 0, 60], [0, -1.5, 0, 45], [0, 0, 0, 1]])


def lay(
    root: Path,
    name: str,
    lesion_slices: tuple[int, ...] = (1, 2),
    affine: NDArray[np.float64] = LPS_OBLIQUE,
    shape: tuple[int, int, int] = (12, 14, 8),
    healthy: bool = False,
) -> None:
    """One subject in BIDS, with 16 lesion voxels in each of `lesion_slices` of the file's last axis."""
    session = name.replace("_", "/")
    rng = np.random.default_rng(list(name.encode()))
    image = rng.integers(0, 4000, shape, dtype=np.int16)
    mask = np.zeros(shape, np.uint8)
    mask[3:7, 5:9, list(lesion_slices)] = 1
    files = {f"{session}/anat/{name}_FLAIR.nii.gz": image,
             f"derivatives/manual/{session}/anat/{name}_label-lesion_mask.nii.gz": mask}  # fmt: skip
    if healthy:
        truth = np.where(mask, 100, image).astype(np.int16)
        files[f"derivatives/truth/{session}/anat/{name}_desc-healthy_FLAIR.nii.gz"] = truth
    for file, voxels in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, affine), root / file)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Five patients: oblique, sagittal, with sessions, one with known truth."""
    root = tmp_path / "cohort"
    lay(root, "sub-01", healthy=True)
    lay(root, "sub-02", affine=SAGITTAL)
    lay(root, "sub-03_ses-1")
    lay(root, "sub-03_ses-2", lesion_slices=(0, 4, 5))
    lay(root, "sub-04", lesion_slices=(6,))
    lay(root, "sub-05")
    return root


def run(cohort: Path, directory: Path, settings: Settings = ALL_SLICES, **more: Any) -> Preprocessed:
    return preprocess(cohort, directory, settings, workers=more.pop("workers", 1), **more)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def table(directory: Path) -> list[dict[str, str]]:
    with (directory / "slices.csv").open() as file:
        return list(csv.DictReader(file))


class TestFolder:
    def test_holds_volumes_records_and_tables_and_nothing_else(self, cohort: Path, tmp_path: Path) -> None:
        result = run(cohort, tmp_path / "out")
        subjects = ["sub-01", "sub-02", "sub-03_ses-1", "sub-03_ses-2", "sub-04", "sub-05"]
        assert sorted(contents(tmp_path / "out")) == sorted(
            [
                "cohort.json",
                "settings.json",
                "slices.csv",
                "truth/sub-01.nii.gz",
                *(f"{folder}/{subject}.nii.gz" for folder in ("images", "masks") for subject in subjects),
                *(f"subjects/{subject}.json" for subject in subjects),
            ]
        )
        assert [subject.subject for subject in result.subjects] == subjects
        assert result.problems == []
        assert read_cohort(tmp_path / "out").subjects == result.subjects

    @pytest.mark.parametrize("subject", ["sub-01", "sub-02"])
    def test_volumes_lie_in_space_where_the_source_lies(self, subject: str, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out", Settings(slab=Slab(slices=5, thickness_mm=None)))
        made = nib.load(tmp_path / "out" / "images" / f"{subject}.nii.gz")
        source = nib.load(cohort / subject / "anat" / f"{subject}_FLAIR.nii.gz")
        places = np.stack(np.meshgrid(*map(np.arange, made.shape), indexing="ij"), axis=-1)
        in_source = apply_affine(np.linalg.inv(source.affine) @ made.affine, places)
        nearest = np.rint(in_source).astype(int)
        np.testing.assert_allclose(in_source, nearest, atol=1e-4)
        stored = np.asarray(source.dataobj)
        high = np.percentile(stored, 99.5)
        expected = np.clip(stored[tuple(np.moveaxis(nearest, -1, 0))] / high, 0, 1)
        np.testing.assert_allclose(np.asarray(made.dataobj), expected, atol=1 / 65535)
        assert nib.aff2axcodes(made.affine) == ("R", "A", "S")
        assert made.shape[2] == 5
        mask = nib.load(tmp_path / "out" / "masks" / f"{subject}.nii.gz")
        np.testing.assert_array_equal(mask.affine, made.affine)

    def test_volumes_are_in_0_1_and_the_window_is_recorded(self, cohort: Path, tmp_path: Path) -> None:
        for subject in run(cohort, tmp_path / "out").subjects:
            values = np.asarray(nib.load(tmp_path / "out" / subject.images).dataobj)
            assert 0 <= values.min() < 0.01
            assert 1 - 1e-7 < values.max() <= 1
            source = next(cohort.rglob(f"{subject.subject}_FLAIR.nii.gz"))
            high = np.percentile(np.asarray(nib.load(source).dataobj), 99.5)
            assert list(subject.window) == [0, pytest.approx(high)]

    def test_fixed_window(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out", Settings(slab=WHOLE, window=WindowRule(fixed=(1000, 3000))))
        source = nib.as_closest_canonical(nib.load(cohort / "sub-05/anat/sub-05_FLAIR.nii.gz"))
        expected = np.clip((np.asarray(source.dataobj) - 1000.0) / 2000, 0, 1)
        made = np.asarray(nib.load(tmp_path / "out/images/sub-05.nii.gz").dataobj)
        np.testing.assert_allclose(made, expected, atol=1 / 65535)

    def test_slices_csv_is_what_the_masks_of_the_source_say(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out", Settings(slab=Slab(slices=6, thickness_mm=None)))
        rows = table(tmp_path / "out")
        for path in sorted((cohort / "derivatives/manual").rglob("*_mask.nii.gz")):
            mask = nib.as_closest_canonical(nib.load(path))
            x, y, _ = mask.header.get_zooms()
            areas = np.asarray(mask.dataobj).sum(axis=(0, 1)) * float(x) * float(y)
            first = (len(areas) - 6) // 2
            subject = path.name.removesuffix("_label-lesion_mask.nii.gz")
            mine = [row for row in rows if row["subject"] == subject]
            assert [int(row["slice"]) for row in mine] == list(range(6))
            assert [float(row["lesion_mm2"]) for row in mine] == pytest.approx(areas[first : first + 6], abs=2e-3)
            assert [row["label"] for row in mine] == [
                "pathological" if area else "healthy" for area in areas[first : first + 6]
            ]

    def test_counts_are_those_of_the_table(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out")
        rows = table(tmp_path / "out")
        for split, count in read_cohort(tmp_path / "out").counts.model_dump().items():
            mine = [row for row in rows if row["split"] == split]
            assert count["patients"] == len({row["patient"] for row in mine}) > 0
            for label in ("healthy", "pathological", "excluded"):
                assert count[label] == sum(row["label"] == label for row in mine)

    def test_slab_in_millimetres_is_measured_across_the_axial_slices(self, cohort: Path, tmp_path: Path) -> None:
        subjects = run(cohort, tmp_path / "out", Settings(slab=Slab(thickness_mm=15))).subjects
        kept = {subject.subject: len(subject.labels) for subject in subjects}
        assert kept["sub-01"] == 3  # 5 mm
        assert kept["sub-02"] == 10  # sagittal: 1.5 mm along the file's second axis

    def test_small_lesions_are_neither_healthy_nor_pathological(self, cohort: Path, tmp_path: Path) -> None:
        mask = cohort / "derivatives/manual/sub-05/anat/sub-05_label-lesion_mask.nii.gz"
        image = nib.load(mask)
        voxels = np.asarray(image.dataobj).copy()
        voxels[0, 0, 7] = 1  # 0.99 mm²
        nib.save(nib.Nifti1Image(voxels, image.affine), mask)
        run(cohort, tmp_path / "out", Settings(slab=WHOLE, min_lesion_mm2=5))
        labels = [row["label"] for row in table(tmp_path / "out") if row["subject"] == "sub-05"]
        assert labels == ["healthy", "pathological", "pathological", *["healthy"] * 4, "excluded"]

    def test_truth_is_windowed_as_the_scan_is(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out")
        image, truth, mask = (
            np.asarray(nib.load(tmp_path / "out" / folder / "sub-01.nii.gz").dataobj)
            for folder in ("images", "truth", "masks")
        )
        np.testing.assert_array_equal(image[mask == 0], truth[mask == 0])
        assert len(set(truth[mask == 1])) == 1


class TestSplits:
    @pytest.mark.parametrize("seed", range(4))
    def test_sessions_of_a_patient_stay_together(self, seed: int, tmp_path: Path) -> None:
        for patient in range(5):
            for session in range(2):
                lay(tmp_path / "cohort", f"sub-{patient}_ses-{session}", shape=(8, 9, 4))
        settings = Settings(slab=WHOLE, seed=seed, split=(0.4, 0.3, 0.3))
        subjects = run(tmp_path / "cohort", tmp_path / "out", settings).subjects
        assert len(subjects) == 10
        assert len({(subject.patient, subject.split) for subject in subjects}) == 5
        assert {subject.split for subject in subjects} == {"training", "validation", "test"}

    def test_splits_of_a_datalist_are_honoured(self, cohort: Path, tmp_path: Path) -> None:
        given = {"sub-01": "test", "sub-02": "training", "sub-04": "validation", "sub-05": "training"}
        lists: dict[str, list[dict[str, str]]] = {}
        for subject, split in given.items():
            (image,), (mask,) = cohort.rglob(f"{subject}_FLAIR.nii.gz"), cohort.rglob(f"{subject}_label*")
            lists.setdefault(split, []).append({"image": str(image), "mask": str(mask), "subject": subject})
        (tmp_path / "list.json").write_text(json.dumps(lists))
        subjects = run(tmp_path / "list.json", tmp_path / "out").subjects
        assert {subject.subject: subject.split for subject in subjects} == given

    @pytest.mark.parametrize("split", [(0.5, 0.5, 0.5), (0.7, 0.15, float("nan"))])
    def test_shares_that_are_none_are_told_before_anything_is_written(
        self, split: tuple[float, float, float], cohort: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match="three shares that sum to 1"):
            run(cohort, tmp_path / "out", Settings(split=split))
        assert not (tmp_path / "out").exists()

    def test_what_was_assumed_of_a_scan_s_place_is_told(self, cohort: Path, tmp_path: Path) -> None:
        path = next(path for path in sorted(cohort.rglob("*_FLAIR.nii.gz")) if "derivatives" not in path.parts)
        image = nib.load(path)
        image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
        image.set_sform(image.affine, 1)
        moved = image.affine.copy()
        moved[0, 3] += 30
        image.header.set_qform(moved, 1)
        nib.save(image, path)
        notes = run(cohort, tmp_path / "out").notes
        assert f"{path.name}: the header's qform and sform lie up to 30 mm apart; the sform was taken" in notes

    def test_one_patient_cannot_be_split(self, tmp_path: Path) -> None:
        lay(tmp_path / "cohort", "sub-01_ses-1")
        lay(tmp_path / "cohort", "sub-01_ses-2")
        with pytest.raises(UsageError, match="found 1 patient"):
            run(tmp_path / "cohort", tmp_path / "out")
        subjects = run(tmp_path / "cohort", tmp_path / "out", Settings(slab=WHOLE, split=(1, 0, 0))).subjects
        assert {subject.split for subject in subjects} == {"training"}


def spoil(cohort: Path) -> dict[str, str]:
    """Add scans that cannot be used; their subjects and what is said about each."""
    expected = {}

    def image_of(name: str) -> Path:
        return cohort / name / "anat" / f"{name}_FLAIR.nii.gz"

    def mask_of(name: str) -> Path:
        return cohort / "derivatives/manual" / name / "anat" / f"{name}_label-lesion_mask.nii.gz"

    for name, reason in (
        ("sub-11", "has no lesion mask"),
        ("sub-12", "the mask has shape (12, 14, 9), expected (12, 14, 8)"),
        ("sub-13", "mm away from the scan"),
        ("sub-14", "the mask is empty"),
        ("sub-15", "truncated or damaged"),
        ("sub-16", "no readable header"),
        ("sub-17", "constant volume"),
        ("sub-18", "at or below zero"),
        ("sub-19", "the healthy truth has shape"),
    ):
        lay(cohort, name, healthy=name == "sub-19")
        expected[name] = reason
    mask_of("sub-11").unlink()
    nib.save(nib.Nifti1Image(np.ones((12, 14, 9), np.uint8), LPS_OBLIQUE), mask_of("sub-12"))
    nib.save(nib.Nifti1Image(np.ones((12, 14, 8), np.uint8), SAGITTAL), mask_of("sub-13"))
    nib.save(nib.Nifti1Image(np.zeros((12, 14, 8), np.uint8), LPS_OBLIQUE), mask_of("sub-14"))
    image_of("sub-15").write_bytes(image_of("sub-15").read_bytes()[:1500])
    mask_of("sub-16").write_text("lost")
    nib.save(nib.Nifti1Image(np.ones((12, 14, 8), np.int16), LPS_OBLIQUE), image_of("sub-17"))
    cold = np.random.default_rng(0).integers(-1000, 0, (12, 14, 8), dtype=np.int16)
    nib.save(nib.Nifti1Image(cold, LPS_OBLIQUE), image_of("sub-18"))
    (truth,) = (cohort / "derivatives/truth").rglob("sub-19_*")
    nib.save(nib.Nifti1Image(np.ones((12, 14, 9), np.int16) * cold[..., :1], LPS_OBLIQUE), truth)
    return expected


class TestProblems:
    def test_each_unusable_scan_is_told_and_the_others_are_done(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "alone")
        expected = spoil(cohort)
        result = run(cohort, tmp_path / "out")
        assert [problem.subject for problem in result.problems] == sorted(expected)
        for problem in result.problems:
            assert expected[problem.subject] in problem.reason
            assert str(cohort) in problem.reason
            assert "\n" not in problem.reason
        assert contents(tmp_path / "out") == contents(tmp_path / "alone")  # nothing of the failed ones

    def test_file_that_may_not_be_read_is_a_problem_of_its_scan(
        self, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = Path.open

        def refuse(path: Path, *args: Any, **more: Any) -> Any:
            if path.name == "sub-04_FLAIR.nii.gz":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return opened(path, *args, **more)

        monkeypatch.setattr(Path, "open", refuse)
        result = run(cohort, tmp_path / "out")
        assert [problem.subject for problem in result.problems] == ["sub-04"]
        assert "sub-04_FLAIR.nii.gz: cannot be read (Permission denied)" in result.problems[0].reason
        assert len(result.subjects) == 5

    def test_synthetic_images_are_left_out_unless_they_are_asked_for(self, cohort: Path, tmp_path: Path) -> None:
        path = next(cohort.glob("sub-05/**/*_FLAIR.nii.gz"))
        made = nib.load(path)
        made.header["descrip"] = MARK
        nib.save(nib.Nifti1Image(np.asarray(made.dataobj), made.affine, made.header), path)
        without, told = run(cohort, tmp_path / "without"), replace(ALL_SLICES, synthetic=True)
        assert len(run(cohort, tmp_path / "with", told).subjects) == len(without.subjects) + 1
        ((subject, reason),) = [(problem.subject, problem.reason) for problem in without.problems]
        assert subject == "sub-05"
        assert "is synthetic, as its header says, expected a scan of a scanner" in reason
        assert "give --synthetic" in reason

    def test_nothing_usable_names_the_reasons(self, tmp_path: Path) -> None:
        for name in ("sub-01", "sub-02", "sub-03"):
            lay(tmp_path / "cohort", name, lesion_slices=())
        with pytest.raises(UsageError, match=r"no usable scan in this bids cohort .*the mask is empty"):
            run(tmp_path / "cohort", tmp_path / "out")
        assert not (tmp_path / "out" / "cohort.json").exists()

    @pytest.mark.parametrize(("lesion_slices", "label"), [(range(8), "healthy"), ((0,), "pathological")])
    def test_slices_of_one_kind_only_are_told_of_and_taken(
        self, lesion_slices: tuple[int, ...], label: str, tmp_path: Path
    ) -> None:
        for name in ("sub-01", "sub-02", "sub-03"):
            lay(tmp_path / "cohort", name, lesion_slices=tuple(lesion_slices))
        result = run(tmp_path / "cohort", tmp_path / "out", Settings(slab=Slab(slices=4, thickness_mm=None)))
        (note,) = result.notes
        assert f"found no {label} slice in any scan, so methods that need some cannot be trained" in note
        assert {found for subject in result.subjects for found in subject.labels} == {"healthy", "pathological"} - {
            label
        }


class TestOutput:
    def test_other_settings_are_refused_and_change_nothing(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out")
        before = contents(tmp_path / "out")
        with pytest.raises(UsageError, match=r"made with other settings \(seed, slab\); .* --overwrite"):
            run(cohort, tmp_path / "out", Settings(seed=1))
        assert contents(tmp_path / "out") == before

    def test_overwrite_gives_what_a_new_folder_gives(self, cohort: Path, tmp_path: Path) -> None:
        other = Settings(slab=Slab(slices=4, thickness_mm=None), seed=1)
        run(cohort, tmp_path / "out")
        run(cohort, tmp_path / "out", other, overwrite=True)
        run(cohort, tmp_path / "new", other)
        assert contents(tmp_path / "out") == contents(tmp_path / "new")

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize("name", ["thesis.docx", "settings.json"])
    def test_folder_of_something_else_is_left_alone(
        self, name: str, overwrite: bool, cohort: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).write_text("{}")
        with pytest.raises(UsageError, match="is no cohort of ours, expected a new or empty folder"):
            run(cohort, tmp_path / "out", overwrite=overwrite)
        assert contents(tmp_path / "out") == {name: b"{}"}

    def test_path_below_a_file_is_refused(self, cohort: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot be written"):
            run(cohort, tmp_path / "file" / "out")

    def test_scans_that_left_the_cohort_leave_the_folder(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out")
        for path in cohort.rglob("sub-01_label-lesion_mask.nii.gz"):
            path.unlink()
        run(cohort, tmp_path / "out")
        run(cohort, tmp_path / "new")
        old, new = contents(tmp_path / "out"), contents(tmp_path / "new")
        tables = {"cohort.json", "slices.csv"}  # which tell the splits: those of before are kept
        assert old.keys() == new.keys()
        assert {name: old[name] for name in old.keys() - tables} == {name: new[name] for name in new.keys() - tables}

    def test_scans_that_changed_are_done_again(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out")
        lay(cohort, "sub-05", lesion_slices=(3,))
        run(cohort, tmp_path / "out")
        run(cohort, tmp_path / "new")
        assert contents(tmp_path / "out") == contents(tmp_path / "new")

    @pytest.mark.slow
    @pytest.mark.parametrize("cores", [1, 2])
    def test_full_disk_ends_the_run_with_nothing_half_written(self, cores: int, cohort: Path, small_disk: Path) -> None:
        for number in range(20):
            lay(cohort, f"sub-2{number}", shape=(24, 24, 8))
        with pytest.raises(OutputError, match="no space is left on the device"):
            run(cohort, small_disk / "out", workers=cores)
        for path in (small_disk / "out").rglob("*"):
            assert PARTIAL not in path.name
            if path.name.endswith(".nii.gz"):
                np.asarray(nib.load(path).dataobj)
            elif path.suffix == ".json":
                json.loads(path.read_text())
        assert not (small_disk / "out" / "cohort.json").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


class TestContinues:
    @pytest.mark.slow
    def test_number_of_processes_changes_no_byte(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "one", workers=1)
        run(cohort, tmp_path / "two", workers=2)
        assert contents(tmp_path / "one") == contents(tmp_path / "two")

    def test_shares_and_a_call_after_them_give_what_one_run_gives(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "one")
        out = tmp_path / "shared"
        counts = [preprocess_share(cohort, out, ALL_SLICES, (part, 3), workers=1)[0] for part in range(3)]
        assert sum(counts) == len(list((out / "images").iterdir()))
        assert max(counts) - min(counts) <= 1
        assert not (out / "cohort.json").exists()
        times = {path: path.stat().st_mtime_ns for path in (out / "images").iterdir()}
        run(cohort, out)
        assert {path: path.stat().st_mtime_ns for path in times} == times
        assert contents(out) == contents(tmp_path / "one")

    @pytest.mark.slow
    def test_a_share_leaves_alone_what_another_is_writing(self, cohort: Path, tmp_path: Path) -> None:
        first, half = (tmp_path / "out" / name / f"{PARTIAL}00000000-1-abcdefgh-of-another" for name in ("", "images"))
        first.parent.mkdir()
        first.touch()
        preprocess_share(cohort, tmp_path / "out", ALL_SLICES, (0, 2), workers=1)
        half.touch()
        preprocess_share(cohort, tmp_path / "out", ALL_SLICES, (1, 2), workers=2)
        assert first.exists()
        assert half.exists()

    def test_place_of_the_cohort_changes_no_byte(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "before")
        run(cohort.rename(tmp_path / "moved"), tmp_path / "after")
        assert contents(tmp_path / "before") == contents(tmp_path / "after")

    def test_finished_scans_are_not_done_again(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out")
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").iterdir()}
        run(cohort, tmp_path / "out")
        assert {path: path.stat().st_mtime_ns for path in times} == times

    def test_another_split_needs_no_scan_again(self, cohort: Path, tmp_path: Path) -> None:
        settings = Settings(slab=WHOLE)
        run(cohort, tmp_path / "out", settings)
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").iterdir()}
        run(cohort, tmp_path / "out", replace(settings, seed=5), overwrite=True)
        assert {path: path.stat().st_mtime_ns for path in times} == times

    @pytest.mark.parametrize("lost", ["images/sub-01.nii.gz", "truth/sub-01.nii.gz", "subjects/sub-01.json"])
    def test_lost_files_are_made_again(self, lost: str, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out")
        before = contents(tmp_path / "out")
        (tmp_path / "out" / lost).unlink()
        run(cohort, tmp_path / "out")
        assert contents(tmp_path / "out") == before

    @pytest.mark.parametrize("folder", ["images", "masks", "truth"])
    def test_volumes_cut_short_by_a_power_cut_are_made_again(self, folder: str, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out")
        before = contents(tmp_path / "out")
        volume = tmp_path / "out" / folder / "sub-01.nii.gz"
        volume.write_bytes(volume.read_bytes()[:-20])
        run(cohort, tmp_path / "out")
        assert contents(tmp_path / "out") == before

    def test_record_cut_short_by_a_power_cut_is_made_again(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out")
        before = contents(tmp_path / "out")
        (tmp_path / "out/subjects/sub-01.json").write_text("")
        run(cohort, tmp_path / "out")
        assert contents(tmp_path / "out") == before

    def test_interrupted_run_is_not_taken_for_a_finished_one(
        self, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(cohort, tmp_path / "out")

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(cohort, tmp_path / "out", Settings(slab=WHOLE, seed=9), overwrite=True, progress=stop)
        with pytest.raises(UsageError, match=r"holds no readable cohort\.json"):
            read_cohort(tmp_path / "out")

    def test_run_that_did_not_get_through_is_started_again_with_other_settings(
        self, cohort: Path, tmp_path: Path
    ) -> None:
        images = [next(cohort.rglob(f"sub-0{number}_FLAIR.nii.gz")) for number in (1, 2, 4, 5)]
        whole = {path: path.read_bytes() for path in images}
        for path in images:
            path.write_bytes(whole[path][:100])
        with pytest.raises(UsageError, match="found 1 patient"):
            run(cohort, tmp_path / "out", Settings(slab=Slab(slices=2, thickness_mm=None)))
        for path in images:
            path.write_bytes(whole[path])
        run(cohort, tmp_path / "out", ALL_SLICES)
        run(cohort, tmp_path / "new", ALL_SLICES)
        assert contents(tmp_path / "out") == contents(tmp_path / "new")

    @pytest.mark.slow
    def test_killed_process_is_told(self, tmp_path: Path) -> None:
        for number in range(12):
            lay(tmp_path / "cohort", f"sub-{number:02d}", shape=(64, 64, 24))

        def kill_a_worker(done: int, total: int) -> None:
            if done == 1:
                worker = multiprocessing.active_children()[0]
                half = f"{PARTIAL}{MACHINE}-{worker.pid}-0a1b2c3d-sub-11.nii.gz"
                (tmp_path / "out" / "images" / half).write_bytes(b"half")
                worker.kill()

        with pytest.raises(UsageError, match=r"a process was killed, most likely because memory ran out; .*--workers"):
            run(tmp_path / "cohort", tmp_path / "out", workers=2, progress=kill_a_worker)
        assert not list((tmp_path / "out").rglob(f"{PARTIAL}*"))
        assert not (tmp_path / "out" / "cohort.json").exists()

    @pytest.mark.slow
    def test_killed_run_is_continued_to_the_same_bytes(self, tmp_path: Path) -> None:
        for number in range(20):
            lay(tmp_path / "cohort", f"sub-{number:02d}", shape=(64, 64, 24))
        out = tmp_path / "out"
        program = (
            "from pathlib import Path; from pipeline.preprocessing.cohort import Settings, Slab, preprocess\n"
            f"if __name__ == '__main__': preprocess(Path({str(tmp_path / 'cohort')!r}), Path({str(out)!r}), "
            "Settings(slab=Slab(thickness_mm=None)), workers=2)"
        )
        (tmp_path / "program.py").write_text(program)
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        killed = subprocess.Popen([sys.executable, tmp_path / "program.py"], env=environment, start_new_session=True)
        wait_until(lambda: len(list((out / "subjects").glob("sub-*.json"))) >= 3 or killed.poll() is not None)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
        assert not (out / "cohort.json").exists()
        wait_until(lambda: not processes_of_session(killed.pid))  # none is left waiting for work
        finished = list((out / "subjects").glob("sub-*.json"))
        assert 3 <= len(finished) < 20
        times = {path: path.stat().st_mtime_ns for path in finished}
        (out / "images" / f"{PARTIAL}0a1b2c3d-sub-19.nii.gz").write_bytes(b"half")

        run(tmp_path / "cohort", out)
        assert {path: path.stat().st_mtime_ns for path in finished} == times
        run(tmp_path / "cohort", tmp_path / "uninterrupted")
        assert contents(out) == contents(tmp_path / "uninterrupted")


def wait_until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def processes_of_session(session: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it ended meanwhile
            continue
        if int(its_session) == session and state != "Z":
            found.append(path.parent.name)
    return found


class TestReading:
    @pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}'])
    def test_what_is_no_cohort_file_is_refused(self, content: str, tmp_path: Path) -> None:
        (tmp_path / "cohort.json").write_text(content)
        with pytest.raises(UsageError, match=r"cohort\.json"):
            read_cohort(tmp_path)

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (["settings"], ABSENT),
            (["settings", "window"], None),
            (["settings", "window", "fixed"], ABSENT),
            (["settings", "slab", "thickness_mm"], "60"),
            (["counts"], []),
            (["counts", "validation"], ABSENT),
            (["counts", "test", "pathological"], None),
            (["subjects"], ABSENT),
            (["subjects"], {}),
            (["subjects", 2], "sub-02"),
            (["subjects", 0, "subject"], ABSENT),
            (["subjects", 1, "patient"], 7),
            (["subjects", 1, "split"], ABSENT),
            (["subjects", 1, "images"], None),
            (["subjects", 1, "masks"], ABSENT),
            (["subjects", 1, "truth"], None),
            (["subjects", 1, "spacing_mm"], ABSENT),
            (["subjects", 1, "spacing_mm", 2], "1"),
            (["subjects", 1, "labels"], "healthy"),
            (["subjects", 1, "labels", 3], None),
        ],
    )
    def test_cohort_file_that_lacks_what_later_steps_need_is_refused(
        self, place: list[Any], value: Any, phantom_cohort: Path, tmp_path: Path
    ) -> None:
        content = json.loads((phantom_cohort / "cohort.json").read_text())
        part: Any = content
        for key in place[:-1]:
            part = part[key]
        if value is ABSENT:
            del part[place[-1]]
        else:
            part[place[-1]] = value
        (tmp_path / "cohort.json").write_text(json.dumps(content))
        name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).removeprefix(".")
        with pytest.raises(UsageError, match=rf"cohort\.json: {re.escape(name)} is missing or of the wrong type"):
            read_cohort(tmp_path)

    def test_stored_values_are_those_of_the_file_slice_by_slice(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out")
        for folder, dtype in (("images", np.uint16), ("masks", np.uint8)):
            path = tmp_path / "out" / folder / "sub-02.nii.gz"
            stored = read_stored(path)
            assert stored.dtype == dtype
            assert stored.shape == stored_shape(path)
            scaled = stored / (65535 if folder == "images" else 1)
            np.testing.assert_allclose(np.moveaxis(scaled, 0, 2), np.asarray(nib.load(path).dataobj), atol=1e-6)

    @pytest.mark.parametrize("content", [None, b"", b"lost", b"\x1f\x8b cut off"])
    def test_volume_that_is_missing_or_damaged_is_named(self, content: bytes | None, tmp_path: Path) -> None:
        path = tmp_path / "sub-01.nii.gz"
        if content is not None:
            path.write_bytes(content)
        for read in (read_stored, stored_shape):
            with pytest.raises(
                UsageError, match=r"sub-01\.nii\.gz: is missing or damaged, expected .* `phs-pipeline preprocess` again"
            ):
                read(path)

    def test_shape_takes_the_header_alone(self, cohort: Path, tmp_path: Path) -> None:
        run(cohort, tmp_path / "out")
        path = tmp_path / "out" / "images" / "sub-01.nii.gz"
        whole = stored_shape(path)
        path.write_bytes(path.read_bytes()[:-200])
        assert stored_shape(path) == whole == (8, 12, 14)
        with pytest.raises(UsageError, match="is missing or damaged"):
            read_stored(path)

    @pytest.mark.slow
    def test_workers_import_neither_torch_nor_monai(self) -> None:
        heavy = "{'torch', 'monai', 'pandas', 'matplotlib'}"
        program = f"import sys, pipeline.preprocessing.cohort; print(sorted({heavy} & set(sys.modules)))"
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert answer.stdout.strip() == "[]"


@pytest.mark.data
class TestRealCohorts:
    def test_six_patients_of_lgg(self, shared_data: Path, tmp_path: Path) -> None:
        folder = shared_data / "lgg"
        names = sorted(path.name for path in folder.glob("sub-*"))[:6]
        rows = [
            f"{folder}/{name}/anat/{name}_FLAIR.nii.gz,"
            f"{folder}/derivatives/manual/{name}/anat/{name}_label-lesion_mask.nii.gz,{name}"
            for name in names
        ]
        (tmp_path / "scans.csv").write_text("\n".join(["image,mask,subject", *rows]))
        result = run(tmp_path / "scans.csv", tmp_path / "out", Settings())
        assert [subject.subject for subject in result.subjects] == names
        assert result.problems == []
        for name, subject in zip(names, result.subjects, strict=True):
            mask = nib.load(folder / "derivatives/manual" / name / "anat" / f"{name}_label-lesion_mask.nii.gz")
            slices = np.asarray(mask.dataobj).max(axis=(0, 1)) > 0  # RAS, 5 mm: 60 mm are 12 slices
            first = (slices.size - 12) // 2
            assert subject.first_slice == first
            assert [label == "pathological" for label in subject.labels] == list(slices[first : first + 12])
        counts = read_cohort(tmp_path / "out").counts.model_dump()
        assert [counts[split]["patients"] for split in ("training", "validation", "test")] == [4, 1, 1]

    def test_brats2013(self, shared_data: Path, tmp_path: Path) -> None:
        result = run(shared_data / "brats2013", tmp_path / "out", Settings())
        assert (result.layout, len(result.subjects), result.problems) == ("brats", 4, [])
        counts = read_cohort(tmp_path / "out").counts.model_dump()
        assert [counts[split]["patients"] for split in ("training", "validation", "test")] == [2, 1, 1]
        assert sum(count["healthy"] + count["pathological"] for count in counts.values()) == 4 * 60
        for subject in result.subjects:
            name = subject.subject
            mask = nib.load(shared_data / "brats2013" / name / f"{name}_seg.nii.gz")
            areas = (np.asarray(mask.dataobj) > 0).sum(axis=(0, 1))[47:107]  # 1 mm: an area is a count
            assert subject.lesion_mm2 == pytest.approx(areas.tolist())
