"""A folder of scans as a user runs it: one model, shares of the work, a record, and a run that was killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import stand_in_slurm
import torch

from pipeline import slurm
from pipeline.cli.main import main
from pipeline.files import sha256
from pipeline.inference import Inputs, Translator

pytestmark = pytest.mark.slow

SCANS = 6


def head(seed: int) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in (20, 24, 8)), indexing="ij"))
    noise = np.random.default_rng(seed).integers(0, 200, grid.shape[1:])
    return (((grid**2).sum(axis=0) < 0.8) * (300 + noise)).astype(np.int16)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for place in range(SCANS):
        image = nib.Nifti1Image(head(place), np.diag([-1.0, -1.0, 2.0, 1.0]))
        nib.save(image, folder / f"scan{place}.nii.gz")
    return folder


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def volumes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.rglob("*.nii.gz"))}


@pytest.fixture(scope="module")
def uninterrupted(trained: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "out"
    assert call("synthesize", scans, "-b", trained, "-o", folder, "--report", folder / "run.json") == 0
    return folder


def test_a_folder_gives_each_scan_a_page_and_an_index_of_them(uninterrupted: Path) -> None:
    assert len(list(uninterrupted.glob("*_desc-pseudohealthy.nii.gz"))) == SCANS
    index = (uninterrupted / "index.html").read_text(encoding="utf-8")
    for page in uninterrupted.glob("scan*.html"):
        assert page.name in index
    rows = (uninterrupted / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + SCANS


def test_the_record_has_versions_time_memory_and_outputs_of_each_scan(uninterrupted: Path) -> None:
    record = json.loads((uninterrupted / "run.json").read_text())
    assert record["Versions"]["torch"] == torch.__version__
    assert record["Counts"] == {"written": SCANS, "skipped": 0, "failed": 0}
    assert len(record["WeightsSha256"]) == 64
    for scan in record["Scans"]:
        assert set(scan["Seconds"]) == {"read", "inference", "write"}
        assert all(Path(output).is_file() for output in scan["Outputs"])
        if sys.platform == "linux":
            assert scan["PeakMemoryMiB"] > 50


def test_runs_that_share_a_folder_make_what_one_run_makes(
    trained: Path, scans: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("synthesize", scans, "-b", trained, "-o", tmp_path, "--num-parts", "2") == 0
    first = volumes(tmp_path)
    assert 0 < len(first) < len(volumes(uninterrupted))
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert call("synthesize", scans, "-b", trained, "-o", tmp_path, "--num-parts", "2") == 0
    assert volumes(tmp_path) == volumes(uninterrupted)


def test_the_number_of_a_job_array_counts_only_where_scans_are_shared(
    trained: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    assert call("synthesize", scans / "scan0.nii.gz", "-b", trained, "-o", tmp_path / "one") == 0
    assert call("synthesize", scans / "scan0.nii.gz", "-b", trained, "-o", tmp_path / "two", "--part-id", "7") == 2


def test_a_bad_scan_is_passed_over_and_on_top_of_the_index_until_it_succeeds(
    trained: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, out = tmp_path / "cohort", tmp_path / "out"
    cohort.mkdir()
    for name in ("scan1.nii.gz", "scan2.nii.gz"):
        shutil.copyfile(scans / name, cohort / name)
    whole = (scans / "scan0.nii.gz").read_bytes()
    (cohort / "scan0.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert call("synthesize", cohort, "-b", trained, "-o", out) == 1
    said = capsys.readouterr()
    assert "1 of 3 scan(s) failed" in said.err
    index = (out / "index.html").read_text(encoding="utf-8")
    assert "<p>1 failed" in index
    assert index.index("scan0: found voxels that cannot be read") < index.index("scan1")
    assert str(tmp_path) not in index
    # Another share of the cohort does not forget it, and mended it is gone.
    assert call("synthesize", cohort, "-b", trained, "-o", out, "--num-parts", "3", "--part-id", "1") == 0
    assert "<p>1 failed" in (out / "index.html").read_text(encoding="utf-8")
    (cohort / "scan0.nii.gz").write_bytes(whole)
    assert call("synthesize", cohort / "scan0.nii.gz", "-b", trained, "-o", out) == 0
    assert "<p>0 failed" in (out / "index.html").read_text(encoding="utf-8")


def test_a_name_too_long_for_results_stops_no_other_scan(trained: Path, scans: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for name in ("a" * 230 + ".nii.gz", "ü" * 120 + ".nii.gz", "fine.nii.gz"):
        shutil.copyfile(scans / "scan0.nii.gz", cohort / name)
    assert call("synthesize", cohort, "-b", trained, "-o", tmp_path / "out") == 1
    assert (tmp_path / "out" / "fine_desc-pseudohealthy.nii.gz").is_file()


def test_a_mended_dicom_series_is_no_longer_listed_as_failed_though_its_hash_and_name_are_others(
    trained: Path, scans: Path, dicom_series: Callable[..., list[Path]], tmp_path: Path
) -> None:
    cohort, out = tmp_path / "cohort", tmp_path / "out"
    files = dicom_series(cohort / "LEAKED", head(1), affine=np.diag([-1.0, -1.0, 2.0, 1.0]))
    shutil.copyfile(scans / "scan0.nii.gz", cohort / "scan0.nii.gz")
    lost = files[3].read_bytes()
    files[3].unlink()
    assert call("synthesize", cohort, "-b", trained, "-o", out) == 1
    assert "<p>1 failed" in (out / "index.html").read_text(encoding="utf-8")
    assert "LEAKED" not in (out / "index.html").read_text(encoding="utf-8")
    files[3].write_bytes(lost)
    assert call("synthesize", cohort, "-b", trained, "-o", out) == 0
    assert "<p>0 failed" in (out / "index.html").read_text(encoding="utf-8")


def test_no_name_of_a_dicom_file_is_in_the_record(
    trained: Path, dicom_series: Callable[..., list[Path]], tmp_path: Path
) -> None:
    files = dicom_series(tmp_path / "series", head(1), affine=np.diag([-1.0, -1.0, 2.0, 1.0]))
    for number, file in enumerate(files):
        if number == 3:
            file.write_bytes(file.read_bytes()[:-2000])
        file.rename(file.with_name(f"LEAKED_{number}.dcm"))
    record = tmp_path / "run.json"
    assert call("synthesize", tmp_path / "series", "-b", trained, "-o", tmp_path / "out", "--report", record) == 1
    assert json.loads(record.read_text())["Counts"]["failed"] == 1
    assert "LEAKED" not in record.read_text()


@pytest.mark.slow
def test_two_runs_into_one_folder_leave_whole_files(trained: Path, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline.cli", "synthesize", scans, "-b", trained, "-o", out, "--device", "cpu"]
    runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        _, said = run.communicate(timeout=300)
        assert run.returncode in (0, 1)
        assert "Traceback" not in said
    assert call("synthesize", scans, "-b", trained, "-o", out) == 0
    assert call("verify", out) == 0
    assert not list(out.glob(".partial*"))


@pytest.mark.parametrize("name", ["scan0.nii.gz", "run.txt", "file.json/run.json"])
def test_a_record_that_would_replace_a_scan_or_cannot_be_written_is_refused_at_once(
    name: str, trained: Path, scans: Path, tmp_path: Path
) -> None:
    (tmp_path / "file.json").write_text("")
    scan = tmp_path / "scan0.nii.gz"
    shutil.copyfile(scans / "scan0.nii.gz", scan)
    before = scan.read_bytes()
    assert call("synthesize", scan, "-b", trained, "-o", tmp_path / "out", "--report", tmp_path / name) == 2
    assert scan.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_a_modality_that_no_scan_tells_is_refused(trained: Path, scans: Path, tmp_path: Path) -> None:
    assert call("synthesize", scans / "scan0.nii.gz", "-b", trained, "-o", tmp_path, "--modality", "CT") == 2


def test_a_scan_is_no_mask(trained: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noisy = tmp_path / "noisy.nii"
    grid = nib.load(scans / "scan0.nii.gz")
    many = np.arange(grid.shape[0] * grid.shape[1] * grid.shape[2], dtype=np.int16).reshape(grid.shape)
    nib.save(nib.Nifti1Image(many, grid.affine), noisy)
    for option in ("--mask", "--brain-mask"):
        assert call("synthesize", scans / "scan0.nii.gz", "-b", trained, "-o", tmp_path / "out", option, noisy) == 1
        assert "expected a mask of few labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
    ids=repr,
)
def test_too_little_memory_for_a_scan_stops_no_other(
    error: BaseException,
    trained: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make = Translator.__call__

    def starved(self: Translator, inputs: Inputs) -> object:
        if inputs.scan.origin.name == "scan1.nii.gz":
            raise error
        return make(self, inputs)

    monkeypatch.setattr(Translator, "__call__", starved)
    assert call("synthesize", scans, "-b", trained, "-o", tmp_path) == 1
    assert "found too little memory for a scan of this size" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*_desc-pseudohealthy.nii.gz"))) == SCANS - 1


def test_everything_in_a_folder_of_results_is_verified(uninterrupted: Path, tmp_path: Path) -> None:
    assert call("verify", uninterrupted) == 0
    assert call("verify", *(path for path in uninterrupted.glob("scan0*"))) == 0
    copy = tmp_path / "copy"
    shutil.copytree(uninterrupted, copy)
    with (copy / "scan2_desc-anomaly.json").open("a") as file:
        file.write(" ")
    assert call("verify", copy) == 1


def test_a_stranger_s_bundle_runs_its_code_only_with_trust_bundle(
    trained: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "stranger")
    config = tmp_path / "stranger" / "configs" / "inference.json"
    touched = tmp_path / "touched"
    expression = f"$__import__('pathlib').Path({str(touched)!r}).touch() or 4"
    config.write_text(json.dumps({**json.loads(config.read_text()), "batch_size": expression}))
    command = ("synthesize", scans / "scan0.nii.gz", "-b", tmp_path / "stranger", "-o", tmp_path / "out")
    assert call(*command) == 2
    assert "--trust-bundle" in capsys.readouterr().err
    assert not touched.exists()
    assert call(*command, "--trust-bundle") == 0
    assert touched.exists()


def test_a_share_that_does_not_exist_is_refused(trained: Path, scans: Path, tmp_path: Path) -> None:
    assert call("synthesize", scans, "-b", trained, "-o", tmp_path, "--num-parts", "2", "--part-id", "2") == 2


def test_shares_on_a_cluster_go_on_without_us_and_end_with_one_index_and_one_report(
    trained: Path,
    scans: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second scan is broken; Ctrl-C stops the first call after it has submitted, and the second one waits."""
    cohort, out, report = tmp_path / "cohort", tmp_path / "out", tmp_path / "run.json"
    cohort.mkdir()
    for scan in scans.iterdir():
        (cohort / scan.name).write_bytes(scan.read_bytes()[: 300 if "scan1" in scan.name else None])
    stand_in_slurm.install(tmp_path / "cluster")
    monkeypatch.setenv("PATH", f"{tmp_path / 'cluster'}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "FIRST_POLL_S", 0.1)
    command = ("synthesize", cohort, "-b", trained, "-o", out, "--executor", "slurm", "--num-parts", "2")
    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", interrupt)
        assert call(*command, "--report", report, "--slurm", "time=5") == 130
    assert "job 1 goes on" in capsys.readouterr().err
    assert call(*command, "--report", report, "--slurm", "time=5") == 1
    said = capsys.readouterr()
    assert "job 1 was submitted before" in said.out
    assert "shares: 2 done, 0 running, 0 waiting, 0 failed" in said.out
    assert "scan1: failed: " in said.err
    assert "1 of 6 scan(s) failed" in said.err
    expected = {name: digest for name, digest in volumes(uninterrupted).items() if "scan1" not in name}
    assert volumes(out) == expected
    record = json.loads(report.read_text())
    assert record["Counts"] == {"written": SCANS - 1, "skipped": 0, "failed": 1}
    assert [scan["Name"] for scan in record["Scans"]] == [f"scan{place}" for place in range(SCANS)]
    assert record["FailedShares"] == []
    index = (out / "index.html").read_text(encoding="utf-8")
    assert "<p>1 failed" in index
    assert all(f"scan{place}" in index for place in range(SCANS))
    assert sorted(path.suffix for path in (out / "slurm").iterdir()) == [".out", ".out"]


def interrupt(_: float) -> None:
    raise KeyboardInterrupt


def test_shares_that_all_fail_are_named_with_their_logs(
    trained: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in_slurm.install(tmp_path / "cluster")
    monkeypatch.setenv("PATH", f"{tmp_path / 'cluster'}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "GRACE_S", 0.0)
    monkeypatch.setattr("pipeline.cli.again.sys.executable", "/bin/false")
    out = tmp_path / "out"
    assert call("synthesize", scans, "-b", trained, "-o", out, "--executor", "slurm", "--num-parts", "2") == 2
    said = capsys.readouterr().err
    for share in range(2):
        log = out / "slurm" / f"1_{share}_0_log.out"
        assert f"share {share} failed (job 1_{share}): it was stopped, or memory or time ran out; log: {log}" in said
        assert log.is_file()
    assert "no share came through" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--executor", "slurm", "--part-id", "1", "--num-parts", "2"), "submits all shares"),
        (("--slurm", "time=5"), "--slurm is for --executor slurm"),
    ],
)
def test_options_of_a_cluster_that_do_not_go_together_are_refused(
    options: tuple[str, ...], said: str, trained: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("synthesize", scans, "-b", trained, "-o", tmp_path / "out", *options) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_files(
    trained: Path, scans: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline.cli", "synthesize", scans, "-b", trained, "-o", out, "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("scan1_desc-pseudohealthy*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*_desc-pseudohealthy.json")}
    assert 0 < len(finished) < SCANS
    for sidecar in finished:
        for name, digest in json.loads(sidecar.read_text())["Outputs"].items():
            assert sha256(out / name) == digest, "what a sidecar names is whole"
    assert call("synthesize", scans, "-b", trained, "-o", out) == 0
    assert volumes(out) == volumes(uninterrupted)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "nothing is done twice"


def test_a_bids_dataset_gives_a_derivative_that_the_validator_takes_though_a_scan_failed(
    trained: Path, scans: Path, bids_findings: Callable[..., Any], tmp_path: Path
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    for place, scan in enumerate(sorted(scans.iterdir())[:3]):
        copy = raw / f"sub-{place:02}" / "anat" / f"sub-{place:02}_FLAIR.nii.gz"
        copy.parent.mkdir(parents=True)
        copy.write_bytes(scan.read_bytes()[: None if place else 300])
    about = {"Name": "three scans", "BIDSVersion": "1.10.0"}
    (raw / "dataset_description.json").write_text(json.dumps(about))
    assert call("synthesize", raw, "-b", trained, "-o", out, "--uncertainty", "--report", out / "run.json") == 1
    assert len(list((out / "failed").glob("sub-00_FLAIR_*.json"))) == 1
    assert len(list(out.rglob("*_desc-pseudohealthy_FLAIR.nii.gz"))) == 2
    errors, summary = bids_findings(out)
    assert sorted(summary["subjects"]) == ["01", "02"]
    assert not errors


def test_a_renamed_twin_is_no_scan_even_without_its_sidecar(trained: Path, uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copyfile(uninterrupted / "scan0_desc-pseudohealthy.nii.gz", tmp_path / "scan.nii.gz")
    assert call("synthesize", tmp_path / "scan.nii.gz", "-b", trained, "-o", tmp_path / "out") == 1
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_a_synthetic_image_is_no_scan(trained: Path, uninterrupted: Path, tmp_path: Path) -> None:
    for name in ("scan0_desc-pseudohealthy.nii.gz", "scan0_desc-pseudohealthy.json"):
        shutil.copyfile(uninterrupted / name, tmp_path / name.replace("_desc-pseudohealthy", "-renamed"))
    assert call("synthesize", tmp_path / "scan0-renamed.nii.gz", "-b", trained, "-o", tmp_path / "out") == 1
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


class TestDicom:
    @pytest.fixture
    def series(self, dicom_series: Callable[..., list[Path]], tmp_path: Path) -> Path:
        # The head in slices of pixels that a network of 2 mm has something to see in.
        affine = np.diag([-1.0, -1.0, 2.0, 1.0])
        dicom_series(tmp_path / "LEAKED_NAME", head(0), affine=affine)
        return tmp_path / "LEAKED_NAME"

    def test_a_series_comes_out_as_a_series_of_the_same_study(
        self, series: Path, trained: Path, tmp_path: Path
    ) -> None:
        assert call("synthesize", series, "-b", trained, "-o", tmp_path / "out") == 0
        (folder,) = (path for path in (tmp_path / "out").glob("*_desc-pseudohealthy") if path.is_dir())
        source = pydicom.dcmread(next(series.iterdir()))
        for file in folder.iterdir():
            twin = pydicom.dcmread(file)
            assert twin.StudyInstanceUID == source.StudyInstanceUID
            assert twin.SeriesInstanceUID != source.SeriesInstanceUID
            assert twin[0x0008, 0x001C].value == "YES"
        assert len(list(folder.iterdir())) == len(list(series.iterdir()))
        assert call("verify", folder, "--source", series) == 0

    def test_nothing_of_the_patient_is_in_names_sidecars_pages_or_what_is_said(
        self, series: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        assert call("synthesize", series, "-b", trained, "-o", out, "--report", out / "run.json") == 0
        said = "".join(capsys.readouterr())
        texts = [
            said,
            *(path.read_text(encoding="utf-8") for kind in ("json", "html") for path in out.rglob(f"*.{kind}")),
        ]
        assert len(texts) > 4
        assert not [text for text in texts if "leaked" in text.lower()]
        assert not [path for path in out.rglob("*") if "LEAKED" in path.name]
        assert (
            call(
                "synthesize", series, "-b", trained, "-o", tmp_path / "named", "--keep-names", "--output-type", "nifti"
            )
            == 0
        )
        assert (tmp_path / "named" / "LEAKED_NAME_desc-pseudohealthy.nii.gz").is_file()

    def test_dicom_cannot_be_made_of_nifti(self, trained: Path, scans: Path, tmp_path: Path) -> None:
        scan = scans / "scan0.nii.gz"
        assert call("synthesize", scan, "-b", trained, "-o", tmp_path, "--output-type", "dicom") == 1
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
