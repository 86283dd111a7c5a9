"""What is written once for a run: an index of the pages, tables, and the record that `--report` asks for."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.files import write_json, write_text
from pipeline.reports.index_page import index_page, scores_csv
from pipeline.synthesis.run import Outcome
from pipeline.synthesis.synthesizer import Synthesizer

PACKAGES = ("torch", "monai", "numpy", "nibabel", "pydicom", "SimpleITK")


def write_folder_pages(folder: Path, outcome: Outcome) -> Path | None:
    """Write `index.html` and `scores.csv` of all results in the folder, of this run or an earlier one.

    Returns:
        The index; None if one scan was run, which has a page of its own, or none has a result.
    """
    if len(outcome.records) == 1 or len(outcome.of("failed")) == len(outcome.records):
        return None
    index = folder / "index.html"
    write_text(index, index_page(folder))
    write_text(folder / "scores.csv", scores_csv(folder))
    return index


def write_run_report(
    path: Path, outcome: Outcome, synthesizer: Synthesizer, provenance: Mapping[str, Any], keep_names: bool
) -> None:
    """Write what a run did, as JSON.

    Args:
        path: of the file.
        outcome: of the run.
        synthesizer: the model.
        provenance: which bundle and weights.
        keep_names: errors may name DICOM folders.
    """
    scans = []
    for source, record in outcome.records.items():
        error = record.error
        if error is not None and source.kind == "dicom" and not keep_names:
            error = error.replace(str(source.path), record.name)
        scans.append(
            {
                "Name": record.name,
                "Status": record.status,
                "Error": error,
                "Seconds": {what: round(seconds, 3) for what, seconds in record.seconds.items()},
                "PeakMemoryMiB": record.peak_memory_mib and round(record.peak_memory_mib, 1),
                "Outputs": [str(file) for file in record.files],
            }
        )
    write_json(
        path,
        {
            "Warning": "Research use only, not for diagnosis.",
            "GeneratedBy": {"Name": "phs-pipeline", "Version": __version__},
            **provenance,
            "Device": str(synthesizer.device),
            "Versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "Counts": {status: len(outcome.of(status)) for status in ("written", "skipped", "failed")},
            "Scans": scans,
        },
    )
