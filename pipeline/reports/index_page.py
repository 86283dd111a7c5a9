"""A cohort at a glance: every scan's numbers and warnings, what needs a look first on top."""

import csv
import io
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from PIL import Image

from pipeline.files import read_json, table_cell
from pipeline.identity import made_by_us
from pipeline.inference.products import Figure
from pipeline.mosaic import PANEL_PIXELS, TITLE_HEIGHT
from pipeline.reports.html import data_uri, render, script_hash

# In this subfolder, a file for each scan that failed.
FAILED = "failed"
STATES = ("failed", "warnings", "ok")
# With more scans than this, so many are shown at a time, and pictures are linked: the page would be too large to open.
MOST_INLINE = 100
SCRIPT = "index_page.js"
# Panels side by side, and rows, in a picture of ours.
MOST_PANELS = 10
THUMBNAIL_HEIGHT = 88
COLOURS = 64
MOST_DIGITS = 9
REPAIR = "run the scan again with --overwrite"
COLUMNS = ("Scan", "Product", "State")
MORE_COLUMNS = ("Bundle", "BundleVersion", "Warnings", "Problems")


@dataclass(frozen=True)
class Entry:
    """One scan's result, as its sidecar tells it, or the note that it failed.

    Attributes:
        sidecar: the file.
        scan: the scan's name, with its folder within the cohort.
        product: name and title of the main product; empty where it is not known.
        pictured: what the picture beside it shows.
        problems: why the result cannot be used, one sentence each.
        warnings: from the check of the scan against the bundle's training.
        figures: numbers about the result; empty for a damaged sidecar.
        bundle: name and version.
        page: the scan's report, None if it is not there.
    """

    sidecar: Path
    scan: str
    product: tuple[str, str] = ("", "")
    pictured: str = "input"
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    figures: tuple[Figure, ...] = ()
    bundle: tuple[str, str] = ("", "")
    page: Path | None = None

    @property
    def state(self) -> str:
        """`failed`, `warnings` or `ok`."""
        return STATES[0] if self.problems else STATES[1] if self.warnings else STATES[2]

    @property
    def first(self) -> Figure | None:
        """The first leading number, by which results are ordered."""
        return next((figure for figure in self.figures if figure.leading), None)


def read_entries(folder: Path) -> list[Entry]:
    """The results under a folder, what needs a look first on top.

    Failed ones come first, then those with warnings, then the others; in each group those come first whose first
    leading number is the largest. Sidecars of other programs are passed over.
    """
    entries = [entry for path in sorted(folder.rglob("*.json")) if (entry := _entry(path, folder)) is not None]
    made = {Path(entry.scan).name for entry in entries}
    failed = map(_failed, sorted((folder / FAILED).glob("*.json")))
    # A scan that has a result, which other settings did not replace, is not without one.
    entries += [entry for entry in failed if entry.scan not in made]
    return sorted(entries, key=lambda entry: (STATES.index(entry.state), -_rank(entry)))


def index_page(folder: Path, entries: Sequence[Entry] | None = None) -> str:
    """The page of all results under a folder, to be written into it.

    Up to `MOST_INLINE` of them, it has no script. Of more, the first are in the page, which a script turns, sorts and
    filters; without scripts, these are what needs a look first.

    Args:
        folder: output folder of one or several runs.
        entries: its results, as `read_entries` gives them; None: they are read.

    Returns:
        HTML; its links and, of more than `MOST_INLINE` scans, its pictures are relative to the folder.
    """
    entries = read_entries(folder) if entries is None else entries
    columns = {
        _column(figure): {"label": figure.label, "units": figure.units, "digits": figure.digits}
        for entry in entries
        for figure in entry.figures
        if figure.leading
    }
    rows = _rows(entries, folder, columns)
    paged = len(entries) > MOST_INLINE
    script = resources.files("pipeline.reports").joinpath("assets", SCRIPT).read_text(encoding="utf-8")
    listed = list(rows)
    return render(
        "index_page.html",
        rows=listed[:MOST_INLINE],
        total=len(entries),
        counts={state: sum(entry.state == state for entry in entries) for state in STATES},
        titles=list(dict.fromkeys(entry.product[1] for entry in entries if entry.product[1])),
        columns=list(columns.values()),
        table=_table(listed) if paged else None,
        script=Markup(script),  # noqa: S704  # ours
        script_hash=script_hash(script),
    )


def _rows(
    entries: Sequence[Entry], folder: Path, columns: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """What the page shows of each result; pictures are within the page if there are few."""
    # A bar shows each entry's first number beside the largest of its column.
    most: dict[tuple[str, str], float] = {}
    for entry in entries:
        if entry.first:
            column = _column(entry.first)
            most[column] = max(most.get(column, 0.0), entry.first.value or 0.0)
    places = {column: place for place, column in enumerate(columns)}
    inline = len(entries) <= MOST_INLINE
    for entry in entries:
        picture = entry.sidecar.with_suffix(".png")
        numbers = {_column(figure): figure.value for figure in entry.figures}
        texts = [
            None if (number := numbers.get(column)) is None else f"{number:.{shown['digits']}f}"
            for column, shown in columns.items()
        ]
        first, value = (_column(entry.first), entry.first.value or 0.0) if entry.first else (None, 0.0)
        yield {
            "scan": entry.scan,
            "title": entry.product[1],
            "pictured": entry.pictured,
            "state": entry.state,
            "reasons": [*entry.problems, *entry.warnings],
            "values": texts,
            "first": places[first] if first else None,
            "share": round(100 * value / most[first], 1) if first and value > 0 else 0,
            "bundle": " ".join(entry.bundle),
            "link": _link(entry.page, folder) if entry.page else None,
            "picture": _thumbnail(picture) if inline else _link(picture, folder) if picture.is_file() else None,
        }


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All rows for the page's script, short: the keys once, and each text that recurs once, under a number."""
    numbers: dict[str, int] = {}

    def number(text: str) -> int:
        return numbers.setdefault(text, len(numbers))

    recurring = ("title", "pictured", "state", "bundle")
    short = [
        [
            [number(reason) for reason in value] if key == "reasons" else number(value) if key in recurring else value
            for key, value in row.items()
        ]
        for row in rows
    ]
    return {"keys": list(rows[0]), "texts": list(numbers), "recurring": recurring, "rows": short, "page": MOST_INLINE}


def scores_csv(folder: Path, entries: Sequence[Entry] | None = None) -> str:
    """The results under a folder as CSV with a header, one row for each, in the order of the page.

    Args:
        folder: output folder of one or several runs.
        entries: its results, as `read_entries` gives them; None: they are read.
    """
    entries = read_entries(folder) if entries is None else entries
    names = list(dict.fromkeys(figure.name for entry in entries for figure in entry.figures))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*COLUMNS, *map(table_cell, names), *MORE_COLUMNS])
    for entry in entries:
        values = {figure.name: figure.value for figure in entry.figures}
        reasons = " | ".join(entry.warnings), " | ".join(entry.problems)
        writer.writerow(
            [
                *map(table_cell, (entry.scan, entry.product[0], entry.state)),
                *map(values.get, names),
                *map(table_cell, (*entry.bundle, *reasons)),
            ]
        )
    return file.getvalue()


def _rank(entry: Entry) -> float:
    """What has no number comes first."""
    return math.inf if entry.first is None or entry.first.value is None else entry.first.value


def _entry(path: Path, folder: Path) -> Entry | None:
    """What the sidecar of a main product tells; None for any other file.

    What is damaged cannot say whose it is: a main product's sidecar is known by the picture that lies beside it.
    """
    sidecar = read_json(path)
    if not (made_by_us(sidecar) and "Figures" in sidecar):
        if _by_others(sidecar) or not path.with_suffix(".png").is_file():
            return None
        return _damaged(path, folder, sidecar)
    try:
        lost = sorted(file for file in sidecar["Outputs"] if not (path.parent / file).is_file())
        product = sidecar["Product"]
        page = path.parent / Path(str(sidecar.get("Page", ""))).name
        return Entry(
            sidecar=path,
            scan=path.relative_to(folder).with_name(str(sidecar["Scan"])).as_posix(),
            product=(str(product["Name"]), str(product["Title"])),
            pictured=str(sidecar.get("Pictured", "input")),
            problems=[f"Missing: {', '.join(lost)}; {REPAIR}."] if lost else [],
            warnings=[str(sentence) for sentence in sidecar["Warnings"]],
            figures=tuple(map(_figure, sidecar["Figures"])),
            bundle=(str(sidecar["Bundle"]), str(sidecar["BundleVersion"])),
            page=page if page.suffix == ".html" and page.is_file() else None,
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        return _damaged(path, folder, sidecar)


def _damaged(path: Path, folder: Path, sidecar: Mapping[str, Any]) -> Entry:
    problem = f"The sidecar {path.name} cannot be read, is damaged or of another version; {REPAIR}."
    name = Path(str(sidecar.get("Scan", ""))).name or path.stem
    return Entry(path, (path.relative_to(folder).parent / name).as_posix(), problems=[problem])


def _by_others(sidecar: Mapping[str, Any]) -> bool:
    """Whether it names a maker, and not us."""
    makers = sidecar.get("GeneratedBy")
    named = isinstance(makers, list) and any(isinstance(maker, dict) and "Name" in maker for maker in makers)
    return named and not made_by_us(sidecar)


def _failed(note: Path) -> Entry:
    content = read_json(note)
    try:
        scan, reason = str(content["Scan"]), str(content["Error"])
    except KeyError:
        scan, reason = note.stem, f"The note {note.name} cannot be read; run the scan again."
    return Entry(note, scan, problems=[reason])


def _figure(told: Mapping[str, Any]) -> Figure:
    """A figure of a sidecar.

    Raises:
        TypeError: if it is none.
        ValueError: if its value is no finite number, or its digits are no small number.
    """
    value, digits = told["value"], told["digits"]
    if value is not None and not math.isfinite(value):
        raise ValueError
    if not (isinstance(digits, int) and 0 <= digits <= MOST_DIGITS):
        raise ValueError
    # The same of each scan: kept once.
    name, label, units = (sys.intern(str(told[key])) for key in ("name", "label", "units"))
    return Figure(name, label, None if value is None else float(value), units, digits, leading=told["leading"] is True)


def _column(figure: Figure) -> tuple[str, str]:
    """Figures of one name in other units have a column of their own."""
    return figure.name, figure.units


def _link(path: Path, folder: Path) -> str:
    """A relative address: bytes and all that means something in addresses are escaped."""
    return quote(os.fsencode(path.relative_to(folder).as_posix()))


def _thumbnail(picture: Path) -> str | None:
    """The row of a picture of ours that shows the most colour, and so the most to see, as a small PNG."""
    try:
        if not picture.is_file():
            return None  # a pipe has no end
        with Image.open(picture) as image:
            panels, rest = divmod(image.width, PANEL_PIXELS)
            rows = (image.height - TITLE_HEIGHT) // PANEL_PIXELS
            if rest or not 1 <= panels <= MOST_PANELS or not 1 <= rows <= MOST_PANELS:
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
