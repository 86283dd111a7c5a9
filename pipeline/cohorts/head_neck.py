"""Head-Neck-PET-CT of TCIA (Vallières et al. 2017): FDG-PET and CT of 298 people with head and neck cancer.

As TCIA's retriever lays it: `metadata.csv`, which tells each series' modality and folder, beside `Head-Neck-PET-CT/`.
The clinical table INFOclinical_HN_Version2_30may2018.xlsx (or its sheets in one CSV file) goes beside it. Contours are
RTSTRUCT, which are not read: all slices are labelled unknown.
"""

import csv
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.cohorts.case import Entry
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import folders, read_utf8
from pipeline.errors import UsageError

COLLECTION = "Head-Neck-PET-CT"
MODALITIES = {"pt": "PT", "pet": "PT", "ct": "CT"}
NEEDED = ("Collection", "Subject ID", "Modality", "Number of Images", "File Location", "Series Description")
CLINICAL = "INFOclinical_HN*"


@register(
    "head-neck-pet-ct",
    "metadata.csv and Head-Neck-PET-CT/HN-CHUM-001/<study>/<series>/*.dcm; by --layout head-neck-pet-ct only",
)
def head_neck(cohort: Path, modality: str | None) -> list[Entry]:
    """One series of each person: of several of the modality that with the most images; PET unless CT is asked for."""
    asked = MODALITIES.get((modality or "PT").casefold())
    if asked is None:
        raise UsageError(f"{modality}: no modality of {COLLECTION}, expected PT or CT; choose one of them")
    table = next((path for place in (cohort, *folders(cohort)) if (path := place / "metadata.csv").is_file()), None)
    if table is None:
        return []
    by_person: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in _rows(table):
        if row["Collection"].casefold() == COLLECTION.casefold():
            by_person[row["Subject ID"]].append(row)
    people = _people(cohort, table.parent)
    entries = []
    for person, series in sorted(by_person.items()):
        fitting = sorted((row for row in series if row["Modality"] == asked), key=_images, reverse=True)
        others = f"of its {len(fitting)} {asked} series, that with the most images was taken"
        entries.append(
            Entry(
                name=person,
                place=table,
                images=[_folder(table, row) for row in fitting[:1]],
                masks=[],
                image_hint=f"a series of the modality {asked}",
                mask_hint="none",
                present=[Path(f"{row['Modality']} ({row['Series Description']})") for row in series],
                patient=person,
                columns=people.get(person, {}),
                dicom=True,
                notes=(f"{person}: {others}",) if len(fitting) > 1 else (),
            )
        )
    return entries


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        reader = csv.DictReader(read_utf8(table).splitlines(), strict=True)
        rows = [{name: row.get(name) or "" for name in NEEDED} for row in reader]
    except csv.Error as error:
        raise UsageError(f"{table}: is malformed ({error}), expected the retriever's table; fetch it again") from error
    if missing := [name for name in NEEDED if name not in (reader.fieldnames or [])]:
        raise UsageError(
            f"{table}: has no column {', '.join(missing)}, expected the table of TCIA's retriever; fetch it again"
        )
    return rows


def _images(row: dict[str, str]) -> int:
    count = row["Number of Images"].strip()
    return int(count) if count.isdecimal() else 0


def _folder(table: Path, row: dict[str, str]) -> Path:
    """Of a series; a table from elsewhere leads nowhere but below its own folder."""
    place = PurePosixPath(row["File Location"].replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts:
        raise UsageError(f"{table}: has the file location {str(place)!r}, expected one below it; fetch it again")
    return table.parent / place


def _people(*places: Path) -> dict[str, dict[str, str]]:
    """Age and sex by person."""
    found = [path for place in places for path in sorted(place.glob(CLINICAL))]
    people = {}
    for row in _clinical_rows(found[0]) if found else ():
        cells = {name.strip(): str(cell or "").strip() for name, cell in row.items() if name}
        people[cells.get("Patient #", "")] = {"age": cells.get("Age", ""), "sex": cells.get("Sex", "")}
    return people


def _clinical_rows(path: Path) -> list[dict[Any, Any]]:
    """Of all sheets, each of one centre, but that of people who were excluded."""
    if path.suffix.casefold() == ".csv":
        return list(csv.DictReader(read_utf8(path).splitlines()))
    import pandas as pd  # not in each worker of `preprocess`

    try:
        sheets = pd.read_excel(path, sheet_name=None, dtype=str)
    except ImportError as error:
        raise UsageError(
            f"{path}: is an Excel file, which needs the package openpyxl; install it (pip install "
            "'phs-pipeline[excel]') or save its sheets as one CSV file"
        ) from error
    except Exception as error:  # whatever openpyxl stumbles over in a damaged file
        raise UsageError(f"{path}: cannot be read as an Excel file, expected TCIA's; fetch it again") from error
    centres = [sheet for name, sheet in sheets.items() if name.casefold() != "excluded"]
    return [row for sheet in centres for row in sheet.to_dict("records")]
