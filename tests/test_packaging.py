"""An installed wheel is the whole program; the pinned versions fit it on every Python it supports."""

import importlib
import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline import __version__

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def pip(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    if built.returncode and "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("hatchling, which builds the wheel, cannot be fetched: no package index is reached")
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_a_tag_of_this_commit_names_the_version() -> None:
    """The number is not read from tags (CONTRIBUTING, Releasing); where there is one, they agree."""
    told = subprocess.run(["git", "tag", "--points-at", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert {tag for tag in told.stdout.split() if tag[:1] == "v" and tag[1:2].isdigit()} <= {f"v{__version__}"}


@pytest.mark.slow
def test_the_wheel_carries_the_package_and_the_bundles_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for source in ROOT.glob("bundles/*/configs/*.json"):
            assert archive.read(f"pipeline/_bundles/{source.relative_to(ROOT / 'bundles')}") == source.read_bytes()
    _, version = wheel.name.split("-")[:2]
    assert {name.partition("/")[0] for name in names} == {"pipeline", f"phs_pipeline-{version}.dist-info"}
    assert "pipeline/_bundles/gvs/configs/train.json" in names
    assert "pipeline/py.typed" in names
    assert f"phs_pipeline-{version}.dist-info/licenses/LICENSE" in names
    assert not [name for name in names if name.endswith((".nii", ".nii.gz", ".dcm", ".pyc"))]
    assert not [name for name in names if "/run/" in name]


@pytest.mark.slow
def test_the_wheel_states_the_licence_of_everything_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        about = message_from_bytes(archive.read(path))
        texts = {
            name: archive.read(f"{path.removesuffix('METADATA')}licenses/{name}").decode()
            for name in about.get_all("License-File", [])
        }
    licences = about["License-Expression"].split(" AND ")
    assert "Apache License" in texts["LICENSE"]
    assert "Apache-2.0" in licences
    inlined = texts["pipeline/reports/assets/niivue.LICENSE"]
    for name, licence in (("BSD 2-Clause", "BSD-2-Clause"), ("ISC", "ISC"), ("MIT", "MIT")):
        assert f"{name} License" in inlined
        assert licence in licences
    weighted = sorted(path.parents[1].name for path in ROOT.glob("bundles/*/models/model.pt"))
    assert weighted
    for bundle in weighted:
        assert "CC BY-NC-SA 4.0" in texts[f"bundles/{bundle}/docs/data_license.txt"]
    assert "CC-BY-NC-SA-4.0" in licences


@pytest.mark.slow
def test_the_wheel_says_what_an_index_shows(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        about = message_from_bytes(archive.read(path))
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert about["Author"] == "phs-pipeline developers"
    assert f"name: {about['Author']}" in citation
    assert about["Version"] == __version__
    assert f"version: {__version__}" in citation
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").startswith(f"# Changelog\n\n## {__version__} ")
    assert about["Summary"].endswith(".")
    assert about["Description-Content-Type"] == "text/markdown"
    classifiers = about.get_all("Classifier", [])
    assert {f"Programming Language :: Python :: {python}" for python in PYTHONS} <= set(classifiers)
    # An expression of the licence takes the place of classifiers, and an index refuses both.
    assert not [name for name in classifiers if name.startswith("License ::")]
    assert {"augmentation", "controls", "excel", "export"} <= set(about.get_all("Provides-Extra", []))


@pytest.mark.slow
def test_the_installed_command_finds_the_bundles_of_its_wheel(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed = pip("install", "--no-deps", "--target", str(site), str(wheel))
    assert installed.returncode == 0, installed.stderr
    listed = subprocess.run(
        [sys.executable, str(site / "bin" / "phs-pipeline"), "bundles"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0, listed.stderr
    assert "gvs" in listed.stdout
    assert str(site / "pipeline" / "_bundles" / "gvs") in listed.stdout


@pytest.mark.parametrize("python", PYTHONS)
def test_each_dependency_has_one_pinned_version_that_fits(python: str) -> None:
    pins: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            assert canonicalize_name(pin.name) not in pins, line
            (specifier,) = pin.specifier
            assert specifier.operator == "==", line
            pins[canonicalize_name(pin.name)] = specifier.version

    # Before Python 3.11 the parser is not in the standard library, but comes with pytest.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text
