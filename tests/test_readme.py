"""Every command that the README shows is run, on a small cohort in an empty folder."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from shown_commands import SMALL, bash_lines, run

from pipeline.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]


def commands() -> list[str]:
    return bash_lines((ROOT / "README.md").read_text())


@pytest.fixture(scope="module")
def folder(phantom_scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: the bundles, a scan, and a cohort in BIDS."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "bundles", folder / "bundles")
    shutil.copytree(phantom_scans, folder / "my_cohort")
    shutil.copyfile(phantom_scans / "sub-0/anat/sub-0_FLAIR.nii.gz", folder / "volume.nii.gz")
    mask = next((phantom_scans / "derivatives/manual/sub-0/anat").glob("*_mask.nii.gz"))
    shutil.copyfile(mask, folder / "lesion.nii.gz")
    return folder


@pytest.mark.slow
def test_commands_run_in_the_order_in_which_they_are_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [shlex.split(line) for line in commands() if line.startswith(("phs-pipeline", "python"))]
    shown = {words[1] for words in lines}
    assert shown >= {"preprocess", "train", "evaluate", "synthesize", "enhance", "fill", "segment", "predict"}
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    for words in lines:
        run([*words, "--epochs", "1", "--filters", "4"] if words[0] == "python" else words)
    for made in ("cohort/summary.png", "run/models/model.pt", "report/report.md", "run_monai/models/model.pt"):
        assert (folder / made).is_file(), made
    assert len(list((folder / "out").glob("*.nii.gz"))) == 4


def test_make_knows_the_targets() -> None:
    lines = [line for line in commands() if line.startswith("make")]
    assert lines == ["make demo", "make test"]
    for line in lines:
        plan = subprocess.run([*line.split(), "-n"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert ("phs-pipeline demo" if "demo" in line else "-m pytest") in plan


def test_make_quick_leaves_the_slow_tests_out() -> None:
    assert "`make quick`" in (ROOT / "CONTRIBUTING.md").read_text()
    plan = subprocess.run(["make", "quick", "-n"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert '-m "not slow and not data"' in plan


def test_container_commands_are_commands_of_ours() -> None:
    """They are run for real by tests/containers.sh, where a Docker Engine is at hand."""
    script = (ROOT / "tests" / "containers.sh").read_text()
    services = [shlex.split(line)[4] for line in commands() if line.startswith("docker compose run --rm")]
    assert set(services) == {"phantom", "preprocess", "train", "evaluate", "synthesize"}
    for service in services:
        assert service in COMMANDS
        assert service in script


def test_nothing_else_is_shown() -> None:
    known = (
        "phs-pipeline ",
        "python -m monai.bundle run ",
        "make ",
        "docker compose ",
        "mkdir -p ",
        "cp .env.example ",
    )
    assert [line for line in commands() if not line.startswith(known)] == []


def test_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("http")]
    assert targets
    headings = {"#" + title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", text, flags=re.MULTILINE)}
    assert [target for target in targets if target not in headings and not (ROOT / target).exists()] == []
