"""`phs-pipeline bids`: called as BIDS Apps are, over a dataset whose scans the harmonic filler fills."""

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch

from pipeline import __version__
from pipeline.cli.bids import bids
from pipeline.files import read_json
from pipeline.reports import index_page

try:
    import resource
except ImportError:  # Windows has no such bounds
    resource = None  # type: ignore[assignment]

Call = Callable[..., Any]
BOSH = Path(sys.executable).with_name("bosh")


@pytest.fixture
def dataset(voxels: np.ndarray, lesion: np.ndarray, tmp_path: Path) -> Path:
    """FLAIR of two persons, of the first in two sessions and in one of them twice, each with a drawn mask."""
    root = tmp_path / "raw"
    for name in (
        "sub-01/ses-a/anat/sub-01_ses-a_run-1",
        "sub-01/ses-a/anat/sub-01_ses-a_run-2",
        "sub-01/ses-b/anat/sub-01_ses-b",
        "sub-02/anat/sub-02",
    ):
        for path, stored in ((f"{name}_FLAIR", voxels), (f"derivatives/manual/{name}_label-lesion_mask", lesion)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image(stored, np.diag([-1.0, -1.0, 3.0, 1.0]))
            image.header.set_xyzt_units("mm")
            nib.save(image, root / f"{path}.nii.gz")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "two", "BIDSVersion": "1.10.0"}))
    (root / "README").write_text("Two heads.\n")
    return root


@pytest.fixture(autouse=True)
def this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the app bounds of its process is as before after each test."""
    monkeypatch.setenv("TMPDIR", tempfile.gettempdir())
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())
    limit = resource.getrlimit(resource.RLIMIT_DATA) if resource else (0, 0)
    threads = torch.get_num_threads()
    itk_threads = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    yield
    torch.set_num_threads(threads)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(itk_threads)
    if resource:
        resource.setrlimit(resource.RLIMIT_DATA, limit)


@pytest.fixture
def app(call: Call, dataset: Path, tmp_path: Path) -> Call:
    """The app over the dataset; the derivative's scans are what is compared."""

    def run(*options: object, level: str = "participant") -> Any:
        return call("bids", dataset, tmp_path / "out", level, *options, "-b", "harmonic")

    return run


def filled(out: Path) -> list[str]:
    return sorted(path.name.partition("_desc")[0] for path in out.rglob("*_desc-filled_*FLAIR.nii.gz"))


EVERYTHING = ["sub-01_ses-a_run-1", "sub-01_ses-a_run-2", "sub-01_ses-b", "sub-02"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), EVERYTHING),
        (("--participant-label", "02"), ["sub-02"]),
        (("--participant-label", "01", "02", "--n-procs", "1"), EVERYTHING),
        (("--participant_label", "sub-01", "--session-id", "b"), ["sub-01_ses-b"]),
        (("--session-id", "a", "ses-b"), EVERYTHING[:3]),
    ],
)
def test_participants_and_sessions_are_chosen_as_in_other_apps(
    app: Call, tmp_path: Path, options: tuple[str, ...], expected: list[str]
) -> None:
    assert app("--skip-bids-validation", *options).code == 0
    assert filled(tmp_path / "out") == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"flair": {"run": 2}}, EVERYTHING[1:2]),
        ({"flair": {"run": "01"}}, EVERYTHING[:1]),
        ({"flair": {"session": None}}, EVERYTHING[3:]),
        ({"flair": {"session": "*", "run": None}}, EVERYTHING[2:3]),
        ({"flair": {"suffix": "FLAIR", "session": ["b", None]}}, EVERYTHING[2:]),
        ({"first": {"run": 1}, "second": {"subject": "02"}}, [EVERYTHING[0], EVERYTHING[3]]),
    ],
)
def test_a_filter_file_chooses_by_entities(
    app: Call, tmp_path: Path, filters: dict[str, Any], expected: list[str]
) -> None:
    (tmp_path / "filters.json").write_text(json.dumps(filters))
    assert app("--skip-bids-validation", "--bids-filter-file", tmp_path / "filters.json").code == 0
    assert filled(tmp_path / "out") == expected


def test_participants_run_apart_are_joined_by_the_group_level_in_a_valid_derivative(
    app: Call, tmp_path: Path, bids_findings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    for label in ("01", "02"):
        assert app("--participant-label", label, "--work-dir", work).code == 0
    assert tempfile.gettempdir() == str(work)
    read: list[Path] = []
    monkeypatch.setattr(index_page, "read_json", lambda path: read.append(path) or read_json(path))
    code, said, _ = app(level="group")
    assert code == 0
    assert len(read) == len(set(read)) > 4
    assert "out: 4 results; look at" in said
    table = (tmp_path / "out" / "scores.csv").read_text()
    assert all(name in table for name in EVERYTHING)
    assert not bids_findings(tmp_path / "out")[0]


def test_the_group_level_of_one_result_has_an_index_too(app: Call, tmp_path: Path) -> None:
    assert app("--skip-bids-validation", "--participant-label", "02").code == 0
    assert "out/index.html" in app(level="group").out.replace("\\", "/")
    assert (tmp_path / "out" / "index.html").is_file()


@pytest.mark.skipif(resource is None, reason="the system knows no such bound")
def test_processors_and_memory_are_kept_to(app: Call) -> None:
    assert app("--skip-bids-validation", "--participant-label", "02", "--n-procs", "1", "--mem-mb", "9000").code == 0
    assert torch.get_num_threads() == 1
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 9000 * 2**20


@pytest.mark.skipif(sys.platform == "win32", reason="the validator does not come for Windows")
def test_a_dataset_with_errors_is_refused_unless_the_check_is_skipped(app: Call, dataset: Path, tmp_path: Path) -> None:
    shutil.copyfile(dataset / "README", dataset / "sub-02" / "anat" / "notes.txt")
    code, _, wrong = app()
    assert code == 2
    assert "raw: is no valid BIDS, found 1 errors, the first NOT_INCLUDED at /sub-02/anat/notes.txt" in wrong
    assert not filled(tmp_path / "out")
    assert app("--skip-bids-validation").code == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--participant-label", "01", "07"), "found no scan of sub-07; check --participant-label"),
        (("--session-id", "c"), "found no scan of ses-c"),
        (("--bids-filter-file", "none.json"), "none.json: holds no filters, expected JSON such as"),
        (("--mem-mb", "10"), "--mem-mb"),
    ],
)
def test_what_is_not_there_is_named(app: Call, options: tuple[str, ...], reason: str) -> None:
    code, _, wrong = app("--skip-bids-validation", *options)
    assert code == 2
    assert reason in wrong


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"flair": {"contrast": "FLAIR"}}', "flair filters by 'contrast', expected one of subject, session"),
        ('{"flair": {"run": {"a": 1}}}', "flair has {'a': 1} for run, expected text"),
        ('{"flair": {"acquisition": "3D"}}', "found no scan that the filters keep, of 4"),
        ("[]", "holds no filters"),
    ],
)
def test_filters_that_cannot_be_are_refused(app: Call, tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "filters.json").write_text(content)
    code, _, wrong = app("--skip-bids-validation", "--bids-filter-file", tmp_path / "filters.json")
    assert code == 2
    assert reason in wrong


def test_no_dataset_and_no_results_are_refused(call: Call, app: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, wrong = call("bids", tmp_path / "empty", tmp_path / "out", "participant")
    assert (code, "has no dataset_description.json, expected a BIDS dataset" in wrong) == (2, True)
    code, _, wrong = app(level="group")
    assert (code, "out: found no results, expected those of the level participant" in wrong) == (2, True)


class TestBoutiques:
    """The descriptor by which portals call the app."""

    descriptor = Path(__file__).parents[2] / "docs" / "boutiques.json"

    def test_it_is_valid_and_names_each_option(self) -> None:
        done = subprocess.run([BOSH, "validate", self.descriptor], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, "OK")
        described = json.loads(self.descriptor.read_text())
        flags = {each["command-line-flag"] for each in described["inputs"] if "command-line-flag" in each}
        options = [option.opts for option in bids.params if isinstance(option, click.Option)]
        offered = {next(name for name in names if name.startswith("--")) for names in options}
        assert flags == offered
        assert described["tool-version"] == __version__

    def test_the_command_that_it_makes_is_one_that_runs(self, call: Call, dataset: Path, tmp_path: Path) -> None:
        invocation = {
            "bids_dir": str(dataset),
            "output_dir": str(tmp_path / "out"),
            "level": "participant",
            "participant_label": ["01", "02"],
            "session_id": ["a"],
            "bundle": "harmonic",
            "skip_bids_validation": True,
        }
        (tmp_path / "invocation.json").write_text(json.dumps(invocation))
        simulated = [BOSH, "exec", "simulate", self.descriptor, "-i", tmp_path / "invocation.json"]
        done = subprocess.run(simulated, capture_output=True, text=True, check=True, cwd=tmp_path)
        (command,) = (line for line in done.stdout.splitlines() if line.strip().startswith("phs-pipeline bids"))
        assert call(*shlex.split(command)[1:]).code == 0
        assert filled(tmp_path / "out") == EVERYTHING[:2]
