"""The slices of a preprocessed cohort, one volume at a time, on the scans' own pixels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort_format import LEVELS, Subject, read_cohort, read_mask, read_part, stored_shape
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.splits import SPLITS

PATHOLOGICAL = "pathological"
HEALTHY = "healthy"
SMALLEST_SIDE = 32  # below, a U-Net's lowest stage is a single pixel, which instance norm cannot normalise


@dataclass(frozen=True)
class Volume:
    """Slices of one subject, chosen by label.

    Attributes:
        subject: name of the scan in the cohort.
        patient: the person; one person may have several scans.
        spacing_mm: pixel size along (right, anterior).
        places: index of each slice in the subject's slab.
        image: x_p in [0, 1], float32, shape (N, 1, H, W).
        lesion: m, bool, same shape.
        foreground: head or body, found in the whole slab, without what the cohort says to ignore, bool, same shape.
        truth: the same slices before the lesion, where that is known; as `image`.
        slice_mm: distance of neighbouring slices of the slab.
        slab: all slices of the slab in [0, 1], float32, shape (slices, H, W), by sequence; None where `image` is all.
        whole: `lesion` and `foreground` of all slices of the slab, as NumPy arrays of that shape; None as above.
        target: what the cohort says of the scan, for example the kind of its lesions.
    """

    subject: str
    patient: str
    spacing_mm: tuple[float, float]
    places: list[int]
    image: Tensor
    lesion: Tensor
    foreground: Tensor
    truth: Tensor | None
    slice_mm: float = math.nan
    slab: Mapping[str, NDArray[np.float32]] | None = None
    whole: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
    target: float | str | None = None

    @property
    def slab_image(self) -> NDArray[np.float32]:
        """The first sequence of all slices of the slab, shape (slices, H, W)."""
        return self.image[:, 0].numpy() if self.slab is None else next(iter(self.slab.values()))

    @property
    def slab_lesion(self) -> NDArray[np.bool_]:
        """The lesion in all slices of the slab, of slices left out by label too."""
        return self.lesion[:, 0].numpy() if self.whole is None else self.whole[0]

    @property
    def slab_foreground(self) -> NDArray[np.bool_]:
        """The foreground in all slices of the slab."""
        return self.foreground[:, 0].numpy() if self.whole is None else self.whole[1]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return math.prod(self.spacing_mm) * self.slice_mm / 1000

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


def subjects_with(cohort: Path, split: str, *labels: str) -> list[Subject]:
    """Records of the subjects of a split that have slices of some of the labels."""
    return [subject for subject in read_cohort(cohort).of(split) if set(labels) & set(subject.labels)]


def patients_of(records: list[Subject]) -> set[str]:
    """Names of the patients that records belong to."""
    return {record.patient for record in records}


def targets(cohort: Path, split: str) -> dict[str, tuple[Subject, float]]:
    """Records and targets of the subjects of a split that have a target, by subject.

    Raises:
        UsageError: if a target is no number.
    """
    found = {}
    for record in read_cohort(cohort).of(split):
        if record.target is None:
            continue
        if not isinstance(record.target, (int, float)):
            raise UsageError(
                f"{cohort}: found the target {record.target!r} of {record.subject}, expected a number, or 0 and 1 for "
                "the two classes; preprocess again with such targets"
            )
        found[record.subject] = (record, float(record.target))
    return found


def read_volume(cohort: Path, record: Subject, *labels: str) -> Volume:
    """Read the slices of one subject that have one of the labels.

    Args:
        cohort: folder of the preprocessed cohort.
        record: of the subject, as `subjects_with` gives it.
        labels: some of `pathological`, `healthy` and `unknown`; `pathological` if none is given.

    Raises:
        UsageError: if a file of the cohort is missing or damaged.
    """
    wanted = labels or (PATHOLOGICAL,)
    places = [place for place, found in enumerate(record.labels) if found in wanted]

    def chosen(axial: NDArray[Any]) -> Tensor:
        return torch.from_numpy(axial[places, None])

    slab = {name: _levels(cohort, record, path) for name, path in record.channels.items()}
    image = next(iter(slab.values()))
    lesion, inside, truth = read_mask(cohort, record) > 0, foreground(image), read_truth(cohort, record)
    if record.ignore is not None:
        inside &= read_part(cohort, record, record.ignore) == 0
    return Volume(
        subject=record.subject,
        patient=record.patient,
        spacing_mm=record.pixel_mm,
        places=places,
        image=chosen(image),
        lesion=chosen(lesion),
        foreground=chosen(inside),
        truth=None if truth is None else chosen(truth),
        slice_mm=record.spacing_mm[0],
        target=record.target,
        slab=slab,
        whole=(lesion, inside),
    )


def read_channels(cohort: Path, record: Subject) -> dict[str, NDArray[np.float32]]:
    """All slices of a subject's slab in [0, 1] by channel, shape (slices, right, anterior).

    Raises:
        UsageError: if a file of the cohort is missing or damaged.
    """
    return {name: _levels(cohort, record, path) for name, path in record.channels.items()}


def read_slab(cohort: Path, record: Subject) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    """All slices of a subject's slab in [0, 1], shape (slices, C, right, anterior), and their voxels' size.

    Raises:
        UsageError: as `read_channels`.
    """
    return np.stack(list(read_channels(cohort, record).values()), axis=1), record.spacing_mm


def read_truth(cohort: Path, record: Subject) -> NDArray[np.float32] | None:
    """All slices of a subject's slab before the lesion, in [0, 1], shape (slices, right, anterior); None if not known.

    Raises:
        UsageError: if the file of the cohort is missing or damaged.
    """
    return None if record.truth is None else _levels(cohort, record, record.truth)


def cohort_grid(cohort: Path, spacing_mm: float) -> Grid:
    """A canvas just large enough for the largest field of view of a cohort's slices."""
    grid = Grid(spacing_mm, (SMALLEST_SIDE, SMALLEST_SIDE))
    try:
        for record in read_cohort(cohort).subjects:
            grid = grid.enlarged(in_plane_shape(cohort, record), record.pixel_mm)
    except ValueError as error:
        raise UsageError(f"{cohort}: {error}; check each spacing_mm in cohort.json") from error
    return grid


def finest_spacing(cohort: Path) -> float:
    """The smallest pixel side of a cohort's slices, in mm."""
    return float(min(min(record.pixel_mm) for record in read_cohort(cohort).subjects))


def in_plane_shape(cohort: Path, record: Subject) -> tuple[int, int]:
    """Pixels of a subject's slices along (right, anterior), from the header alone.

    Raises:
        UsageError: if the file is missing or damaged.
    """
    return stored_shape(cohort / record.images)[1:]


def _levels(cohort: Path, record: Subject, file: str) -> NDArray[np.float32]:
    # Not through the header's slope, a float32 that takes the highest level a little off 1.
    return read_part(cohort, record, file).astype(np.float32) / np.float32(LEVELS)
