"""Brains in four sequences, each with one of two kinds of lesion, on disk as a BIDS dataset."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.phantoms.brain import CONTRASTS, LESIONS, brain_phantom
from pipeline.phantoms.cohort import write_subject
from pipeline.phantoms.dataset import refuse_other_content, write_descriptions, write_participants

NAME = "Synthetic brain phantoms in four sequences, with two kinds of lesion"
README = """\
Synthetic brain phantoms in FLAIR, T1w, T2w and PDw contrast; no person was scanned.

sub-*/anat                   the scans, with lesions; the sequences of a person lie on each other and share their noise
derivatives/manual           the lesion masks (1 lesion, 0 elsewhere)
derivatives/truth            the same scans before the lesions were planted
participants.tsv             the kind of lesion that a person has, bright or dark in FLAIR (and the reverse in T1w)

Made by `phs-pipeline phantom --kind sequences`. Each subject depends only on the seed and on its
own number. For example:

    phs-pipeline preprocess FOLDER -o COHORT --channels FLAIR,T1w,T2w,PDw --target lesion
"""


def write_sequences_cohort(
    directory: Path, subjects: int, seed: int, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Write phantoms in each of `CONTRASTS`, with lesions of each of `LESIONS` in turn, as one BIDS dataset.

    Complete subjects are left alone.

    Args:
        directory: a new or empty folder, or one that holds the cohort of the same seed.
        subjects: at least 1.
        seed: of the cohort, at least 0.
        progress: called with (subjects done, subjects in all).

    Returns:
        The labels asked for: `["sub-001", "sub-002", …]`.

    Raises:
        UsageError: if the folder holds something else, or cannot be written to.
    """
    directory = Path(directory)
    made_by = {"Seed": seed, "Kind": "sequences"}
    refuse_other_content(directory, made_by)
    held = {"manual": "lesion masks", "truth": "healthy truth"}
    write_descriptions(directory, NAME, made_by, README, held, licence="CC0")
    kinds = list(LESIONS)
    labels = [f"sub-{number:03d}" for number in range(1, subjects + 1)]
    for number, label in enumerate(labels, start=1):
        for contrast in CONTRASTS:
            rng = np.random.default_rng([seed, number])
            kind = kinds[number % len(kinds)]
            write_subject(directory, label, contrast, partial(brain_phantom, rng, contrast=contrast, lesions=kind))
        if progress is not None:
            progress(number, subjects)
    present = sorted(folder.name for folder in directory.glob("sub-*"))
    rows = {label: {"lesion": kinds[int(label.removeprefix("sub-")) % len(kinds)]} for label in present}
    write_participants(directory, rows)
    return labels
