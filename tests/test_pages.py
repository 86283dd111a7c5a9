"""What the pages of `docs/` show is run, block by block, in the folder of a reader who has small scans."""

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from dicom_series import write_series
from shown_commands import BLOCK, SMALL, Block, blocks, run, steps

from pipeline.phantoms import brain_phantom

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# What a paper's page shows takes hours, and is parsed by test_docs.py.
PAGES = {
    path.relative_to(DOCS).as_posix(): path
    for path in sorted(DOCS.rglob("*.md"))
    if path.relative_to(DOCS).parts[0] != "papers"
}
RUN = {"bash", "python"}
SHOWN = {name: [block for block in blocks(path.read_text()) if block.reason is None] for name, path in PAGES.items()}
COARSE: dict[str, Any] = {"shape": (44, 52, 12), "spacing_mm": (4.0, 4.0, 10.0)}
THICK: dict[str, Any] = {"shape": (44, 52, 8), "spacing_mm": (4.0, 4.0, 15.0)}  # few slices for networks as they ship
# The weights that ship are tried by these pages; others take a run's, or none.
SHIPPED = ("api.md", "tutorials/own_scan.md")
OTHERS = {"PHS_SYNTHESIZE_BUNDLE": "run", "PHS_BIDS_BUNDLE": "run", "PHS_FILL_BUNDLE": "harmonic"}
# One epoch of a tiny network is enough; of the bundles of one page, not all have plain `filters`.
TINY = "filters=4 spacing_mm=4 size=[64,64]"
SETTINGS = {"tutorials/few_labels.md": "spacing_mm=8"}


@pytest.mark.parametrize("name", PAGES)
def test_a_block_is_run_or_says_why_not(name: str) -> None:
    """Commands stand in fenced blocks of a named language; there are no others."""
    text = PAGES[name].read_text()
    unsaid = [block for block in blocks(text) if block.language not in {*RUN, "text", "json"} and not block.reason]
    assert unsaid == []
    outside = BLOCK.sub("", text).splitlines()
    assert [line for line in outside if line.startswith("    phs-pipeline ")] == []
    assert text.count("<!-- not run: ") == sum(block.reason is not None for block in blocks(text))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, shown in SHOWN.items() if shown])
def test_blocks_run_in_the_order_in_which_they_are_shown(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    without_shape_checks: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("pipeline.phantoms.cohort.brain_phantom", partial(brain_phantom, **COARSE))
    for variable, value in (SMALL if name in SHIPPED else SMALL | OTHERS).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PHS_TRAIN_SETTINGS", SETTINGS.get(name, TINY))
    reader = Reader(tmp_path, request)
    text = "\n".join(re.sub(r"(^|  )#.*", "", block.text, flags=re.MULTILINE) for block in SHOWN[name])
    reader.take(text)
    if name not in SHIPPED and re.search(r"phs-pipeline (synthesize|bids) ", text) and " -o run " not in text:
        reader.take("run")
    space: dict[str, Any] = {}
    for block in SHOWN[name]:
        go(block, space, SETTINGS.get(name, TINY).split())


def go(block: Block, space: dict[str, Any], settings: list[str]) -> None:
    """Run a block; Python's share their names, as the cells of a notebook do.

    A training with settings of its own gets those of a tiny network too, which others have from the environment.
    """
    if block.language == "python":
        exec(compile(block.text, block.text, "exec"), space)
        return
    for step in steps(block.text):
        given = {word.partition("=")[0] for word in step}
        tiny = "train" in step[:2] and "--set" in step
        more = [f"--set={each}" for each in settings if tiny and each.partition("=")[0] not in given]
        run([*step, *more] if more else step)


class Reader:
    """Someone with a folder of small scans, and with what other pages made of them.

    Args:
        folder: empty.
        request: gives the session's cohort and run, when they are asked for.
    """

    def __init__(self, folder: Path, request: pytest.FixtureRequest) -> None:
        self.folder = folder
        self.fixture = request.getfixturevalue
        self.phantoms = {number: brain_phantom(number, **THICK) for number in range(3)}
        self.makers: dict[str, Callable[[Path], object]] = {
            "volume.nii.gz": lambda path: self.write(0, "image", path),
            "lesion.nii.gz": lambda path: self.write(0, "lesion", path),
            "scans": lambda path: [self.write(n, "image", path / f"patient{n}.nii.gz") for n in (0, 1)],
            "dataset": self.dataset,
            "study_folder": self.series,
            "my_cohort": lambda path: shutil.copytree(self.fixture("phantom_scans"), path),
            "my_bundle": lambda path: shutil.copytree(ROOT / "bundles/gvs", path),
            "cohort.csv": self.datalist,
            "cohort": lambda path: shutil.copytree(self.fixture("phantom_cohort"), path),
            "run": lambda path: shutil.copytree(self.fixture("laptop_run"), path),
            "report": self.report,
            "report_cgan": self.report,
        }

    def take(self, text: str) -> None:
        """Put into the folder what blocks speak of and do not make."""
        words = re.split(r"[\s\"'/()\[\],]+", text)
        for name, make in self.makers.items():
            first = words.index(name) if name in words else None
            if first is not None and words[first - 1] != "-o" and not (self.folder / name).exists():
                make(self.folder / name)

    def write(self, number: int, what: str, path: Path) -> None:
        phantom = self.phantoms[number]
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(getattr(phantom, what), phantom.affine), path)

    def dataset(self, path: Path) -> None:
        """Two people in BIDS, FLAIR and T1w, with lesion masks."""
        for number in (1, 2):
            label = f"sub-0{number}"
            for suffix in ("FLAIR", "T1w"):
                self.write(number, "image", path / f"{label}/anat/{label}_{suffix}.nii.gz")
            self.write(number, "lesion", path / f"derivatives/manual/{label}/anat/{label}_label-lesion_mask.nii.gz")
        (path / "dataset_description.json").write_text(json.dumps({"Name": "two people", "BIDSVersion": "1.10.0"}))

    def datalist(self, path: Path) -> None:
        """Six people, each scan and mask in a line."""
        scans = self.fixture("phantom_scans")
        masks = [next((scans / f"derivatives/manual/sub-{n}/anat").glob("*_mask.nii.gz")) for n in range(6)]
        rows = [f"{scans}/sub-{n}/anat/sub-{n}_FLAIR.nii.gz,{mask},sub-{n}" for n, mask in enumerate(masks)]
        path.write_text("\n".join(["image,mask,subject", *rows]) + "\n")

    def series(self, path: Path) -> None:
        """A FLAIR in DICOM."""
        write_series(path, self.phantoms[0].image.astype(np.int16), affine=self.phantoms[0].affine)

    def report(self, path: Path) -> None:
        """Of the session's run, under the report's own name."""
        run(["phs-pipeline", "evaluate", "-b", str(self.fixture("laptop_run")), "--data",
             str(self.fixture("phantom_cohort")), "-o", str(path), "--name", path.name])  # fmt: skip
