"""Slices of which few have a mask or class: what semi-supervised learning learns from."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.preprocessing.augmentation import Augmentation
from pipeline.preprocessing.cohort_format import Subject
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.half_slices import HalfSliceDataset, HalfSliceRule
from pipeline.preprocessing.slices import SliceDataset


class LesionPresenceDataset(SliceDataset):
    """Slices whose target is the class `healthy`, 0, or `pathological`, 1: whether they show a lesion.

    Args, attributes and errors as of `SliceDataset`.
    """

    def _lacks_target(self, subject: Subject) -> bool:
        del subject
        return False

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One slice, as `SliceDataset` gives it, whatever the cohort's target is."""
        sample = self._pictures(index)
        return {**sample, "target": sample["mask"].any()[None].float()}


# By what a slice's class is.
SLICES = {None: SliceDataset, "target": SliceDataset, "presence": LesionPresenceDataset}


class PartlyLabelledDataset(Dataset[dict[str, Tensor]]):
    """Slices of a split, of which the masks and classes of some may be used.

    Which are labelled is drawn once from the seed, so that a larger share contains a smaller one.

    Args:
        cohort: a folder made by `phs-pipeline preprocess`.
        split: `training`, `validation` or `test`.
        grid: the network's grid.
        labels: which slices, by label.
        labelled: share of the patients, or of the slices, whose masks and classes may be used.
        labelled_by: whole `patients`, or `examples`. Of both at least one is labelled.
        labelled_share: share of an epoch's slices that are labelled ones, over and over; what is left of the epoch, as
            long as ever, is drawn from all. None: each slice comes once.
        fraction: share of the split's patients to use at all, as in `SliceDataset`.
        seed: of both orders.
        channels: which of the cohort's channels, by name; None: all.
        class_of: what a slice's class is: the cohort's `target`, which is a name or a number from 0 on, or the
            `presence` of a lesion; None: there is none.

    Attributes:
        slices: all of them.
        labelled: for each slice, whether it is labelled.

    Raises:
        UsageError: as `SliceDataset`, or if a setting makes no sense.
    """

    def __init__(
        self,
        cohort: Path | str,
        split: str,
        grid: Grid,
        labels: Sequence[str] = ("pathological", "healthy"),
        labelled: float = 1.0,
        labelled_by: Literal["examples", "patients"] = "patients",
        labelled_share: float | None = None,
        fraction: float = 1.0,
        seed: int = 0,
        channels: Sequence[str] | None = None,
        class_of: Literal["target", "presence"] | None = None,
    ) -> None:
        _check(labelled, labelled_by, labelled_share)
        if class_of not in SLICES:
            raise UsageError(f"class_of is 'target', 'presence' or null, found {class_of!r}")
        self.class_of = class_of
        self.slices = SLICES[class_of](cohort, split, grid, labels, fraction, seed, channels)
        names = self.slices.patients if labelled_by == "patients" else [str(n) for n in range(len(self.slices))]
        chosen = set(_ordered(names, seed)[: max(1, round(labelled * len(set(names))))])
        self.labelled = np.array([name in chosen for name in names])
        self._shown = _epoch(self.labelled, labelled_share)

    def __len__(self) -> int:
        return len(self._shown)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One slice.

        Returns:
            `image` and `mask` as of `SliceDataset`, the mask zeros where it is not labelled, which `labelled` (1,) in
            {0, 1} tells; and `class` (1,), its number, 0 where it is not labelled.

        Raises:
            UsageError: if the slice's class is the cohort's target, and it has none.
        """
        place = _drawn(self._shown[index], len(self.labelled))
        sample, labelled = self.slices[place], torch.tensor([float(self.labelled[place])])
        shown = {"image": sample["image"], "mask": sample["mask"] * labelled, "labelled": labelled}
        if self.class_of is None:
            return shown
        if "target" not in sample:
            raise UsageError(f"{self.slices.cohort}: has no targets, expected classes; preprocess with --target COLUMN")
        return {**shown, "class": sample["target"] * labelled}


class FewLabelsDataset(Dataset[dict[str, Tensor]]):
    """Each pathological slice of a split, with its mask if it is one of the labelled, and a healthy slice.

    Which are labelled is drawn once from the seed, so that a larger share contains a smaller one. The healthy slice is
    drawn anew each time, from torch's global random state, which checkpoints keep.

    Args:
        cohort: a folder made by `phs-pipeline preprocess`.
        split: `training`, `validation` or `test`.
        grid: the network's grid.
        labelled: share of the pathological slices, or of their patients, whose masks may be used.
        labelled_by: `examples`, as GenSeg counts, or whole `patients`, of whom then nothing is known by another slice.
            Of both at least one is labelled.
        labelled_target: label slices of subjects with this target alone, which still count among all: GenSeg labels
            1 % of its training examples, all of them nines.
        labelled_share: share of an epoch's slices that are labelled ones, over and over; what is left of the epoch, as
            long as ever, is drawn from all. 1 is for a segmentation that has no use for the others. None: each slice
            comes once.
        fraction: share of the split's patients to use at all, as in `SliceDataset`.
        seed: of both orders.
        channels: which of the cohort's channels, by name; None: all.
        half_slices: which of them belong to which domain, where the grid is of halves; None: the paper's rule.
        augmentation: of slices of both domains, with their masks; None: none.

    Attributes:
        labelled: for each pathological slice of the split, whether it is labelled.

    Raises:
        UsageError: if there is no healthy slice, fewer can be labelled than are asked for, or a number makes no sense.
    """

    def __init__(
        self,
        cohort: Path | str,
        split: str,
        grid: Grid,
        labelled: float = 1.0,
        labelled_by: Literal["examples", "patients"] = "examples",
        labelled_target: float | None = None,
        labelled_share: float | None = None,
        fraction: float = 1.0,
        seed: int = 0,
        channels: list[str] | None = None,
        half_slices: HalfSliceRule | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        _check(labelled, labelled_by, labelled_share)
        given = (fraction, seed, channels, half_slices)
        self.pathological = HalfSliceDataset(cohort, split, grid, ("pathological",), *given, augmentation=augmentation)
        self.healthy = HalfSliceDataset(
            cohort, split, grid, ("healthy",), *given, like=self.pathological, augmentation=augmentation
        )
        subjects = self.pathological.subject_of
        names = [subject.patient if labelled_by == "patients" else str(n) for n, subject in enumerate(subjects)]
        possible = [
            name
            for name, subject in zip(names, subjects, strict=True)
            if labelled_target is None or subject.target == labelled_target
        ]
        wanted = max(1, round(labelled * len(set(names))))
        if wanted > len(set(possible)):
            of_target = "" if labelled_target is None else f" with the target {labelled_target:g}"
            raise UsageError(
                f"{cohort}: {labelled:.0%} of the {split} {labelled_by} are {wanted}, and it has {len(set(possible))}"
                f"{of_target}, expected at least as many; label a smaller share (labelled), or any (labelled_target "
                "null)"
            )
        chosen = set(_ordered(possible, seed)[:wanted])
        self.labelled = np.array([name in chosen for name in names])
        # Of a patient who is labelled, slices with another target are not.
        self.labelled &= [labelled_target is None or subject.target == labelled_target for subject in subjects]
        self._shown = _epoch(self.labelled, labelled_share)

    def __len__(self) -> int:
        return len(self._shown)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One slice.

        Returns:
            `image` x_P (C, H, W) float32 in [0, 1], half-slices standardised; `mask` (1, H, W) in {0, 1}, zeros where
            it is not labelled, which `labelled` (1,) in {0, 1} tells; `healthy` x_A (C, H, W), of any
            patient of the split; where the cohort's target is a class, `pathology` (1,), its number in sorted order.
        """
        place = _drawn(self._shown[index], len(self.labelled))
        sample = self.pathological[place]
        labelled = torch.tensor([float(self.labelled[place])])
        shown = {
            "image": sample["image"],
            "mask": sample["mask"] * labelled,
            "labelled": labelled,
            "healthy": self.healthy[int(torch.randint(len(self.healthy), ()))]["image"],
        }
        return {**shown, "pathology": sample["target"]} if self.pathological.classes else shown


def _check(labelled: float, labelled_by: str, labelled_share: float | None) -> None:
    if not 0 < labelled <= 1:
        raise UsageError(f"the share of labelled slices must be above 0 and at most 1, found {labelled}")
    if labelled_by not in ("examples", "patients"):
        raise UsageError(f"labelled_by is 'examples' or 'patients', found {labelled_by!r}")
    if labelled_share is not None and not 0 <= labelled_share <= 1:
        raise UsageError(f"labelled_share is a share between 0 and 1, found {labelled_share}")


def _epoch(labelled: NDArray[np.bool_], share: float | None) -> list[int | None]:
    """Places of an epoch's slices; None where one is to be drawn."""
    if share is None:
        return list(range(len(labelled)))
    count = round(share * len(labelled))
    labels = np.resize(np.flatnonzero(labelled), count)
    return [*map(int, labels), *[None] * (len(labelled) - count)]


def _drawn(place: int | None, count: int) -> int:
    """The place, or one of so many from torch's global random state, which checkpoints keep."""
    return int(torch.randint(count, ())) if place is None else place


def _ordered(names: Collection[str], seed: int) -> list[str]:
    return [str(name) for name in np.random.default_rng(seed).permutation(sorted(set(names)))]
