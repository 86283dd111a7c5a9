"""`phs-pipeline preprocess` as a user sees it: exit codes, sentences, and what lies on the disk."""

import csv
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.cli.main import main
from pipeline.preprocessing.cohort import Settings
from pipeline.preprocessing.cohort_format import read_cohort
from pipeline.preprocessing.plan import plan

Answer = tuple[int | str | None, str, str]


class Terminal:
    """Calls the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, cohort: Path, output: Path, *options: str) -> Answer:
        with pytest.raises(SystemExit) as ended:
            main(["preprocess", str(cohort), "-o", str(output), "--workers", "1", *options])
        out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        return ended.value.code, out, err


@pytest.fixture
def preprocess(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Four patients in BraTS layout, 24 slices of 5 mm, lesions in slices 10 to 13."""
    rng = np.random.default_rng(0)
    for name in ("A", "B", "C", "D"):
        folder = tmp_path / "cohort" / name
        folder.mkdir(parents=True)
        mask = np.zeros((10, 12, 24), np.uint8)
        mask[2:6, 3:7, 10:14] = 4
        image = rng.integers(0, 900, mask.shape, dtype=np.int16)
        for kind, voxels in (("flair", image), ("t1ce", image + 100), ("seg", mask)):
            nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1, 5, 1])), folder / f"{name}_{kind}.nii.gz")
    return tmp_path / "cohort"


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_tasks_of_an_array_share_the_scans_and_a_call_without_shares_makes_the_cohort(
    preprocess: Terminal, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cohort / "B" / "B_flair.nii.gz").write_bytes(b"")
    for task, code, done in (("0", 0, 2), ("1", 1, 1)):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        answer = preprocess(cohort, tmp_path / "out", "--layout", "brats", "--num-parts", "2")
        assert answer[0] == code
        assert f"{done} scan(s) of this share are done" in answer[1]
        assert ("skipped B: " in answer[2]) == (task == "1")
        assert not (tmp_path / "out" / "cohort.json").exists()
    assert preprocess(cohort, tmp_path / "out", "--layout", "brats", "--num-parts", "2", "--part-id", "2")[0] == 2
    code, said, _ = preprocess(cohort, tmp_path / "out", "--layout", "brats")
    assert code == 1
    assert "3 subjects" in said


class TestAllDone:
    def test_ends_with_0_and_says_what_there_is(self, preprocess: Terminal, cohort: Path, tmp_path: Path) -> None:
        code, out, err = preprocess(cohort, tmp_path / "out")
        assert (code, err) == (0, "")
        assert out.splitlines() == [
            "training: 2 patient(s), 8 pathological and 16 healthy slices",
            "validation: 1 patient(s), 4 pathological and 8 healthy slices",
            "test: 1 patient(s), 4 pathological and 8 healthy slices",
            f"{tmp_path}/out: 4 subjects (brats); look at {tmp_path}/out/summary.png",
        ]
        assert files(tmp_path / "out") == [
            "cohort.json",
            *(f"images/{name}.nii.gz" for name in "ABCD"),
            *(f"masks/{name}.nii.gz" for name in "ABCD"),
            "settings.json",
            "slices.csv",
            *(f"subjects/{name}.json" for name in "ABCD"),
            "summary.png",
        ]

    @pytest.mark.parametrize(
        ("options", "slices"),
        [((), 12), (("--slices", "7"), 7), (("--slab-mm", "40"), 8), (("--whole",), 24)],
    )
    def test_slab(
        self, options: tuple[str, ...], slices: int, preprocess: Terminal, cohort: Path, tmp_path: Path
    ) -> None:
        assert preprocess(cohort, tmp_path / "out", *options)[0] == 0
        assert nib.load(tmp_path / "out" / "images" / "A.nii.gz").shape == (10, 12, slices)

    def test_modality_and_window(self, preprocess: Terminal, cohort: Path, tmp_path: Path) -> None:
        options = ("--modality", "t1ce", "--window", "100", "1000", "--whole")
        assert preprocess(cohort, tmp_path / "out", *options)[0] == 0
        source = nib.as_closest_canonical(nib.load(cohort / "A" / "A_t1ce.nii.gz"))
        made = np.asarray(nib.load(tmp_path / "out" / "images" / "A.nii.gz").dataobj)
        np.testing.assert_allclose(made, (np.asarray(source.dataobj) - 100.0) / 900, atol=1e-4)

    def test_small_lesions_are_excluded(self, preprocess: Terminal, cohort: Path, tmp_path: Path) -> None:
        image = nib.load(cohort / "A" / "A_seg.nii.gz")
        mask = np.asarray(image.dataobj).copy()
        mask[3:, :, 10] = 0  # four voxels of 1 mm² are left in this slice
        nib.save(nib.Nifti1Image(mask, image.affine), cohort / "A" / "A_seg.nii.gz")
        assert preprocess(cohort, tmp_path / "out", "--min-lesion-mm2", "5")[0] == 0
        with (tmp_path / "out" / "slices.csv").open() as file:
            labels = [row["label"] for row in csv.DictReader(file) if row["subject"] == "A"]
        assert labels == ["healthy"] * 4 + ["excluded"] + ["pathological"] * 3 + ["healthy"] * 4

    def test_started_again_it_has_nothing_left_to_do(self, preprocess: Terminal, cohort: Path, tmp_path: Path) -> None:
        first = preprocess(cohort, tmp_path / "out")
        before = {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}
        assert preprocess(cohort, tmp_path / "out") == first
        assert {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")} == before

    def test_slices_of_one_kind_only(
        self, preprocess: Terminal, cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        code, out, _ = preprocess(cohort, tmp_path / "out", "--slices", "4")
        assert code == 0
        assert "training: 2 patient(s), 8 pathological and 0 healthy slices" in out
        assert "found no healthy slice in any scan" in caplog.text


class TestSomeFailed:
    def test_ends_with_1_and_a_sentence_for_each(self, preprocess: Terminal, cohort: Path, tmp_path: Path) -> None:
        for name in ("E", "F"):
            shutil.copytree(cohort / "A", cohort / name)
            for kind in ("flair", "t1ce", "seg"):
                (cohort / name / f"A_{kind}.nii.gz").rename(cohort / name / f"{name}_{kind}.nii.gz")
        (cohort / "E" / "E_seg.nii.gz").unlink()
        (cohort / "F" / "F_flair.nii.gz").write_bytes((cohort / "F" / "F_flair.nii.gz").read_bytes()[:2000])
        code, out, err = preprocess(cohort, tmp_path / "out")
        assert code == 1
        assert "4 subjects (brats)" in out
        missing, damaged, last = err.splitlines()
        assert missing.startswith(f"skipped E: {cohort}/E/E_flair.nii.gz: has no lesion mask, expected")
        assert damaged.startswith(f"skipped F: {cohort}/F/F_flair.nii.gz: found voxels that cannot be read")
        assert last == f"Error: {cohort}: 2 scan(s) could not be used, for the reasons above"
        assert not [
            name for name in files(tmp_path / "out") if name.rpartition("/")[2][0] in "EF." or "partial" in name
        ]


class TestNothingStarted:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (("--slices", "5", "--whole"), "give one of --slices, --slab-mm and --whole"),
            (("--slices", "5", "--slab-mm", "60"), "give one of --slices, --slab-mm and --whole"),
            (("--window", "250", "-200"), "--window needs LOW below HIGH, found 250 -200"),
            (("--window", "nan", "1"), "finite numbers"),
            (("--slab-mm", "nan"), "finite numbers"),
            (("--slab-mm", "inf"), "finite numbers"),
            (("--percentile", "nan"), "finite numbers"),
            (("--min-lesion-mm2", "nan"), "finite numbers"),
            (("--percentile", "0"), "--percentile"),
            (("--percentile", "101"), "--percentile"),
            (("--slices", "0"), "--slices"),
            (("--workers", "0"), "--workers"),
            (("--split", "0.5", "0.5", "0.5"), "--split: found 0.5 0.5 0.5, expected three shares that sum to 1"),
            (("--layout", "kaggle"), "--layout"),
            (("--layout", "lits"), "holds no scan in the layout lits"),
            (("--modality", "swi"), "swi: no modality of BraTS"),
        ],
    )
    def test_wrong_usage_ends_with_2_and_writes_nothing(
        self, options: tuple[str, ...], reason: str, preprocess: Terminal, cohort: Path, tmp_path: Path
    ) -> None:
        code, out, err = preprocess(cohort, tmp_path / "out", *options)
        assert (code, out) == (2, "")
        assert reason in err
        assert not (tmp_path / "out").exists()

    def test_no_usable_scan(self, preprocess: Terminal, cohort: Path, tmp_path: Path) -> None:
        for path in cohort.rglob("*_seg.nii.gz"):
            path.write_text("lost")
        code, _, err = preprocess(cohort, tmp_path / "out")
        assert code == 2
        assert "no usable scan in this brats cohort" in err

    def test_scans_that_were_skipped_are_listed(self, preprocess: Terminal, cohort: Path, tmp_path: Path) -> None:
        (cohort / "D" / "D_seg.nii.gz").write_text("lost")
        shutil.copytree(cohort / "D", cohort / "E")
        for path in (cohort / "E").iterdir():
            path.rename(path.with_name(path.name.replace("D", "E")))
        shutil.rmtree(cohort / "C")
        code, _, err = preprocess(cohort, tmp_path / "out", "--slices", "4")
        assert code == 2
        error, *skipped = err.splitlines()
        assert "found 2 patient(s) with usable scans, expected at least 3" in error
        assert [line.strip().split(" found ")[0] for line in skipped] == [
            f"skipped {name}: {cohort}/{name}/{name}_seg.nii.gz:" for name in "DE"
        ]

    def test_one_patient(self, preprocess: Terminal, cohort: Path, tmp_path: Path) -> None:
        for name in "BCD":
            shutil.rmtree(cohort / name)
        code, _, err = preprocess(cohort, tmp_path / "out")
        assert code == 2
        assert "found 1 patient(s) with usable scans, expected at least 3" in err

    def test_folder_made_with_other_settings(self, preprocess: Terminal, cohort: Path, tmp_path: Path) -> None:
        assert preprocess(cohort, tmp_path / "out")[0] == 0
        code, _, err = preprocess(cohort, tmp_path / "out", "--whole")
        assert code == 2
        assert "made with other settings (slab); choose another folder or give --overwrite" in err
        assert preprocess(cohort, tmp_path / "out", "--whole", "--overwrite")[0] == 0
        assert nib.load(tmp_path / "out" / "images" / "A.nii.gz").shape[2] == 24

    def test_output_below_a_file(self, preprocess: Terminal, cohort: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        code, _, err = preprocess(cohort, tmp_path / "file" / "out")
        assert code == 2
        assert "cannot be written" in err
        assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_from_the_shell_with_all_cores(cohort: Path, tmp_path: Path) -> None:
    (cohort / "D" / "D_seg.nii.gz").write_text("lost")
    program = "from pipeline.cli.main import main; main()"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program, "preprocess", "cohort", "-o", "out", "--workers", "2"]
    answer = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "out: 3 subjects (brats)" in answer.stdout
    *progress, skipped, last = answer.stderr.splitlines()
    assert progress == [f"preprocessed {done} of 4 scans" for done in (1, 2, 3, 4)]
    assert skipped.startswith("skipped D: cohort/D/D_seg.nii.gz: found no readable header")
    assert last == "Error: cohort: 1 scan(s) could not be used, for the reasons above"


class TestDryRun:
    def test_says_what_would_be_done_and_writes_nothing(
        self, preprocess: Terminal, cohort: Path, tmp_path: Path
    ) -> None:
        code, out, err = preprocess(cohort, tmp_path / "out", "--channels", "flair,t1ce", "--dry-run")
        assert (code, err) == (0, "")
        assert out.splitlines() == [
            f"{cohort}: 4 scan(s) (brats), 4 of them with a lesion mask",
            "patients: 2 training, 1 validation, 1 test",
            f"48 slices; at most 0 MiB in {tmp_path}/out, less when compressed",
            "nothing was written; start without --dry-run",
        ]
        assert not (tmp_path / "out").exists()

    def test_agrees_with_what_is_then_done_and_goes_on_as_it_would(
        self, preprocess: Terminal, cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, planned, _ = preprocess(cohort, tmp_path / "out", "--whole", "--dry-run")
        preprocess(cohort, tmp_path / "out", "--whole")
        made = read_cohort(tmp_path / "out")
        assert f"{sum(len(subject.labels) for subject in made.subjects)} slices;" in planned
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        shutil.copytree(cohort / "A", cohort / "E")
        for path in (cohort / "E").iterdir():
            path.rename(path.with_name(path.name.replace("A_", "E_")))
        assert preprocess(cohort, tmp_path / "out", "--whole", "--dry-run")[0] == 0
        assert "of the patients, 1 came; all others stay in the splits that they were in" in caplog.text
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
        code, _, err = preprocess(cohort, tmp_path / "out", "--slices", "3", "--dry-run")
        assert code == 2
        assert "holds a cohort made with other settings (slab)" in err

    def test_names_what_headers_tell_against_a_scan_without_reading_voxels(
        self, preprocess: Terminal, cohort: Path, tmp_path: Path
    ) -> None:
        small = nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4))
        nib.save(small, cohort / "B" / "B_seg.nii.gz")
        (cohort / "C" / "C_flair.nii.gz").write_bytes(b"no scan")
        whole = (cohort / "D" / "D_flair.nii.gz").read_bytes()
        (cohort / "D" / "D_flair.nii.gz").write_bytes(whole[: len(whole) // 2])
        code, out, err = preprocess(cohort, tmp_path / "out", "--split", "0.5", "0", "0.5", "--dry-run")
        assert code == 1
        assert f"{cohort}: 2 scan(s) (brats), 2 of them" in out
        assert "would skip B: " in err
        assert "B_seg.nii.gz: the mask has shape (3, 3, 3), expected (10, 12, 24)" in err
        assert "would skip C: " in err
        assert "2 scan(s) could not be used" in err


class TestMany:
    def test_headers_of_hundreds_take_little_memory_and_are_looked_at_one_after_the_other(
        self, cohort: Path, tmp_path: Path
    ) -> None:
        """Files of 40 MiB each, as their headers say: if any were read, or kept, it would show."""
        volume = nib.Nifti1Image(np.broadcast_to(np.int16(0), (256, 256, 160)), np.eye(4))
        header = volume.header.copy()
        header.set_data_shape((256, 256, 160))
        header["magic"], header["vox_offset"] = b"n+1", 352
        scan = tmp_path / "scan.nii"
        with scan.open("wb") as file:
            header.write_to(file)
            file.truncate(352 + 2 * 256 * 256 * 160)  # no block of the disk
        for number in range(100):
            folder = tmp_path / "many" / f"p{number:03}"
            folder.mkdir(parents=True)
            for kind in ("flair", "seg"):
                os.link(scan, folder / f"p{number:03}_{kind}.nii")
        tracemalloc.start()
        planned = plan(tmp_path / "many", tmp_path / "out", Settings())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (planned.scans, planned.slices, sum(planned.patients.values())) == (100, 6_000, 100)
        assert planned.mib == pytest.approx(6_000 * 256 * 256 * 3 / 2**20)
        assert peak < 10 * 2**20
