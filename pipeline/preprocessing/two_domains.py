"""Pathological slices beside healthy ones, for methods that translate between the two domains."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset


class TwoDomainDataset(Dataset[dict[str, Tensor]]):
    """Each pathological slice of a split with its mask, a healthy slice, and a lesion mask of somebody else.

    Healthy slices come from patients too, from where their lesion is not; splits are by patient all the same. What is
    drawn beside a slice is drawn anew each time, from torch's global random state, which checkpoints keep.

    Args:
        cohort: a folder made by `phs-pipeline preprocess`.
        split: `training`, `validation` or `test`.
        grid: the network's grid.
        fraction: share of the split's patients to use, as in `SliceDataset`.
        seed: of their order.

    Raises:
        UsageError: if there is no healthy slice, or fewer than two patients have a lesion.
    """

    def __init__(self, cohort: Path | str, split: str, grid: Grid, fraction: float = 1.0, seed: int = 0) -> None:
        self.pathological = SliceDataset(cohort, split, grid, ("pathological",), fraction, seed)
        self.healthy = SliceDataset(cohort, split, grid, ("healthy",), fraction, seed)
        patients = np.asarray(self.pathological.patients)
        if len(set(patients)) < 2:
            raise UsageError(
                f"{cohort}: found pathological slices of {patients[0]} alone in the {split} split, expected at least 2 "
                "patients, since masks are taken from somebody else; use more data"
            )
        self._others = {patient: np.flatnonzero(patients != patient) for patient in set(patients)}

    def __len__(self) -> int:
        return len(self.pathological)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        """One slice, each tensor (1, H, W) float32.

        Returns:
            `image` x_p in [0, 1] and `mask` m_p in {0, 1} of the same slice; `healthy` x_h in [0, 1]; `other_mask` in
            {0, 1}, a lesion mask of another patient.
        """
        others = self._others[self.pathological.patients[place]]
        return {
            **self.pathological[place],
            "healthy": self.healthy[_draw(len(self.healthy))]["image"],
            "other_mask": self.pathological[int(others[_draw(len(others))])]["mask"],
        }


def _draw(count: int) -> int:
    return int(torch.randint(count, ()))
