"""A cohort of brain phantoms on disk: raw scans in BIDS, masks and healthy truth as its derivatives."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.files import write_json
from pipeline.phantoms.brain import Phantom, brain_phantom
from pipeline.phantoms.dataset import refuse_other_content, write_descriptions, write_participants, write_volume

NAME = "Synthetic brain phantoms (FLAIR contrast)"
README = """\
Synthetic brain phantoms in FLAIR contrast; no person was scanned.

sub-*/anat                   the scans, with lesions
derivatives/manual           the lesion masks (1 lesion, 0 elsewhere)
derivatives/truth            the same scans before the lesions were planted: equal to the scan, voxel for
                             voxel, wherever the mask is 0

Made by `phs-pipeline phantom`. Each subject depends only on the seed and on its own number, so the cohort can
be made again, or made larger, without changing a subject.
"""


def write_phantom_cohort(directory: Path, subjects: int, seed: int) -> list[str]:
    """Write `sub-001` to `sub-<subjects>` of the phantom cohort of this seed as a BIDS dataset.

    Subject `k` depends only on `(seed, k)`: a larger cohort keeps the subjects of a smaller one, and the same
    arguments give the same bytes. Subjects that are already complete are left alone.

    Args:
        directory: a new or empty folder, or one that holds the cohort of the same seed.
        subjects: number of subjects, at least 1.
        seed: seed of the cohort, at least 0.

    Returns:
        The labels asked for, all of them now on disk: `["sub-001", "sub-002", …]`.

    Raises:
        UsageError: if `directory` holds something else, or cannot be written to.
    """
    directory = Path(directory)
    refuse_other_content(directory, {"Seed": seed})
    held = {"manual": "lesion masks", "truth": "healthy truth"}
    write_descriptions(directory, NAME, {"Seed": seed}, README, held, licence="CC0")
    labels = [f"sub-{number:03d}" for number in range(1, subjects + 1)]
    for number, label in enumerate(labels, start=1):
        write_subject(directory, label, "FLAIR", partial(brain_phantom, np.random.default_rng([seed, number])))
    # A larger cohort may already lie here; its subjects stay participants.
    present = sorted(scan.parents[1].name for scan in directory.glob("sub-*/anat/sub-*_FLAIR.nii.gz"))
    write_participants(directory, {label: {} for label in present})
    return labels


def _names(label: str, contrast: str) -> tuple[str, str, str]:
    """Where the lesion mask, the healthy truth and the scan of a subject lie in the dataset."""
    return (
        f"derivatives/manual/{label}/anat/{label}_label-lesion_mask.nii.gz",
        f"derivatives/truth/{label}/anat/{label}_desc-healthy_{contrast}.nii.gz",
        f"{label}/anat/{label}_{contrast}.nii.gz",
    )


def write_subject(directory: Path, label: str, contrast: str, draw: Callable[[], Phantom]) -> None:
    """Write a subject's scan, healthy truth and lesion mask; a subject that is already complete is left alone.

    Args:
        directory: of the dataset.
        label: of the subject, such as `sub-001`.
        contrast: suffix of the scan.
        draw: makes the subject.
    """
    mask, truth, scan = _names(label, contrast)
    if all((directory / name).exists() for name in (mask, truth, scan)):
        return
    phantom = draw()
    source = f"bids:raw:{scan}"
    for name, voxels, sidecar in (
        (
            mask,
            phantom.lesion,
            {
                "Description": "Lesions planted in a synthetic brain",
                "Sources": [source],
                "SpatialReference": source,
                "Type": "Lesion",
            },
        ),
        (truth, phantom.healthy, {"Description": "Synthetic brain before its lesions", "Sources": [source]}),
        # Last, so that a subject with a scan is complete.
        (scan, phantom.image, {"SeriesDescription": f"SYNTHETIC brain phantom, {contrast} contrast"}),
    ):
        path = directory / name
        write_json(path.with_name(path.name.replace(".nii.gz", ".json")), {**sidecar, "SkullStripped": True})
        write_volume(path, voxels, phantom.affine)
