"""The datalist of the FLAIR scans that the shipped weights were trained on.

    python scripts/flair_cohort.py DATA -o flair.json
    phs-pipeline preprocess flair.json -o flair

DATA holds `lgg/` (BIDS), `brats2013/` and `open_ms/`. Patients of `lgg` are split as `preprocess` splits them by itself
(70, 15 and 15 %, seed 0); of the two small cohorts single patients are held out.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.cohorts import find_cases  # noqa: E402
from pipeline.preprocessing.splits import SPLITS, split_patients  # noqa: E402

BRATS = {"0001": "training", "0003": "training", "0004": "validation", "0006": "test"}
OPEN_MS = {"07": "training", "19": "training", "26": "test"}


def datalist(data: Path) -> dict[str, list[dict[str, str]]]:
    """By split, the scans with their masks; paths as `data` is given."""
    splits: dict[str, list[dict[str, str]]] = {split: [] for split in SPLITS}

    def add(split: str, subject: str, image: Path, mask: Path) -> None:
        splits[split].append({"subject": subject, "image": str(image), "mask": str(mask)})

    cases = find_cases(data / "lgg").cases
    by_patient = split_patients((case.patient for case in cases), (0.7, 0.15, 0.15), seed=0)
    for case in cases:
        if case.mask is not None:
            add(by_patient[case.patient], case.subject, case.image, case.mask)
    for number, split in BRATS.items():
        stem = data / "brats2013" / f"Brats13_{number}" / f"Brats13_{number}"
        add(split, f"brats13-{number}", Path(f"{stem}_flair.nii.gz"), Path(f"{stem}_seg.nii.gz"))
    for number, split in OPEN_MS.items():
        folder = data / "open_ms"
        (image,) = folder.rglob(f"patient{number}_flair.nii.gz")
        (mask,) = folder.rglob(f"patient{number}_lesion.nii.gz")
        add(split, f"openms-{number}", image, mask)
    return splits


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The command line of a script that writes a datalist."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser


def write(splits: dict[str, list[dict[str, str]]], output: Path) -> None:
    """Write a datalist, and tell how many scans it has."""
    output.write_text(json.dumps(splits, indent=2) + "\n")
    print(", ".join(f"{split}: {len(entries)} scans" for split, entries in splits.items()))


if __name__ == "__main__":
    given = parser_of(__doc__).parse_args()
    write(datalist(given.data.resolve()), given.output)
