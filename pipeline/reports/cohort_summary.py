"""One picture of a preprocessed cohort, to check clipping, slab, masks and split by eye."""

from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.mosaic import grey, mosaic, outlined, save_png
from pipeline.preprocessing.cohort_format import Subject, read_mask
from pipeline.preprocessing.splits import SPLITS

SUBJECTS_SHOWN = 8


def cohort_summary(directory: Path, subjects: list[Subject]) -> None:
    """Write `summary.png`: some subjects of each split, three slices each, the largest lesion outlined."""
    step = max(1, len(subjects) // SUBJECTS_SHOWN)
    shown = sorted(subjects[::step][:SUBJECTS_SHOWN], key=lambda subject: SPLITS.index(subject.split))
    rows = []
    for subject in shown:
        image = nib.load(directory / subject.images).dataobj
        largest = int(np.argmax(subject.lesion_mm2))
        mask = read_mask(directory, subject)[largest]
        rows.append(
            [
                grey(image[..., 0]),
                grey(image[..., largest]),
                outlined(image[..., largest], mask),
                grey(image[..., -1]),
            ]
        )
    counts = ", ".join(f"{sum(s.split == split for s in subjects)} {split}" for split in SPLITS)
    picture = mosaic(["lowest slice", "largest lesion", "its mask", "highest slice"], rows, f"subjects: {counts}")
    save_png(directory / "summary.png", picture)
