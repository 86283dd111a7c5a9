"""Checks of this machine: one sentence each, and the command that mends what is wrong.

It has to answer on machines where something is broken: whatever may be missing is imported by the check that needs it.
"""

import getpass
import importlib.metadata
import multiprocessing
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.bundles import Bundle, bundles_folder, list_bundles
from pipeline.errors import PipelineError, first_line
from pipeline.files import sha256

DISTRIBUTION = "phs-pipeline"
PYTHON = (3, 10)
GIB = 2**30

# Below the first nothing works, below the second a training or a large scan may not.
MEMORY_GIB = (2.0, 6.0)
DISK_GIB = (1.0, 5.0)
GPU_GIB = 4.0
SHARED_MIB = 128  # containers get 64 MiB unless they are given more

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
SHARED = Path("/dev/shm")  # noqa: S108
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
NVIDIA = Path("/proc/driver/nvidia")
# Set in containers of docker-compose.yml, where nothing but what is mounted can be written, and results go here.
MOUNTED_OUT = "PHS_MOUNTED_OUT"
OUT = Path("/out")

PROGRAMS = {
    "dcm2niix": ("converts DICOM to NIfTI, to compare with", "apt-get install dcm2niix"),
    "dciodvfy": ("checks that DICOM follows the standard", "apt-get install dicom3tools"),
    "bids-validator-deno": ("checks BIDS datasets", "pip install bids-validator-deno"),
    "chromium": ("shows report pages on a machine without a screen", "apt-get install chromium"),
}


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Args:
        name: of what was looked at.
        status: `problem` where something does not work, `warning` where some things may not.
        found: one sentence.
        remedy: what to type; empty where nothing is wrong.
    """

    name: str
    status: Literal["ok", "warning", "problem"]
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status:8} {self.name}: {self.found}" + (f"; remedy: {self.remedy}" if self.remedy else "")


def examine() -> Iterator[Check]:
    """Look at everything, the quick things first; nothing is changed and no network is used."""
    yield _python()
    yield from _packages()
    yield _user()
    yield _memory()
    yield _disk()
    yield _shared_memory()
    yield _results_folder()
    yield _home()
    yield _temporary_folder()
    yield from _devices()
    yield from (_weights(bundle) for bundle in list_bundles())
    yield from (_program(name) for name in PROGRAMS)


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        return Check(
            "Python", "problem", f"{found}, expected {wanted} or newer", f"conda create -n phs python={wanted}"
        )
    return Check("Python", "ok", found)


def _packages() -> Iterator[Check]:
    # Comes with matplotlib, which may be what is missing.
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(line) for line in importlib.metadata.requires(DISTRIBUTION) or []]
    except ImportError:  # of the module, or PackageNotFoundError
        remedy = "pip install -c constraints.txt ."
        yield Check("packages", "warning", f"{DISTRIBUTION} is not installed, so versions were not checked", remedy)
        return
    right = []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        remedy = f"pip install --upgrade '{requirement.name}{requirement.specifier}'"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Check("packages", "problem", f"{requirement.name} is not installed", remedy)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            right.append(f"{requirement.name} {version}")
        else:
            found = f"{requirement.name} {version}, expected {requirement.specifier}"
            yield Check("packages", "problem", found, remedy)
    yield Check("packages", "ok", ", ".join(right) or "none is as it should be")


def _user() -> Check:
    name = getpass.getuser()
    user_id = os.getuid() if hasattr(os, "getuid") else None
    if user_id == 0 and any(mark.exists() for mark in CONTAINER_MARKS):
        return Check(
            "user",
            "warning",
            "root in a container, who will own all results",
            'docker run --user "$(id -u):$(id -g)" …, or docker compose run …, which sets it',
        )
    return Check("user", "ok", name if user_id is None else f"{name} ({user_id})")


def _memory() -> Check:
    free = _free_memory()
    if free is None:
        return Check("memory", "ok", "this system does not tell how much is free")
    return _enough(
        "memory",
        free,
        MEMORY_GIB,
        "close other programs, or ask for more (docker run --memory=8g …, sbatch --mem=8G …)",
    )


def _free_memory() -> float | None:
    """Bytes that may be taken, by the system's and the container's account."""
    try:
        available = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(encoding="ascii"), flags=re.MULTILINE)
    except OSError:
        return None
    if available is None:
        return None
    free = int(available[1]) * 1024.0
    try:
        limit, used = ((CGROUP / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else min(free, float(limit) - float(used))


def _disk() -> Check:
    folder, name = _results()
    return _enough(
        "disk",
        float(shutil.disk_usage(folder).free),
        DISK_GIB,
        "free some space, or write to another disk with -o FOLDER",
        f" in the {name}",
    )


def _results() -> tuple[Path, str]:
    """The folder that results go to, and what it is called."""
    return (OUT, "mounted folder") if MOUNTED_OUT in os.environ and OUT.is_dir() else (Path(), "current folder")


def _enough(name: str, free: float, limits_gib: tuple[float, float], remedy: str, where: str = "") -> Check:
    free_gib = free / GIB
    found = f"{free_gib:.1f} GiB free{where}"
    needed, better = limits_gib
    if free_gib < needed:
        return Check(name, "problem", f"{found}, expected {needed:g} GiB at least", remedy)
    if free_gib < better:
        return Check(name, "warning", f"{found}, {better:g} GiB are better for a training", remedy)
    return Check(name, "ok", found)


def _shared_memory() -> Check:
    remedy = "docker run --shm-size=2g …, or docker compose run …, which sets it"
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        return Check("shared memory", "problem", f"processes cannot share locks ({error.strerror or error})", remedy)
    if not SHARED.is_dir():
        return Check("shared memory", "ok", "this system has no /dev/shm and needs none")
    size_mib = shutil.disk_usage(SHARED).total / 2**20
    found = f"{size_mib:.0f} MiB in /dev/shm"
    if size_mib < SHARED_MIB:
        return Check("shared memory", "warning", f"{found}, too little for data loaders with several workers", remedy)
    return Check("shared memory", "ok", found)


def _results_folder() -> Check:
    folder, name = _results()
    if _writable(folder):
        return Check(name, "ok", f"{folder.absolute()} can be written")
    remedy = "set UID and GID in .env to what `id -u` and `id -g` say, or OUT to a folder of yours"
    if folder != OUT:
        remedy = "cd to a folder of yours, or give -o FOLDER"
    return Check(name, "warning", f"{folder.absolute()} cannot be written, so results cannot go there", remedy)


def _home() -> Check:
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    if home is not None and _writable(home):
        return Check("home folder", "ok", f"{home} can be written")
    remedy = "export HOME=$(mktemp -d)"
    found = f"{home or 'none'} cannot be written, so fonts and kernels are prepared anew in each run"
    return Check("home folder", "warning", found, remedy)


def _temporary_folder() -> Check:
    remedy = "mkdir -p ~/tmp && export TMPDIR=~/tmp"
    try:
        folder = Path(tempfile.gettempdir())
    except OSError:
        return Check("temporary folder", "problem", "there is none that can be written", remedy)
    if _writable(folder):
        return Check("temporary folder", "ok", f"{folder} can be written")
    return Check("temporary folder", "problem", f"{folder} cannot be written", remedy)


def _writable(folder: Path) -> bool:
    # Tried, not asked: permission bits say nothing of read-only mounts and full quotas.
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError:
        return False
    return True


def _devices() -> Iterator[Check]:
    try:
        import torch
    except Exception as error:  # a broken installation fails in any way
        reason = first_line(error)
        yield Check("devices", "problem", f"torch cannot be imported ({reason})", "pip install --force-reinstall torch")
        return
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        name = f"cuda:{number}"
        try:
            ones = torch.ones(8, 8, device=name)
            float((ones @ ones).sum())
            free, total = torch.cuda.mem_get_info(number)
        except RuntimeError as error:
            found = f"{torch.cuda.get_device_name(number)} does not compute ({first_line(error)})"
            remedy = "nvidia-smi, and install the torch for this driver from https://pytorch.org/get-started/locally"
            yield Check(name, "problem", found, f"{remedy}; until then --device cpu")
            continue
        found = f"{torch.cuda.get_device_name(number)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
        if free < GPU_GIB * GIB:
            yield Check(name, "warning", found, "nvidia-smi, to see who uses it; or --device cpu")
        else:
            yield Check(name, "ok", found)
    if torch.backends.mps.is_available():
        yield Check("mps", "ok", "Apple's GPU can be used")
    if not torch.cuda.is_available() and (NVIDIA.exists() or shutil.which("nvidia-smi")):
        built = f"torch {torch.__version__} is built " + (
            f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        )
        remedy = "nvidia-smi, then install the torch for this driver from https://pytorch.org/get-started/locally"
        yield Check("cuda", "warning", f"there is an NVIDIA driver, but no GPU that torch can use; {built}", remedy)
    yield Check("cpu", "ok", f"{_cores()} cores, {torch.get_num_threads()} threads for torch")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _weights(bundle: Bundle) -> Check:
    name, folder = f"bundle {bundle.name}", bundles_folder()
    if not bundle.trainable:
        return Check(name, "ok", "needs no weights")
    try:
        card = (bundle.root / "docs" / "README.md").read_text(encoding="utf-8")
        promised = re.search(r"SHA-256 ([0-9a-f]{12,64})", card)
        if not promised and not bundle.weights.is_file():
            return Check(name, "ok", "comes without weights, to be trained")
        trouble = _trouble(bundle, promised[1] if promised else "none")
    except OSError as error:
        trouble = f"{error.filename} cannot be read ({error.strerror})"
    if not trouble:
        return Check(name, "ok", f"weights {sha256(bundle.weights)[:12]}… load")
    in_checkout = f"git checkout -- {bundle.root.relative_to(folder.parent)}"
    installed = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
    return Check(name, "problem", trouble, installed if folder.name == "_bundles" else in_checkout)


def _trouble(bundle: Bundle, promised: str) -> str | None:
    """What is wrong with weights that a model card promises."""
    if not bundle.weights.is_file():
        return f"its weights, {promised[:12]}… by its model card, are missing"
    found = sha256(bundle.weights)
    if not found.startswith(promised):
        return f"its weights are {found[:12]}…, its model card says {promised[:12]}"
    try:
        from pipeline.inference import load_predictor

        load_predictor(bundle, device="cpu")
    except PipelineError as error:
        return str(error)
    except Exception as error:  # MONAI or torch are broken
        return f"its weights cannot be loaded ({first_line(error)}), see the other problems first"
    return None


def _program(name: str) -> Check:
    purpose, remedy = PROGRAMS[name]
    path = shutil.which(name)
    if path:
        return Check(name, "ok", path)
    return Check(name, "ok", f"not there; optional, {purpose} ({remedy})")
