"""The datalist of all scans that the shipped filler was trained on: every sequence of the patients of `flair_cohort`.

    python scripts/fill_cohort.py DATA -o fill.json
    phs-pipeline preprocess fill.json -o fill --slab-mm 100

Each sequence is a scan of its own, for one network fills any of them; patients stay in the splits of `flair_cohort`.
`--without T1w` leaves sequences out of the training, to measure a filler on contrasts that it never saw.
"""

from pathlib import Path

from flair_cohort import datalist, parser_of, write

from pipeline.scans.contrast import named_contrast  # flair_cohort finds the project

# Ends of the file names: those of FLAIR, and those of other sequences beside it.
FLAIR = ("FLAIR.nii.gz", "flair.nii.gz")
OTHERS = ("ce-gadolinium_T1w.nii.gz", "t1ce.nii.gz", "t1.nii.gz", "t2.nii.gz")


def every_sequence(data: Path) -> dict[str, list[dict[str, str]]]:
    """By split, the scans of all sequences with the lesion masks drawn on FLAIR."""
    splits: dict[str, list[dict[str, str]]] = {}
    for split, entries in datalist(data).items():
        splits[split] = []
        for entry in entries:
            image = Path(entry["image"])
            stem = next(image.name.removesuffix(end) for end in FLAIR if image.name.endswith(end))
            for end in (image.name.removeprefix(stem), *OTHERS):
                if image.with_name(stem + end).is_file():
                    subject = f"{entry['subject']}-{end.partition('.')[0]}"
                    scan = str(image.with_name(stem + end))
                    splits[split].append(
                        {"subject": subject, "patient": entry["subject"], "image": scan, "mask": entry["mask"]}
                    )
    return splits


def main() -> None:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--without", nargs="+", default=[], help="contrasts to leave out of the training")
    given = parser.parse_args()
    splits = every_sequence(given.data.resolve())
    splits["training"] = [
        entry for entry in splits["training"] if named_contrast(Path(entry["image"]).name) not in given.without
    ]
    write(splits, given.output)


if __name__ == "__main__":
    main()
