"""CT-ICH of PhysioNet (Hssayeni et al. 2020): head CT of 75 people with trauma, with haemorrhages and ages.

https://physionet.org/content/ct-ich/1.3.1/, and 1.3.0, which DUIIT names. About half of the people have no haemorrhage
and an empty mask: preprocess with `--healthy`. The brain window is `--window 0 80`.
"""

import csv
import io
from pathlib import Path

from pipeline.cohorts.case import Entry
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import niftis, read_utf8
from pipeline.errors import UsageError
from pipeline.scans.nifti import stem

TABLE = "patient_demographics.csv"


@register("ct-ich", "ct_scans/049.nii and masks/049.nii, with Patient_demographics.csv beside these folders")
def ct_ich(cohort: Path, modality: str | None) -> list[Entry]:
    """Scans and masks of the same number; `age`, in years, and `gender` are columns to take a target from."""
    if modality is not None and modality.casefold() != "ct":
        raise UsageError(f"{modality}: no modality of CT-ICH, expected CT; leave the modality out")
    images, masks = (
        {stem(path): path for path in niftis(cohort / folder) if stem(path).isdecimal()}
        for folder in ("ct_scans", "masks")
    )
    people = _people(cohort) if images else {}
    return [
        Entry(
            name=number,
            place=cohort / "ct_scans",
            images=[images[number]] if number in images else [],
            masks=[masks[number]] if number in masks else [],
            image_hint=f"ct_scans/{number}.nii",
            mask_hint=f"masks/{number}.nii",
            patient=f"ct-ich-{number}",
            columns=people.get(int(number), {}),
        )
        for number in sorted(images.keys() | masks.keys())
    ]


def _people(cohort: Path) -> dict[int, dict[str, str]]:
    """Age and gender by the patient's number; a header's cells may be broken over lines."""
    tables = [path for path in sorted(cohort.glob("*.csv")) if path.name.casefold() == TABLE]
    if not tables:
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(read_utf8(tables[0]), newline=""), strict=True))
    except csv.Error as error:
        raise UsageError(f"{tables[0]}: is malformed ({error}), expected PhysioNet's table; fetch it again") from error
    found = {}
    for row in rows:
        cells = {name.split()[0].casefold(): cell or "" for name, cell in row.items() if name and name.split()}
        if (number := cells.get("patient", "").strip()).isdecimal():
            found[int(number)] = {name: cells[name].strip() for name in ("age", "gender") if name in cells}
    return found
