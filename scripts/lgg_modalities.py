"""The datalists of `lgg` by which FLAIR and contrast T1w are two modalities, with ages and lesions as targets.

    python scripts/lgg_modalities.py DATA -o FOLDER
    phs-pipeline preprocess FOLDER/FLAIR.csv -o flair --channels FLAIR --target age
    phs-pipeline preprocess FOLDER/T1w.csv -o t1w --channels T1w --target age
    phs-pipeline join flair t1w -o COHORT

`--target lesion_area` takes the lesion's area in each slice instead. Patients who have both stay in the modality with
fewer patients: 47 in FLAIR and 41 in T1w of the 88.
"""

import csv
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from flair_cohort import parser_of  # noqa: E402

from pipeline.cohorts import find_cases  # noqa: E402

MODALITIES = ("FLAIR", "T1w")


def write_datalist(data: Path, modality: str, folder: Path) -> int:
    """Write the scans of a modality with their masks and ages; paths as `data` is given. Returns their number."""
    cases = find_cases(data / "lgg", "bids", modality, target="age").cases
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{modality}.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["subject", "patient", modality, "mask", "age"])
        rows.writerows([case.subject, case.patient, case.image, case.mask, case.target] for case in cases)
    return len(cases)


if __name__ == "__main__":
    given = parser_of(__doc__).parse_args()
    for each in MODALITIES:
        print(f"{each}: {write_datalist(given.data.resolve(), each, given.output)} scans")
