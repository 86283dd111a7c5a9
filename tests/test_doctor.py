"""What the doctor finds on machines that lack something, and what it tells the user to type."""

import importlib.metadata
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import doctor
from pipeline.bundles import Bundle, find_bundle
from pipeline.doctor import Check, examine

Usage = namedtuple("Usage", "total used free")


def checks(name: str) -> list[Check]:
    return [check for check in examine() if check.name == name]


@pytest.fixture(autouse=True)
def few_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are loaded only in the tests that ask about them."""
    monkeypatch.setattr(doctor, "list_bundles", list)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "NVIDIA", tmp_path / "none")
    monkeypatch.setattr(shutil, "which", lambda _: None)


def test_each_check_is_one_line_and_whatever_is_not_ok_has_a_remedy():
    found = list(examine())
    names = {check.name for check in found}
    assert {"Python", "packages", "user", "memory", "disk", "shared memory", "temporary folder", "cpu"} <= names
    for check in found:
        assert "\n" not in str(check)
        assert bool(check.remedy) == (check.status != "ok")


def test_a_line_reads_status_name_finding_remedy():
    assert str(Check("disk", "ok", "61.3 GiB free")) == "ok       disk: 61.3 GiB free"
    assert str(Check("user", "problem", "no name", "export USER=phs")) == (
        "problem  user: no name; remedy: export USER=phs"
    )


def test_an_old_python_is_a_problem(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    (check,) = checks("Python")
    assert check.status == "problem"
    assert "expected 3.10 or newer" in check.found


def test_packages_are_compared_with_what_the_project_requires(monkeypatch):
    wanted = ["torch>=2.8", "click<1", "lacking>=3", "pytest>=1; extra == 'test'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: wanted)
    old, missing, right = checks("packages")
    assert (old.status, old.remedy) == ("problem", "pip install --upgrade 'click<1'")
    assert old.found.endswith("expected <1")
    assert (missing.status, missing.found) == ("problem", "lacking is not installed")
    assert missing.remedy == "pip install --upgrade 'lacking>=3'"
    assert right.found == f"torch {importlib.metadata.version('torch')}"


def test_a_checkout_that_is_not_installed_is_no_problem(monkeypatch):
    def none(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", none)
    (check,) = checks("packages")
    assert (check.status, check.remedy) == ("warning", "pip install -c constraints.txt .")


def test_a_user_id_without_a_name_is_given_one_before_monai_asks():
    program = (
        "import os, pwd\n"
        "def nobody(uid): raise KeyError(f'getpwuid(): uid not found: {uid}')\n"
        "pwd.getpwuid = nobody\n"
        "for name in ('HOME', 'USER', 'LOGNAME', 'LNAME', 'USERNAME'): os.environ.pop(name, None)\n"
        "import pipeline, monai.bundle\n"
        "from pipeline.doctor import examine\n"
        "print(os.environ['USER'], next(check.status for check in examine() if check.name == 'user'))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert answer.stdout.splitlines()[-1] in [f"{os.getuid()} {status}" for status in ("ok", "warning")]


def test_root_in_a_container_is_told_that_results_will_be_roots(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "CONTAINER_MARKS", (tmp_path,))
    monkeypatch.setattr("os.getuid", lambda: 0)
    (check,) = checks("user")
    assert check.status == "warning"
    assert '--user "$(id -u):$(id -g)"' in check.remedy
    monkeypatch.setattr("os.getuid", lambda: 1000)
    assert checks("user")[0].status == "ok"


@pytest.mark.parametrize(
    ("available_gib", "limit", "status", "found"),
    [
        (32, None, "ok", "32.0 GiB free"),
        (32, "max", "ok", "32.0 GiB free"),
        (4, None, "warning", "4.0 GiB free"),
        (1, None, "problem", "1.0 GiB free, expected 2 GiB at least"),
        (32, str(2 * 2**30), "problem", "1.0 GiB free"),
    ],
)
def test_memory_is_what_system_and_container_leave(monkeypatch, tmp_path, available_gib, limit, status, found):
    (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {available_gib * 2**20} kB\n")
    if limit:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{2**30}\n")
    monkeypatch.setattr(doctor, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    (check,) = checks("memory")
    assert check.status == status
    assert check.found.startswith(found)


def test_a_system_that_does_not_tell_its_memory_is_no_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "MEMINFO", tmp_path / "none")
    assert checks("memory")[0].status == "ok"


def test_a_full_disk_is_a_problem(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 10**6))
    (check,) = checks("disk")
    assert check.status == "problem"
    assert "0.0 GiB free in the current folder, expected 1 GiB at least" in check.found
    assert "-o FOLDER" in check.remedy


def test_the_shared_memory_of_a_plain_container_is_small(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(64 * 2**20, 0, 64 * 2**20))
    (check,) = checks("shared memory")
    assert check.status == "warning"
    assert "64 MiB in /dev/shm" in check.found
    assert "--shm-size=2g" in check.remedy


def test_without_shared_locks_there_are_no_processes(monkeypatch):
    class Broken:
        def Lock(self) -> None:  # noqa: N802
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(multiprocessing, "get_context", lambda _: Broken())
    (check,) = checks("shared memory")
    assert check.status == "problem"
    assert "(Permission denied)" in check.found


def test_folders_that_cannot_be_written_are_found_by_writing(monkeypatch, tmp_path):
    def full(**_: Any) -> None:
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (current,), (home,), (temporary,) = checks("current folder"), checks("home folder"), checks("temporary folder")
    assert current.status == home.status == "warning"
    assert temporary.status == "problem"
    assert "-o FOLDER" in current.remedy
    assert "export HOME=" in home.remedy
    assert "export TMPDIR=" in temporary.remedy


def test_in_a_container_of_compose_results_go_to_the_mounted_folder(monkeypatch, tmp_path):
    """Its current folder is the root, which nobody but root can write and no result goes to."""
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(doctor, "OUT", tmp_path / "out")
    assert checks("current folder")
    monkeypatch.setenv(doctor.MOUNTED_OUT, "./out")
    assert not checks("current folder")
    (check,) = checks("mounted folder")
    assert (check.status, check.found) == ("ok", f"{tmp_path / 'out'} can be written")
    assert checks("disk")[0].found.endswith("GiB free in the mounted folder")
    monkeypatch.setattr(doctor, "_writable", lambda folder: False)
    (check,) = checks("mounted folder")
    assert check.status == "warning"
    assert "set UID and GID in .env" in check.remedy


def test_without_a_gpu_the_cpu_is_enough(no_gpu):
    assert [check.name for check in doctor._devices()] == ["cpu"]
    assert checks("cpu")[0].status == "ok"


def test_a_driver_that_torch_cannot_use_is_warned_of(no_gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "NVIDIA", tmp_path)
    (check,) = checks("cuda")
    assert check.status == "warning"
    assert f"torch {torch.__version__} is built" in check.found
    assert "https://pytorch.org/get-started/locally" in check.remedy


def test_a_gpu_that_does_not_compute_is_a_problem(no_gpu, monkeypatch):
    # This torch was built without CUDA, or the machine has no such GPU: computing on it fails.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GeForce")

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch, "ones", refuse)
    (check,) = checks("cuda:0")
    assert check.status == "problem"
    assert check.found == "GeForce does not compute (no kernel image is available for execution on the device)"
    assert "--device cpu" in check.remedy


@pytest.mark.parametrize(("free_gib", "status"), [(60, "ok"), (1, "warning")])
def test_a_gpu_that_others_use_is_warned_of(no_gpu, monkeypatch, free_gib, status):
    on_the_cpu = torch.ones(8, 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H100")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_gib * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch, "ones", lambda *_, **__: on_the_cpu)
    (check,) = checks("cuda:0")
    assert (check.status, check.found) == (status, f"H100, {free_gib}.0 of 80.0 GiB free")


def test_a_torch_that_cannot_be_imported_is_a_problem_not_a_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (check,) = doctor._devices()
    assert check.status == "problem"
    assert check.remedy == "pip install --force-reinstall torch"


def test_optional_programs_are_told_with_their_purpose_and_their_absence_is_no_problem(no_gpu):
    for name in ("dcm2niix", "dciodvfy", "bids-validator-deno", "chromium"):
        (check,) = checks(name)
        assert check.status == "ok"
        assert "optional" in check.found
        assert "install" in check.found


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The GVS bundle in another checkout, to be damaged."""
    shutil.copytree(find_bundle("gvs").root, tmp_path / "bundles" / "gvs")
    monkeypatch.setattr(doctor, "bundles_folder", lambda: tmp_path / "bundles")
    bundle = Bundle(tmp_path / "bundles" / "gvs", "gvs")
    monkeypatch.setattr(doctor, "list_bundles", lambda: [bundle])
    return bundle


def test_weights_that_are_those_of_the_model_card_and_load_are_fine(copied):
    (check,) = checks("bundle gvs")
    assert check.status == "ok"
    assert check.found.endswith("load")


@pytest.mark.parametrize("damage", ["missing", "other", "truncated", "no card"])
def test_weights_that_are_not_those_of_the_model_card_are_a_problem(copied, damage):
    if damage == "missing":
        copied.weights.unlink()
    elif damage == "other":
        copied.weights.write_bytes(b"other")
    elif damage == "truncated":
        copied.weights.write_bytes(copied.weights.read_bytes()[:1000])
    else:
        (copied.root / "docs" / "README.md").unlink()
    (check,) = checks("bundle gvs")
    assert check.status == "problem"
    assert check.remedy == f"git checkout -- {Path('bundles') / 'gvs'}"


def test_a_bundle_whose_config_is_damaged_is_a_problem(copied):
    copied.config("inference").write_text("{")
    (check,) = checks("bundle gvs")
    assert check.status == "problem"
    assert "no readable JSON config" in check.found


def test_a_bundle_that_has_nothing_to_train_needs_no_weights(copied):
    copied.weights.unlink()
    copied.config("train").unlink()
    assert checks("bundle gvs") == [Check("bundle gvs", "ok", "needs no weights")]


def test_a_bundle_that_comes_without_weights_is_fine(copied):
    copied.weights.unlink()
    (copied.root / "docs" / "README.md").write_text("No weights yet.")
    assert checks("bundle gvs") == [Check("bundle gvs", "ok", "comes without weights, to be trained")]
