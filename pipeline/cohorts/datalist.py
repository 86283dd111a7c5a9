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
    "mask": (
        "mask", "label", "labels", "seg", "segmentation", "lesion", "lesionmask", "roi", "groundtruth", "gt",
        "annotation", "maskpath", "labelpath", "segmentationpath",
    ),
    "subject": ("subject", "subjectid", "id", "scan", "scanid", "case", "caseid"),
    "patient": (
        "patient", "patientid", "patientname", "patientnumber", "patientno", "patientuid", "patid", "participant",
        "participantid", "person", "personid", "individual", "individualid", "pid", "ptid", "mrn", "anonid", "proband",
    ),
    "session": (
        "session", "sessionid", "ses", "visit", "visitid", "visitnumber", "timepoint", "time", "week", "date",
        "scandate", "studydate",
    ),
    "split": ("split", "subset", "partition", "set", "datasplit", "traintest"),
    "fold": ("fold",),
}  # fmt: skip
SEPARATOR_ROWS = [[f"sep={mark}"] for mark in ",;\t|"]
NO_VALUE = {"", "n/a", "na", "nan", "none", "null", "-"}
PATHS = re.compile(r".+\.nii(\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Row:
    """One scan as the list has it, and where."""

    where: str
    cells: Mapping[str, Any]
    split: object

    def get(self, column: str) -> str:
        """A cell's text by any of its names; empty if there is none."""
        found = [str(value).strip() for value in self.named(column).values()]
        return next((text for text in found if text.casefold() not in NO_VALUE), "")

    def named(self, column: str) -> dict[str, Any]:
        """The cells that are not empty under any name of a column, the usual names first."""
        plain = {str(key): re.sub(r"[^a-z]", "", str(key).casefold()) for key in self.cells}
        keys = [key for name in COLUMNS[column] for key, its_name in plain.items() if its_name == name]
        return {key: value for key in keys if (value := self.cells.get(key)) not in (None, "")}


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
    _refuse_unlike_people(path, rows)
    notes = _notes(path, rows, column)
    entries = [_listed(path, row, column, description) for row in rows]
    return [replace(entry, notes=(*entry.notes, *notes)) for entry in _named_apart(path, rows, entries)]


def _json_rows(path: Path, text: str) -> tuple[list[_Row], Description | None]:
    content = json.loads(text, object_pairs_hook=_once)
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


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if twice := [key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place])]:
        raise ValueError(f"the key {twice[0]!r} stands there twice")
    return dict(pairs)


def _cells(row: Any) -> Mapping[str, Any]:
    if isinstance(row, str):  # MONAI lists test images without labels so
        return {"image": row}
    return row if isinstance(row, dict) else {}


def _csv_rows(path: Path, text: str, column: str) -> list[_Row]:
    lines = text.splitlines()
    # Spreadsheets leave blank rows above the table, and name their separator in a row of its own.
    above = 0
    while (above < len(lines) and not lines[above].strip(" ,;\t")) or lines[above : above + 1] in SEPARATOR_ROWS:
        above += 1
    header = lines[above] if above < len(lines) else ""
    # Those of many countries separate by semicolons.
    mark = max(";\t|,", key=header.count)
    reader = csv.DictReader(lines[above:], delimiter=mark, strict=True)
    names = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = [name.casefold() if name.casefold() in {"image", "target"} else name for name in names]
    if column not in reader.fieldnames:
        raise UsageError(
            f"{path}: has the columns {', '.join(reader.fieldnames) or '(none)'}, expected {column}, mask and "
            "optionally subject, patient and split; name them so in its first line"
        )
    if twice := sorted({name for name in reader.fieldnames if name and reader.fieldnames.count(name) > 1}):
        raise UsageError(
            f"{path}: has several columns {', '.join(twice)}, expected each name once; rename or remove the others"
        )
    found = []
    for cells in reader:
        row = _Row(
            f"line {above + reader.line_num}", {key: cell for key, cell in cells.items() if key is not None}, None
        )
        if any(str(cell or "").strip() for cell in row.cells.values()):  # spreadsheets leave blank rows behind
            found.append(replace(row, split=row.get("split")))
    return found


def _notes(path: Path, rows: list[_Row], column: str) -> list[str]:
    notes = []
    if folds := sorted({fold for row in rows if (fold := row.get("fold"))}):
        told = f"its folds ({', '.join(folds)}) were not used; name validation scans in a list or column 'split'"
        notes.append(f"{path.name}: {told}")
    read = {column, "image", "target"}.union(
        *(row.named(known) for row in rows for known in ("patient", "split", "fold"))
    )
    read |= {next(iter(row.named(known)), "") for row in rows for known in ("subject", "session", "mask")}
    masked = any(_masks(row) for row in rows)
    unread = {
        str(key)
        for row in rows
        for key, value in row.cells.items()
        # Files beside image and mask are further sequences.
        if value not in (None, "") and not (masked and PATHS.fullmatch(str(value).strip()))
    }
    if unread := unread - read:
        notes.append(
            f"{path.name}: its columns {', '.join(sorted(unread))} were taken for no patient, visit, mask or split; "
            "if one is, call it 'patient', 'session', 'mask' or 'split'"
        )
    return notes


def _masks(row: _Row) -> list[Any]:
    """The cells that may be the path of the mask, files first: a column `label` may hold a class beside a mask."""
    cells = list(row.named("mask").values())
    return sorted(cells, key=lambda cell: not (isinstance(cell, str) and PATHS.fullmatch(cell.strip())))


def _contradiction(path: Path, row: _Row) -> str | None:
    """What is wrong with a row whose columns, or column and list, put it into different splits."""
    named = {"its list": row.split, **row.named("split")} if row.split else row.named("split")
    found = {key: SPLITS.get(str(value).strip().casefold(), str(value).strip()) for key, value in named.items()}
    if len(set(found.values())) < 2:
        return None
    said = ", ".join(f"{key} {text!r}" for key, text in found.items())
    return f"{path}: {row.where} is in several splits ({said}), expected one; remove the others"


def _refuse_unlike_people(path: Path, rows: list[_Row]) -> None:
    """Two names of a person (a code, a record number) are welcome as long as they mean the same people."""
    named = [row.named("patient") for row in rows]
    first, *others = dict.fromkeys(key for cells in named for key in cells) or [""]
    for other in others:
        pairs = {
            (str(cells[first]).strip(), str(cells[other]).strip()) for cells in named if {first, other} <= cells.keys()
        }
        if not len({one for one, _ in pairs}) == len(pairs) == len({two for _, two in pairs}):
            raise UsageError(
                f"{path}: has the columns {first} and {other}, which tell different patients apart, expected one of "
                "them; remove the other"
            )


def _listed(path: Path, row: _Row, column: str, description: Description | None) -> Entry:
    image, mask = row.cells.get(column), next(iter(_masks(row)), None)
    given_split = str(row.split or "").strip().casefold()
    fault = _contradiction(path, row)
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
