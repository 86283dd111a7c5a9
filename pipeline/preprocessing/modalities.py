"""Slices of a target modality beside slices of source modalities, each with its scan's target: unpaired, labelled."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.labels import Label
from pipeline.preprocessing.slices import SliceDataset

LABELS: tuple[Label, ...] = ("pathological", "healthy", "unknown")

logger = logging.getLogger(__name__)


class ModalityDataset(Dataset[dict[str, Tensor]]):
    """Each slice of the target modality of a split, and beside it one of each source modality.

    A modality is a channel of the cohort, by name; scans of different modalities may be of different patients and
    sizes, and are brought to one grid. What is drawn beside a slice is drawn anew each time, from torch's global random
    state, which checkpoints keep. An epoch has the target modality's slices, whatever sources there are, so that
    trainings with and without one take the same number of steps.

    Args:
        cohort: a folder made by `phs-pipeline preprocess`, each of whose scans has a target.
        split: `training`, `validation` or `test`.
        grid: the network's grid.
        target_modality: channel that a prediction is learned for.
        sources: channels that help.
        labels: which slices, by label.
        fraction: share of the patients with the target modality to use, as in `SliceDataset`; of the sources all are
            used.
        seed: of their order.

    Attributes:
        target: slices of the target modality.
        sources: slices of each source modality, by name.

    Raises:
        UsageError: if a source is the target modality, a modality is missing, or its scans have no target.
    """

    def __init__(
        self,
        cohort: Path | str,
        split: str,
        grid: Grid,
        target_modality: str,
        sources: Sequence[str],
        labels: Sequence[str] = LABELS,
        fraction: float = 1.0,
        seed: int = 0,
    ) -> None:
        if target_modality in sources:
            raise UsageError(
                f"sources: found {target_modality}, which is the target modality, expected other modalities; take it "
                "out"
            )
        self.target = SliceDataset(cohort, split, grid, labels, fraction, seed, [target_modality])
        self.sources = {name: SliceDataset(cohort, split, grid, labels, channels=[name]) for name in sources}
        for name, slices in {target_modality: self.target, **self.sources}.items():
            if len(slices) and "target" not in slices[0]:
                raise UsageError(
                    f"{cohort}: found no target of its {name} scans, expected one of each; preprocess with --target "
                    "COLUMN"
                )
        for name, slices in self.sources.items():
            shared = set(self.target.patients) & set(slices.patients)
            if shared:
                logger.warning(
                    "%s: %d of %d patients with %s have %s, too, which adds no new patients to learn from",
                    cohort, len(shared), len(set(self.target.patients)), target_modality, name,
                )  # fmt: skip

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One slice of the target modality, and one of each source.

        Returns:
            As `SliceDataset`, `image` x, `mask` and `target` r_t; and for each source s `image_s` y, (1, H, W) float32
            in [0, 1], and `target_s` r_s, (1,) float32.
        """
        sample = self.target[index]
        for name, slices in self.sources.items():
            drawn = slices[int(torch.randint(len(slices), ()))]
            sample |= {f"image_{name}": drawn["image"], f"target_{name}": drawn["target"]}
        return sample
