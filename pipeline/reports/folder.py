"""What is written once for a run: an index of the pages, tables, and the record that `--report` asks for."""

import contextlib
import hashlib
import itertools
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import RESEARCH_ONLY, __version__
from pipeline.files import read_json, write_json, write_text
from pipeline.inference.load import Predictor
from pipeline.inference.run import Outcome, Record
from pipeline.reports.index_page import FAILED, index_page, read_entries, scores_csv
from pipeline.scans.sources import Source

# While other runs go on, each of which will write the pages at its end.
MOST_LOOKS = 5
LONGEST_NAME = 50  # characters of up to four bytes
PACKAGES = ("torch", "monai", "numpy", "nibabel", "pydicom", "SimpleITK")


def write_folder_pages(folder: Path, outcome: Outcome, asked: int) -> Path | None:
    """Write `index.html` and `scores.csv` of all scans of the folder, of this run or an earlier one.

    Scans that failed are noted in a subfolder until they succeed, so that runs which share a cohort show all of them.

    Args:
        folder: output folder.
        outcome: of the run.
        asked: number of scans that were asked for, of which the run may have taken a share.

    Returns:
        The index; None if no run has had a result, or if one scan was asked for and the folder has no index: the scan
        has a page of its own.
    """
    index = folder / "index.html"
    if not folder.is_dir() or (asked == 1 and not index.is_file()):
        return None
    # A mended scan has another hash, and so may have another name.
    notes: dict[tuple[str, str], list[Path]] = {}
    for path in (folder / FAILED).glob("*.json"):
        told = read_json(path)
        for known_by in (("Scan", str(told.get("Scan"))), ("PathSha256", str(told.get("PathSha256")))):
            notes.setdefault(known_by, []).append(path)
    for source, record in outcome.records.items():
        digits = hashlib.sha256(os.fsencode(source.path.absolute()) + os.fsencode(source.stem)).hexdigest()[:8]
        for path in (*notes.get(("Scan", record.name), ()), *notes.get(("PathSha256", digits), ())):
            path.unlink(missing_ok=True)
        if record.status == "failed":
            error = _without_path(source, record)
            note = folder / FAILED / f"{record.name[:LONGEST_NAME]}_{digits}.json"
            write_json(note, {"Scan": record.name, "PathSha256": digits, "Error": error})
    return index if write_index(folder) else None


def write_index(folder: Path) -> int:
    """Write `index.html` and `scores.csv` of the results under a folder, each of whose sidecars is read once.

    Args:
        folder: output folder of one or several runs, which exists.

    Returns:
        How many results there are; of none, no page is begun.
    """
    index, count = folder / "index.html", 0
    # Runs that end together read the folder before the others' last results lie there: whoever writes last looks again.
    written: bytes | None = None
    for _ in range(MOST_LOOKS):
        present = _records(folder)
        if present == written:
            break
        entries = read_entries(folder)
        count = len(entries)
        if count or index.is_file():
            write_text(index, index_page(folder, entries))
            write_text(folder / "scores.csv", scores_csv(folder, entries))
        written = present
    return count


def _records(folder: Path) -> bytes:
    """By what it is seen that a folder's sidecars and notes are the same as before."""
    digest = hashlib.sha256()
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".json"):
                path = os.path.join(root, name)  # noqa: PTH118  # ten thousand paths
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path)  # noqa: PTH116
                    digest.update(os.fsencode(f"{path} {status.st_mtime_ns} {status.st_size} {status.st_ino}\n"))
    return digest.digest()


def write_run_report(
    path: Path, outcome: Outcome, predictor: Predictor, provenance: Mapping[str, Any], keep_names: bool
) -> None:
    """Write what a run did, as JSON.

    Args:
        path: of the file.
        outcome: of the run.
        predictor: the model.
        provenance: which bundle and weights.
        keep_names: errors may name DICOM folders.
    """
    scans = []
    for source, record in outcome.records.items():
        hidden = source.kind == "dicom" and not keep_names
        scans.append(
            {
                "Name": record.name,
                "Status": record.status,
                "Error": _without_path(source, record) if hidden else record.error,
                "Seconds": {what: round(seconds, 3) for what, seconds in record.seconds.items()},
                "PeakMemoryMiB": record.peak_memory_mib and round(record.peak_memory_mib, 1),
                "Numbers": record.numbers,
                "Outputs": [str(file) for file in record.files],
            }
        )
    write_json(
        path,
        {
            "Warning": RESEARCH_ONLY,
            "GeneratedBy": {"Name": "phs-pipeline", "Version": __version__},
            **provenance,
            "Device": str(predictor.device),
            "Versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "Counts": {status: len(outcome.of(status)) for status in ("written", "skipped", "failed")},
            "Scans": scans,
        },
    )


def joined_run_reports(paths: Sequence[Path]) -> dict[str, Any] | None:
    """What runs did that shared some scans, as one report.

    Args:
        paths: what each wrote as `write_run_report`, in the order of the shares.

    Returns:
        The report, scans in the order of the whole; None of no reports.
    """
    reports = [read_json(path) for path in paths]
    if not reports:
        return None
    in_turns = itertools.zip_longest(*(report["Scans"] for report in reports))
    return {
        **reports[0],
        "Device": ", ".join(sorted({report["Device"] for report in reports})),
        "Counts": {status: sum(report["Counts"][status] for report in reports) for status in reports[0]["Counts"]},
        "Scans": [scan for scans in in_turns for scan in scans if scan is not None],
    }


def _without_path(source: Source, record: Record) -> str | None:
    """Why a scan failed, without where it lies and what files it was read from or with: a name may be a patient's."""
    error = record.error
    if error is None:
        return None
    error = error.replace(str(source.path), record.name)
    for number, path in enumerate(record.beside, 1):
        error = error.replace(str(path), f"file {number} beside it")
    for number, file in enumerate(
        dict.fromkeys(each.file for each in source.series.slices) if source.series else (), 1
    ):
        error = error.replace(str(file), f"file {number}").replace(file.name, f"file {number}")
    return error
