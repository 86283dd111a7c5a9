"""A datalist: the scans of a cohort named one by one, in MONAI's JSON or in a CSV table."""

import csv
import json
from pathlib import Path
from typing import Any

from pipeline.cohorts.case import Entry
from pipeline.cohorts.layout import register
from pipeline.errors import UsageError
from pipeline.scans.nifti import stem

SPLITS = {
    "training": "training",
    "train": "training",
    "validation": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


@register(
    "datalist",
    "a JSON file with lists 'training', 'validation', 'test' of {'image', 'mask'}, or a CSV file with columns image, "
    "mask, subject, split",
)
def datalist(path: Path, modality: str | None) -> list[Entry]:  # noqa: ARG001 - has no modality
    """Each row of the list; it names its images itself, so that there is no modality to choose."""
    kind = path.suffix.casefold()
    if kind not in {".json", ".csv"}:
        raise UsageError(
            f"{path}: is a single file, expected a cohort folder or a datalist (.json, .csv); name the "
            "folder that holds the scans"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _json_rows(path, text) if kind == ".json" else _csv_rows(path, text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise UsageError(f"{path}: is malformed ({error}), expected JSON or CSV; mend it") from error
    return [_listed(path, where, row, split) for where, row, split in rows]


def _json_rows(path: Path, text: str) -> list[tuple[str, Any, Any]]:
    content = json.loads(text)
    lists = {key: content[key] for key in SPLITS if key in content} if isinstance(content, dict) else {}
    if not lists or not all(isinstance(rows, list) for rows in lists.values()):
        raise UsageError(
            f"{path}: is JSON but no datalist, expected an object with lists 'training', 'validation' or "
            "'test' of {'image': ..., 'mask': ...}; write it so"
        )
    return [(f"{split}[{index}]", row, split) for split, rows in lists.items() for index, row in enumerate(rows)]


def _csv_rows(path: Path, text: str) -> list[tuple[str, Any, Any]]:
    lines = text.splitlines()
    header = lines[0] if lines else ""
    # Spreadsheets of many countries separate by semicolons.
    reader = csv.DictReader(lines, delimiter=next((mark for mark in ",;\t" if mark in header), ","))
    reader.fieldnames = [name.strip().casefold() for name in reader.fieldnames or []]
    if "image" not in reader.fieldnames:
        raise UsageError(
            f"{path}: has the columns {', '.join(reader.fieldnames) or '(none)'}, expected image, mask and "
            "optionally subject and split; name them so in its first line"
        )
    return [(f"line {reader.line_num}", row, row.get("split")) for row in reader]


def _listed(path: Path, where: str, row: Any, split: Any) -> Entry:
    if isinstance(row, str):  # MONAI lists test images without labels so
        row = {"image": row}
    row = row if isinstance(row, dict) else {}
    image, mask = row.get("image"), row.get("mask") or row.get("label")
    given_split = str(split or "").strip().casefold()

    fault = None
    if not isinstance(image, str) or not image.strip():
        fault = f"{path}: {where} has the image {image!r}, expected the path of one file; name one"
        image = ""
    elif mask and not isinstance(mask, str):
        fault = f"{path}: {where} has the mask {mask!r}, expected the path of one file; name one"
        mask = ""
    elif given_split and given_split not in SPLITS:
        fault = f"{path}: {where} has the split {split!r}, expected training, validation or test; mend it"
    images = [path.parent / image.strip()] if image else []
    subject = "" if row.get("subject") is None else str(row["subject"]).strip()
    return Entry(
        name=subject or (stem(images[0]) if images else where),
        place=path,
        images=images,
        masks=[path.parent / mask.strip()] if mask and mask.strip() else [],
        image_hint="",
        mask_hint=f"its path as 'mask' in {where} of {path}",
        split=SPLITS.get(given_split),
        fault=fault,
    )
