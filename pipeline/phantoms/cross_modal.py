"""Three modalities of different people, and an age that each brain shows by its shrinkage, on disk as BIDS datasets."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.phantoms.brain import brain_phantom
from pipeline.phantoms.cohort import write_subject
from pipeline.phantoms.dataset import refuse_other_content, write_descriptions, write_participants

# Target modality, then sources.
MODALITIES = ("FLAIR", "T1w", "T2w")
AGES = (20.0, 90.0)  # without atrophy, and with the most
NAME = "Synthetic brain phantoms of a known age ({} contrast)"
README = """\
Synthetic brain phantoms in {} contrast; no person was scanned.

sub-*/anat                   the scans, with lesions
derivatives/manual           the lesion masks (1 lesion, 0 elsewhere)
derivatives/truth            the same scans before the lesions were planted
participants.tsv             the age, 20 to 90: ventricles and sulci widen with it, by nothing else than it

Made by `phs-pipeline phantom --kind cross-modal`. The folders beside this one hold other people in other contrasts.
Prepare each, and join them:

    phs-pipeline preprocess FOLDER/FLAIR -o flair --modality FLAIR --target age    (T1w and T2w likewise)
    phs-pipeline join flair t1w t2w -o COHORT
"""


def write_cross_modal_cohort(
    directory: Path,
    subjects: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    contrast: str | None = None,
) -> dict[str, list[str]]:
    """Write phantoms in each of `MODALITIES`, all of different people, as a BIDS dataset each.

    A subject depends only on the seed, its modality and its number. Complete subjects are left alone.

    Args:
        directory: receives a folder for each modality; new ones, or those of the same seed.
        subjects: of each modality, at least 1.
        seed: of the cohort, at least 0.
        progress: called with (subjects done, subjects in all).
        contrast: in which all are drawn, instead of their modality's: the source modalities' people as the target
            modality would show them, which no translation can surpass.

    Returns:
        Labels of the subjects by modality, such as `sub-FLAIR001`.

    Raises:
        UsageError: if a folder holds something else, or cannot be written to.
    """
    made: dict[str, list[str]] = {}
    for place, modality in enumerate(MODALITIES):
        folder = Path(directory) / modality
        shown = contrast or modality
        made_by = {"Seed": seed, "Kind": "cross-modal", "Modality": modality, "Contrast": shown}
        refuse_other_content(folder, made_by)
        held = {"manual": "lesion masks", "truth": "healthy truth"}
        write_descriptions(folder, NAME.format(shown), made_by, README.format(shown), held, licence="CC0")
        ages = {}
        for number in range(1, subjects + 1):
            rng = np.random.default_rng([seed, place, number])
            label, atrophy = f"sub-{modality}{number:03d}", rng.uniform()
            draw = partial(brain_phantom, rng, contrast=shown, atrophy=atrophy)
            write_subject(folder, label, shown, draw)
            ages[label] = AGES[0] + atrophy * (AGES[1] - AGES[0])
            if progress is not None:
                progress(place * subjects + number, len(MODALITIES) * subjects)
        write_participants(folder, {label: {"age": f"{age:.1f}"} for label, age in ages.items()})
        made[modality] = list(ages)
    return made
