"""What is written once for a run: the index, the table, the notes on scans that failed, and the record."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import torch

from pipeline.inference import HarmonicFiller, Inputs, Outcome, Request, predict_scans
from pipeline.inference.outputs import Form
from pipeline.inference.products import Result
from pipeline.inference.run import Record
from pipeline.preprocessing.window import WindowRule
from pipeline.reports import ScanPage, folder
from pipeline.reports import index_page as index_page_module
from pipeline.reports.folder import write_folder_pages, write_run_report
from pipeline.scans import Scan
from pipeline.scans.sources import Source, open_sources

DIFFERENCE = "difference (orange: removed, blue: added)"
PROVENANCE = {"Bundle": "toy", "BundleVersion": "0.1.0"}


class Toy:
    """A predictor that has one answer."""

    kind = "translator"
    output_types = frozenset({"image"})
    channels = ("image",)
    device = torch.device("cpu")

    def __init__(self, answer: Result) -> None:
        self.answer = answer
        self.main = answer.main.name, answer.main.kind
        self.networks: dict[str, torch.nn.Module] = {}
        self.settings: dict[str, object] = {}

    def __call__(self, inputs: Inputs) -> Result:
        return self.answer


@pytest.fixture
def write_scan(tmp_path: Path, scan: Scan) -> Callable[[str], Path]:
    def write(name: str) -> Path:
        (tmp_path / "in").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(scan.stored, scan.affine), tmp_path / "in" / name)
        return tmp_path / "in" / name

    return write


def run(paths: list[Path], folder: Path, answer: Result) -> Outcome:
    with open_sources(paths) as sources:
        request = Request(form=Form(page=ScanPage()))
        return predict_scans(sources, Toy(answer), PROVENANCE, folder, lambda name, said: None, request)


@pytest.mark.parametrize(
    ("kind", "column", "title", "pictured"),
    [
        ("result", "ChangedPercent", "pseudo-healthy image", f"SYNTHETIC pseudo-healthy · {DIFFERENCE}"),
        (
            "segmented",
            "LesionMl",
            "lesion mask",
            "SYNTHETIC lesion mask (yellow border) · SYNTHETIC head mask (yellow border)",
        ),
        ("scored", "brightness", "brightness", ""),
        ("filled", "FilledMl", "filled image", f"SYNTHETIC filled · {DIFFERENCE}"),
        ("translated", None, "translated CT image", "SYNTHETIC translated CT"),
    ],
)
def test_results_of_every_kind_have_a_page_and_a_row_of_their_numbers(
    kind: str,
    column: str | None,
    title: str,
    pictured: str,
    write_scan: Callable[[str], Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    answer: Result = request.getfixturevalue(kind)
    outcome = run([write_scan("one.nii.gz"), write_scan("two.nii.gz")], tmp_path / "out", answer)
    assert len(outcome.of("written")) == 2
    index = write_folder_pages(tmp_path / "out", outcome, 2)
    assert index == tmp_path / "out" / "index.html"
    html = index.read_text(encoding="utf-8")
    assert f"<h1>SYNTHETIC {title}: 2 scans</h1>" in html
    assert "0 failed, 0 with warnings, 2 without." in html
    pages = sorted(path.name for path in (tmp_path / "out").glob("*.html") if path != index)
    assert len(pages) == 2
    assert all(f'href="{page}"' in html for page in pages)
    assert html.count("data:image/png;base64,") == 2
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert captions == [" · ".join(filter(None, ("input", pictured)))] * 2
    rows = list(csv.DictReader((tmp_path / "out" / "scores.csv").open(encoding="utf-8")))
    assert [row["Scan"] for row in rows] == ["one", "two"]
    assert [row["Product"] for row in rows] == [answer.main.name] * 2
    if column is None:
        assert not answer.figures
        return
    expected = next(figure.value for figure in answer.figures if figure.name == column)
    assert [float(row[column]) for row in rows] == [pytest.approx(expected)] * 2


def test_one_scan_alone_has_a_page_of_its_own_and_no_index(
    write_scan: Callable[[str], Path], result: Result, tmp_path: Path
) -> None:
    outcome = run([write_scan("one.nii.gz")], tmp_path / "out", result)
    assert write_folder_pages(tmp_path / "out", outcome, 1) is None
    assert not (tmp_path / "out" / "index.html").exists()
    assert write_folder_pages(tmp_path / "nowhere", outcome, 2) is None


def test_a_scan_that_failed_is_noted_until_it_succeeds(
    write_scan: Callable[[str], Path], result: Result, tmp_path: Path
) -> None:
    good, bad = write_scan("good.nii.gz"), write_scan("bad.nii.gz")
    whole = bad.read_bytes()
    bad.write_bytes(whole[:100])
    out = tmp_path / "out"
    write_folder_pages(out, run([good, bad], out, result), 2)
    (note,) = (out / "failed").glob("*.json")
    assert json.loads(note.read_text())["Scan"] == "bad"
    assert "1 failed, 0 with warnings, 1 without." in (out / "index.html").read_text(encoding="utf-8")
    bad.write_bytes(whole)
    write_folder_pages(out, run([bad], out, result), 1)
    assert not list((out / "failed").glob("*.json"))
    assert "0 failed, 0 with warnings, 2 without." in (out / "index.html").read_text(encoding="utf-8")


def test_the_record_has_what_was_estimated_how_long_it_took_and_on_what(tmp_path: Path) -> None:
    source = Source(tmp_path / "scan.nii.gz", "scan", "nifti")
    record = Record(
        "scan",
        "written",
        files=[tmp_path / "scan_desc-age.json"],
        numbers={"age": "63.2 years"},
        seconds={"read": 0.1, "inference": 1.23456, "write": 0.2},
        peak_memory_mib=812.34,
    )
    write_run_report(
        tmp_path / "run.json", Outcome({source: record}), HarmonicFiller(WindowRule()), PROVENANCE, keep_names=False
    )
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["Bundle"] == "toy"
    assert report["Device"] == "cpu"
    assert report["Versions"]["torch"] == torch.__version__
    assert report["Counts"] == {"written": 1, "skipped": 0, "failed": 0}
    (scan,) = report["Scans"]
    assert scan["Numbers"] == {"age": "63.2 years"}
    assert scan["Seconds"] == {"read": 0.1, "inference": 1.235, "write": 0.2}
    assert scan["PeakMemoryMiB"] == 812.3
    assert scan["Outputs"] == [str(tmp_path / "scan_desc-age.json")]


def test_the_index_shows_what_another_run_added_while_it_was_made(
    result: Result, write_scan: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = run([write_scan("one.nii.gz")], out, result)
    others = [write_scan("two.nii.gz"), write_scan("three.nii.gz")]
    make = folder.index_page

    def meanwhile(*shown: Any) -> str:
        page = make(*shown)
        if others:
            run([others.pop()], out, result)
        return page

    monkeypatch.setattr(folder, "index_page", meanwhile)
    index = write_folder_pages(out, first, 3)
    assert index is not None
    for name in ("one", "two", "three"):
        assert f">{name}<" in index.read_text()
        assert f"{name}," in (out / "scores.csv").read_text()


def test_each_sidecar_is_read_once_for_index_and_table_while_nothing_changes(
    result: Result, write_scan: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, read = tmp_path / "out", []
    outcome = run([write_scan("one.nii.gz"), write_scan("two.nii.gz")], out, result)
    parse = index_page_module.read_json
    monkeypatch.setattr(index_page_module, "read_json", lambda path: read.append(path) or parse(path))
    write_folder_pages(out, outcome, 2)
    assert len(read) == len(set(read)) > 0
