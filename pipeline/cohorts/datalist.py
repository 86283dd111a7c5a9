"""A datalist: the scans of a cohort named one by one, in MONAI's JSON or in a CSV table."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cohorts.case import SPLITS, Entry
from pipeline.cohorts.description import Description, describe
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import read_utf8
from pipeline.errors import UsageError
from pipeline.scans.nifti import stem

# What people call the columns, in lower case and without anything but letters.
COLUMNS = {
    "mask": ("mask", "label"),
    "subject": ("subject", "subjectid", "id", "scan", "scanid", "case", "caseid"),
    "patient": ("patient", "patientid", "participant", "participantid", "person", "personid", "pid", "ptid"),
    "session": ("session", "sessionid", "visit", "visitid", "timepoint"),
    "split": ("split", "subset", "partition"),
    "fold": ("fold",),
}


@dataclass(frozen=True)
class _Row:
    """One scan as the list has it, and where."""

    where: str
    cells: Mapping[str, Any]
    split: object

    def get(self, column: str) -> str:
        """A cell's text by any of its names; empty if there is none."""
        for name in COLUMNS[column]:
            for key, value in self.cells.items():
                if re.sub(r"[^a-z]", "", str(key).casefold()) == name and value not in (None, ""):
                    return str(value).strip()
        return ""


@register(
    "datalist",
    "a JSON file with lists 'training', 'validation', 'test' of {'image', 'mask'}, or a CSV file with columns image, "
    "mask, subject, patient, split",
)
def datalist(path: Path, modality: str | None) -> list[Entry]:
    """Each row of the list; a modality is the name of the column that holds the image."""
    kind = path.suffix.casefold()
    if kind not in {".json", ".csv", ".tsv"}:
        raise UsageError(
            f"{path}: is a single file, expected a cohort folder or a datalist (.json, .csv); name the "
            "folder that holds the scans"
        )
    column = modality or "image"
    try:
        text = read_utf8(path)
        rows, description = _json_rows(path, text) if kind == ".json" else (_csv_rows(path, text, column), None)
    except (ValueError, RecursionError, csv.Error) as error:
        raise UsageError(f"{path}: is malformed ({error}), expected JSON or CSV; mend it") from error
    notes = _notes(path, rows)
    entries = [_listed(path, row, column, description) for row in rows]
    return [replace(entry, notes=(*entry.notes, *notes)) for entry in _named_apart(path, rows, entries)]


def _json_rows(path: Path, text: str) -> tuple[list[_Row], Description | None]:
    content = json.loads(text)
    lists = {key: content[key] for key in SPLITS if key in content} if isinstance(content, dict) else {}
    if not lists or not all(isinstance(rows, list) for rows in lists.values()):
        raise UsageError(
            f"{path}: is JSON but no datalist, expected an object with lists 'training', 'validation' or "
            "'test' of {'image': ..., 'mask': ...}; write it so"
        )
    rows = [
        _Row(f"{split}[{index}]", _cells(row), split) for split, rows in lists.items() for index, row in enumerate(rows)
    ]
    return rows, describe(path.name, content)


def _cells(row: Any) -> Mapping[str, Any]:
    if isinstance(row, str):  # MONAI lists test images without labels so
        return {"image": row}
    return row if isinstance(row, dict) else {}


def _csv_rows(path: Path, text: str, column: str) -> list[_Row]:
    lines = text.splitlines()
    header = lines[0] if lines else ""
    # Spreadsheets of many countries separate by semicolons.
    reader = csv.DictReader(lines, delimiter=next((mark for mark in ",;\t" if mark in header), ","))
    names = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = [name.casefold() if name.casefold() in {"image", "target"} else name for name in names]
    if column not in reader.fieldnames:
        raise UsageError(
            f"{path}: has the columns {', '.join(reader.fieldnames) or '(none)'}, expected {column}, mask and "
            "optionally subject, patient and split; name them so in its first line"
        )
    found = []
    for cells in reader:
        row = _Row(f"line {reader.line_num}", {key: cell for key, cell in cells.items() if key is not None}, None)
        if any(str(cell or "").strip() for cell in row.cells.values()):  # spreadsheets leave blank rows behind
            found.append(replace(row, split=row.get("split")))
    return found


def _notes(path: Path, rows: list[_Row]) -> list[str]:
    folds = sorted({fold for row in rows if (fold := row.get("fold"))})
    if not folds:
        return []
    told = f"its folds ({', '.join(folds)}) were not used; name validation scans in a list or column 'split'"
    return [f"{path.name}: {told}"]


def _listed(path: Path, row: _Row, column: str, description: Description | None) -> Entry:
    image, mask = row.cells.get(column), row.cells.get("mask") or row.cells.get("label") or row.get("mask")
    given_split = str(row.split or "").strip().casefold()
    fault = None
    if not isinstance(image, str) or not image.strip():
        fault = f"{path}: {row.where} has the {column} {image!r}, expected the path of one file; name one"
        image = ""
    elif mask and not isinstance(mask, str):
        fault = f"{path}: {row.where} has the mask {mask!r}, expected the path of one file; name one"
        mask = ""
    elif given_split and given_split not in SPLITS:
        fault = f"{path}: {row.where} has the split {row.split!r}, expected training, validation or test; mend it"
    images = [path.parent / image.strip()] if image else []
    patient, session = row.get("patient"), row.get("session")
    return Entry(
        name=row.get("subject") or (stem(images[0]) if images else row.where),
        place=path,
        images=images,
        masks=[path.parent / mask.strip()] if mask and mask.strip() else [],
        image_hint=f"its path as {column!r} in {row.where} of {path}",
        mask_hint=f"its path as 'mask' in {row.where} of {path}",
        split=SPLITS.get(given_split),
        fault=fault,
        row=row.where,
        patient=patient or None,
        session=session or None,
        lesion_labels=description.lesion_labels if description else None,
        columns={str(key): str(cell) for key, cell in row.cells.items() if isinstance(cell, (str, int, float))},
        notes=description.notes if description else (),
    )


def _named_apart(path: Path, rows: list[_Row], entries: list[Entry]) -> list[Entry]:
    """Scans of one name get names of their own: a repeated subject is a person, a file name needs its folders."""
    named = []
    alike: dict[str, list[int]] = defaultdict(list)
    for index, entry in enumerate(entries):
        alike[entry.name].append(index)
    for row, entry in zip(rows, entries, strict=True):
        others = [entries[other] for other in alike[entry.name]]
        files = {other.images[0] for other in others if other.images}
        if len(files) < 2 or not entry.images:
            named.append(entry)
        elif row.get("subject"):
            session = row.get("session") or _apart(entry.images[0], files)
            person = entry.patient or entry.name
            name = session if session.startswith(entry.name) else f"{entry.name}_{session}"
            named.append(replace(entry, name=name, patient=person))
        else:
            note = f"{path.name}: several images are called {entry.name}; each has its folder as subject"
            named.append(replace(entry, name=_apart(entry.images[0], files), notes=(*entry.notes, note)))
    return named


def _apart(image: Path, files: set[Path]) -> str:
    """Those parts of an image's path in which it differs from the others, joined."""
    parts = [(*file.parent.parts, stem(file)) for file in files]
    depth = min(map(len, parts))
    same = {place for place in range(1, depth + 1) if len({found[-place] for found in parts}) == 1}
    mine = (*image.parent.parts, stem(image))
    first = next((place for place, found in enumerate(zip(*parts, strict=False)) if len(set(found)) > 1), 0)
    kept = [part for place, part in enumerate(mine) if place >= first and len(mine) - place not in same]
    return "_".join(kept)
