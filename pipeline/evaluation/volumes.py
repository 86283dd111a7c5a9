"""The pathological slices of a preprocessed cohort, one volume at a time, on the scans' own pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort_format import LEVELS, Subject, read_cohort, read_mask, read_stored, stored_shape
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.splits import SPLITS

PATHOLOGICAL = "pathological"
HEALTHY = "healthy"


@dataclass(frozen=True)
class Volume:
    """Slices of one subject that have the same label.

    Attributes:
        subject: name of the scan in the cohort.
        patient: the person; one person may have several scans.
        spacing_mm: pixel size along (right, anterior).
        places: index of each slice in the subject's slab.
        image: x_p in [0, 1], float32, shape (N, 1, H, W).
        lesion: m, bool, same shape.
        foreground: head or body, found in the whole slab, bool, same shape.
        truth: the same slices before the lesion, where that is known; as `image`.
        slice_mm: distance of neighbouring slices of the slab.
    """

    subject: str
    patient: str
    spacing_mm: tuple[float, float]
    places: list[int]
    image: Tensor
    lesion: Tensor
    foreground: Tensor
    truth: Tensor | None
    slice_mm: float = 1.0

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Voxel size along (slices, right, anterior)."""
        return self.slice_mm, *self.spacing_mm


def pathological_subjects(cohort: Path, split: str) -> list[Subject]:
    """Records of the subjects of a split that have pathological slices, as `cohort.json` holds them.

    Raises:
        UsageError: if there are none, or the folder is no preprocessed cohort.
    """
    found = subjects_with(cohort, split, PATHOLOGICAL)
    if not found:
        content = read_cohort(cohort)
        present = ", ".join(
            f"{name} {content.slices(name, 'patients')} patients with {content.slices(name, PATHOLOGICAL)} "
            "pathological slices"
            for name in SPLITS
        )
        raise UsageError(
            f"{cohort}: found no pathological slice in the {split} split, expected some (the cohort has: {present}); "
            "choose another split, or preprocess with other shares"
        )
    return found


def subjects_with(cohort: Path, split: str, label: str) -> list[Subject]:
    """Records of the subjects of a split that have slices of a label."""
    return [subject for subject in read_cohort(cohort).of(split) if label in subject.labels]


def read_volume(cohort: Path, record: Subject, label: str = PATHOLOGICAL) -> Volume:
    """Read the slices of one subject that have a label.

    Args:
        cohort: folder of the preprocessed cohort.
        record: of the subject, as `subjects_with` gives it.
        label: `pathological` or `healthy`.

    Raises:
        UsageError: if a file of the cohort is missing or damaged.
    """
    places = [place for place, found in enumerate(record.labels) if found == label]

    def chosen(axial: NDArray[Any]) -> Tensor:
        return torch.from_numpy(axial[places, None])

    image = _levels(cohort / record.images)
    return Volume(
        subject=record.subject,
        patient=record.patient,
        slice_mm=record.spacing_mm[0],
        spacing_mm=record.pixel_mm,
        places=places,
        image=chosen(image),
        lesion=chosen(read_mask(cohort, record) > 0),
        foreground=chosen(foreground(image)),
        truth=chosen(_levels(cohort / record.truth)) if record.truth is not None else None,
    )


def in_plane_shape(cohort: Path, record: Subject) -> tuple[int, int]:
    """Pixels of a subject's slices along (right, anterior), from the header alone.

    Raises:
        UsageError: if the file is missing or damaged.
    """
    return stored_shape(cohort / record.images)[1:]


def _levels(path: Path) -> NDArray[np.float32]:
    # Not through the header's slope, a float32 that takes the highest level a little off 1.
    return read_stored(path).astype(np.float32) / np.float32(LEVELS)
