"""The pathological slices of a preprocessed cohort, one volume at a time, on the scans' own pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import LEVELS, read_cohort
from pipeline.preprocessing.foreground import foreground

PATHOLOGICAL = "pathological"


@dataclass(frozen=True)
class Volume:
    """The pathological slices of one subject.

    Attributes:
        subject: name of the scan in the cohort.
        patient: the person; one person may have several scans.
        spacing_mm: pixel size along (right, anterior).
        places: index of each slice in the subject's slab.
        image: x_p in [0, 1], float32, shape (N, 1, H, W).
        lesion: m, bool, same shape.
        foreground: head or body, found in the whole slab, bool, same shape.
        truth: the same slices before the lesion, where that is known; as `image`.
    """

    subject: str
    patient: str
    spacing_mm: tuple[float, float]
    places: list[int]
    image: Tensor
    lesion: Tensor
    foreground: Tensor
    truth: Tensor | None


def pathological_subjects(cohort: Path, split: str) -> list[dict[str, Any]]:
    """Records of the subjects of a split that have pathological slices, as `cohort.json` holds them.

    Raises:
        UsageError: if there are none, or the folder is no preprocessed cohort.
    """
    content = read_cohort(cohort)
    found = [s for s in content["subjects"] if s["split"] == split and PATHOLOGICAL in s["labels"]]
    if not found:
        present = ", ".join(
            f"{name} {count['patients']} patients with {count[PATHOLOGICAL]} pathological slices"
            for name, count in content["counts"].items()
        )
        raise UsageError(
            f"{cohort}: found no pathological slice in the {split} split, expected some (the cohort has: {present}); "
            "choose another split, or preprocess with other shares"
        )
    return found


def read_volume(cohort: Path, record: dict[str, Any]) -> Volume:
    """Read the pathological slices of one subject.

    Args:
        cohort: folder of the preprocessed cohort.
        record: of the subject, as `pathological_subjects` gives it.

    Raises:
        UsageError: if a file of the cohort is missing or damaged.
    """
    places = [place for place, label in enumerate(record["labels"]) if label == PATHOLOGICAL]

    def chosen(axial: NDArray[Any]) -> Tensor:
        return torch.from_numpy(axial[places, None])

    image = _levels(cohort / record["images"])
    return Volume(
        subject=record["subject"],
        patient=record["patient"],
        spacing_mm=(record["spacing_mm"][1], record["spacing_mm"][2]),
        places=places,
        image=chosen(image),
        lesion=chosen(_stored(cohort / record["masks"]) > 0),
        foreground=chosen(foreground(image)),
        truth=chosen(_levels(cohort / record["truth"])) if "truth" in record else None,
    )


def in_plane_shape(cohort: Path, record: dict[str, Any]) -> tuple[int, int]:
    """Pixels of a subject's slices along (right, anterior), from the header alone.

    Raises:
        UsageError: if the file is missing or damaged.
    """
    height, width = _opened(cohort / record["images"]).shape[:2]
    return height, width


def _levels(path: Path) -> NDArray[np.float32]:
    # Not through the header's slope, a float32 that takes the highest level a little off 1.
    return _stored(path).astype(np.float32) / np.float32(LEVELS)


def _stored(path: Path) -> NDArray[Any]:
    """Stored voxels as (slices, right, anterior)."""
    try:
        return np.ascontiguousarray(np.moveaxis(_opened(path).dataobj.get_unscaled(), 2, 0))
    except (OSError, EOFError, ValueError) as error:
        raise _unreadable(path) from error


def _opened(path: Path) -> Any:
    try:
        return nib.load(path)
    except (OSError, ImageFileError) as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> UsageError:
    return UsageError(
        f"{path}: missing or damaged, expected a volume of the preprocessed cohort; run `phs-pipeline preprocess` again"
    )
