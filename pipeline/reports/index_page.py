"""A cohort at a glance: every scan's volumes and warnings, what needs a look first on top."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from pipeline.mosaic import PANEL_PIXELS, TITLE_HEIGHT
from pipeline.reports.html import data_uri, render

# The sidecars of scans, not those of their anomaly maps and masks.
SIDECAR = re.compile(r"_desc-(pseudohealthy|enhanced)(_[A-Za-z0-9]+)?\.json$")
# In this subfolder, a file for each scan that failed.
FAILED = "failed"
VOLUMES = ("ChangedPercent", "ChangedMl", "RemovedMl", "AddedMl", "LesionMl", "EditedMl", "MeanAbsoluteChange")
KINDS = {"pseudohealthy": "pseudo-healthy", "enhanced": "enhanced"}
STATES = ("failed", "warnings", "ok")
# With more scans than this, pictures are linked: the page would become too large to open.
MOST_INLINE = 100
# Panels side by side in a picture of ours.
MOST_PANELS = 5
THUMBNAIL_HEIGHT = 88
COLOURS = 64
REPAIR = "run the scan again with --overwrite"
SPREADSHEET_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Entry:
    """One scan's result, as its sidecar tells it, or the note that it failed.

    Attributes:
        sidecar: the file.
        scan: the scan's name, with its folder within the cohort.
        kind: `pseudohealthy` or `enhanced`.
        problems: why the result cannot be used, one sentence each.
        warnings: from the check of the scan against the bundle's training.
        numbers: `VOLUMES` and, where there is uncertainty, `UncertaintyMean` and `UncertaintyLesionMean`; empty for a
            damaged sidecar.
        bundle: name and version.
        page: the scan's report, None if it is not there.
    """

    sidecar: Path
    scan: str
    kind: str
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    bundle: tuple[str, str] = ("", "")
    page: Path | None = None

    @property
    def state(self) -> str:
        """`failed`, `warnings` or `ok`."""
        return STATES[0] if self.problems else STATES[1] if self.warnings else STATES[2]


def read_entries(folder: Path) -> list[Entry]:
    """The results under a folder, what needs a look first on top.

    Failed ones come first, then those with warnings, then the others; in each group those come first whose edited
    tissue changed most. Sidecars of other programs are passed over.
    """
    entries = [
        entry
        for path in sorted(folder.rglob("*.json"))
        if SIDECAR.search(path.name)
        if (entry := _entry(path, folder)) is not None
    ]
    made = {Path(entry.scan).name for entry in entries}
    failed = map(_failed, sorted((folder / FAILED).glob("*.json")))
    # A scan that has a result, which other settings did not replace, is not without one.
    entries += [entry for entry in failed if entry.scan not in made]
    return sorted(
        entries, key=lambda entry: (STATES.index(entry.state), -entry.numbers.get("ChangedPercent", math.inf))
    )


def index_page(folder: Path) -> str:
    """The page of all results under a folder, to be written into it.

    Args:
        folder: output folder of one or several runs.

    Returns:
        HTML without scripts; its links and, of more than `MOST_INLINE` scans, its pictures are relative to the folder.
    """
    entries = read_entries(folder)
    most = max((entry.numbers.get("ChangedPercent", 0.0) for entry in entries), default=0.0)
    rows = []
    for entry in entries:
        picture = entry.sidecar.with_suffix(".png")
        inline = len(entries) <= MOST_INLINE
        rows.append(
            {
                "scan": entry.scan,
                "kind": KINDS[entry.kind],
                "state": entry.state,
                "reasons": [*entry.problems, *entry.warnings],
                "numbers": entry.numbers,
                "share": round(100 * entry.numbers.get("ChangedPercent", 0.0) / most, 1) if most > 0 else 0,
                "bundle": " ".join(entry.bundle),
                "link": _link(entry.page, folder) if entry.page else None,
                "thumbnail": _thumbnail(picture) if inline else None,
                "picture": _link(picture, folder) if not inline and picture.is_file() else None,
            }
        )
    counts = {state: sum(entry.state == state for entry in entries) for state in STATES}
    uncertain = any("UncertaintyMean" in entry.numbers for entry in entries)
    return render("index_page.html", rows=rows, counts=counts, uncertain=uncertain)


def scores_csv(folder: Path) -> str:
    """The results under a folder as CSV with a header, one row for each, in the order of the page."""
    columns = [
        *("Scan", "Kind", "State"),
        *VOLUMES,
        *("UncertaintyMean", "UncertaintyLesionMean", "Bundle", "BundleVersion", "Warnings", "Problems"),
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for entry in read_entries(folder):
        texts = {
            "Scan": entry.scan,
            "Bundle": entry.bundle[0],
            "BundleVersion": entry.bundle[1],
            "Warnings": " | ".join(entry.warnings),
            "Problems": " | ".join(entry.problems),
        }
        safe = {column: _no_formula(text) for column, text in texts.items()}
        writer.writerow({"Kind": entry.kind, "State": entry.state, **entry.numbers, **safe})
    return file.getvalue()


def _entry(path: Path, folder: Path) -> Entry | None:
    """What a sidecar tells, None if another program wrote it."""
    found = SIDECAR.search(path.name)
    assert found is not None  # noqa: S101  # the caller looked
    name = path.name[: found.start()] + (found[2] or "")
    scan, kind = path.relative_to(folder).with_name(name).as_posix(), found[1]
    try:
        sidecar = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return Entry(path, scan, kind, problems=[f"The sidecar {path.name} cannot be read; {REPAIR}."])
    try:
        if all(program["Name"] != "phs-pipeline" for program in sidecar["GeneratedBy"]):
            return None
        lost = sorted(file for file in sidecar["Outputs"] if not (path.parent / file).is_file())
        problems = [f"Missing: {', '.join(lost)}; {REPAIR}."] if lost else []
        page = path.parent / Path(str(sidecar.get("Page", ""))).name
        return Entry(
            sidecar=path,
            scan=scan,
            kind=kind,
            problems=problems,
            warnings=[str(sentence) for sentence in sidecar["Warnings"]],
            numbers=_numbers(sidecar),
            bundle=(str(sidecar["Bundle"]), str(sidecar["BundleVersion"])),
            page=page if page.suffix == ".html" and page.is_file() else None,
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return Entry(
            path, scan, kind, problems=[f"The sidecar {path.name} is damaged or of another version; {REPAIR}."]
        )


def _failed(note: Path) -> Entry:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        scan, reason = str(content["Scan"]), str(content["Error"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        scan, reason = note.stem, f"The note {note.name} cannot be read; run the scan again."
    return Entry(note, scan, "pseudohealthy", problems=[reason])


def _numbers(sidecar: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: float(sidecar["Change"][name]) for name in VOLUMES}
    for name, value in (sidecar.get("Uncertainty") or {}).items():
        if value is not None:
            numbers[f"Uncertainty{name}"] = float(value)
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError
    return numbers


def _link(path: Path, folder: Path) -> str:
    """A relative address: bytes and all that means something in addresses are escaped."""
    return quote(os.fsencode(path.relative_to(folder).as_posix()))


def _thumbnail(picture: Path) -> str | None:
    """The row of a picture of ours that shows the most colour, and so the greatest change, as a small PNG."""
    try:
        with Image.open(picture) as image:
            panels, rest = divmod(image.width, PANEL_PIXELS)
            rows = (image.height - TITLE_HEIGHT) // PANEL_PIXELS
            if rest or not 1 <= panels <= MOST_PANELS or not 1 <= rows <= 2 * MOST_PANELS:
                return None
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    last = np.ptp(pixels[TITLE_HEIGHT : TITLE_HEIGHT + rows * PANEL_PIXELS, -PANEL_PIXELS:], axis=2)
    row = int(last.reshape(rows, -1).sum(axis=1, dtype=float).argmax())
    top = TITLE_HEIGHT + row * PANEL_PIXELS
    size = (THUMBNAIL_HEIGHT * panels, THUMBNAIL_HEIGHT)
    small = Image.fromarray(pixels[top : top + PANEL_PIXELS]).resize(size, Image.Resampling.LANCZOS)
    return data_uri(small.quantize(COLOURS), synthetic=True)


def _no_formula(text: str) -> str:
    """A spreadsheet must not run a file's name."""
    return f"'{text}" if text.startswith(SPREADSHEET_FORMULA) else text
