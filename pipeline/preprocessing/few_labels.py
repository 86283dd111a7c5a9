"""Two domains of which few pathological slices have a mask: what semi-supervised segmentation learns from."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.preprocessing.augmentation import Augmentation
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.half_slices import HalfSliceDataset, HalfSliceRule


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
        if not 0 < labelled <= 1:
            raise UsageError(f"the share of labelled slices must be above 0 and at most 1, found {labelled}")
        if labelled_by not in ("examples", "patients"):
            raise UsageError(f"labelled_by is 'examples' or 'patients', found {labelled_by!r}")
        if labelled_share is not None and not 0 <= labelled_share <= 1:
            raise UsageError(f"labelled_share is a share between 0 and 1, found {labelled_share}")
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
        self._shown: list[int | None] = list(range(len(names)))
        if labelled_share is not None:
            count = round(labelled_share * len(names))
            labels = np.resize(np.flatnonzero(self.labelled), count)
            self._shown = [*map(int, labels), *[None] * (len(names) - count)]

    def __len__(self) -> int:
        return len(self._shown)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One slice.

        Returns:
            `image` x_P (C, H, W) float32 in [0, 1], half-slices standardised; `mask` (1, H, W) in {0, 1}, zeros where
            it is not labelled, which `labelled` (1,) in {0, 1} tells; `healthy` x_A (C, H, W), of any
            patient of the split; where the cohort's target is a class, `pathology` (1,), its number in sorted order.
        """
        known = self._shown[index]
        place = int(torch.randint(len(self.labelled), ())) if known is None else known
        sample = self.pathological[place]
        labelled = torch.tensor([float(self.labelled[place])])
        shown = {
            "image": sample["image"],
            "mask": sample["mask"] * labelled,
            "labelled": labelled,
            "healthy": self.healthy[int(torch.randint(len(self.healthy), ()))]["image"],
        }
        return {**shown, "pathology": sample["target"]} if self.pathological.classes else shown


def _ordered(names: list[str], seed: int) -> list[str]:
    return [str(name) for name in np.random.default_rng(seed).permutation(sorted(set(names)))]
