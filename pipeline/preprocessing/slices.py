"""A preprocessed cohort's axial slices on a network's grid, in memory, ready for training."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import LEVELS, read_cohort, read_stored
from pipeline.preprocessing.grid import Grid


class SliceDataset(Dataset[dict[str, Tensor]]):
    """Axial slices of one split, with their lesion masks.

    Slices are kept as 16-bit levels, two bytes a pixel: a cohort of 300 scans with 60 slices of 240×240 takes 2.1 GB.

    Args:
        cohort: a folder made by `phs-pipeline preprocess`.
        split: `training`, `validation` or `test`.
        grid: the network's grid; slices that do not fit are cropped around their centre.
        labels: which slices, by label.
        fraction: share of the split's patients to use, for experiments on the amount of data (GVS Fig. 5d); taken in an
            order drawn from `seed`, so that a larger share contains a smaller one.
        seed: of that order.

    Attributes:
        patients: whose each slice is.

    Raises:
        UsageError: if no slice is left.
    """

    def __init__(
        self,
        cohort: Path | str,
        split: str,
        grid: Grid,
        labels: Sequence[str] = ("pathological",),
        fraction: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not 0 < fraction <= 1:
            raise UsageError(f"the fraction of training patients must be above 0 and at most 1, found {fraction}")
        self.grid = grid
        self.subjects = _subjects(Path(cohort), split, fraction, seed)
        with ThreadPoolExecutor() as pool:
            loaded = list(pool.map(lambda subject: self._load(Path(cohort), subject, labels), self.subjects))
        self.patients = [
            subject["patient"]
            for subject, (images, _) in zip(self.subjects, loaded, strict=True)
            for _ in range(len(images))
        ]
        self.images = np.concatenate([images for images, _ in loaded] or [np.empty((0, 1, *grid.size), np.uint16)])
        self.masks = np.concatenate([masks for _, masks in loaded] or [np.empty((0, 1, *grid.size), np.uint8)])
        if not len(self.images):
            raise UsageError(
                f"{cohort}: found no {' or '.join(labels)} slice among the {len(self.subjects)} {split} subjects, "
                "expected some; preprocess with another split, slab or minimum lesion size"
            )

    def _load(
        self, cohort: Path, subject: dict[str, Any], labels: Sequence[str]
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        wanted = [place for place, label in enumerate(subject["labels"]) if label in labels]
        spacing_mm = (subject["spacing_mm"][1], subject["spacing_mm"][2])

        def slices(name: str) -> Tensor:
            return torch.from_numpy(read_stored(cohort / subject[name])[wanted, None].astype(np.float32))

        if not wanted:
            return np.empty((0, 1, *self.grid.size), np.uint16), np.empty((0, 1, *self.grid.size), np.uint8)
        images = self.grid.images(slices("images"), spacing_mm, fit=True)
        masks = self.grid.masks(slices("masks"), spacing_mm, fit=True)
        return images.round().clamp(0, LEVELS).numpy().astype(np.uint16), masks.numpy().astype(np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> dict[str, Float32[Tensor, "_ height width"]]:
        """One slice: `image` (1, H, W) float32 in [0, 1] and `mask` (1, H, W) float32 in {0, 1}."""
        return {
            "image": torch.from_numpy(self.images[place].astype(np.float32) / LEVELS),
            "mask": torch.from_numpy(self.masks[place].astype(np.float32)),
        }


def _subjects(cohort: Path, split: str, fraction: float, seed: int) -> list[dict[str, Any]]:
    subjects = [subject for subject in read_cohort(cohort)["subjects"] if subject["split"] == split]
    if fraction == 1:
        return subjects
    patients = np.random.default_rng(seed).permutation(sorted({subject["patient"] for subject in subjects}))
    kept = set(patients[: max(1, round(fraction * len(patients)))])
    return [subject for subject in subjects if subject["patient"] in kept]
