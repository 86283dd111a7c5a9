"""Slices of a target modality beside slices of source modalities: unpaired, with what is learned of the sources."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.labels import Label
from pipeline.preprocessing.slices import SliceDataset

LABELS: tuple[Label, ...] = ("pathological", "healthy", "unknown")
# Slices whose lesions are drawn.
DRAWN: tuple[Label, ...] = ("pathological", "healthy")

logger = logging.getLogger(__name__)


class ModalityDataset(Dataset[dict[str, Tensor]]):
    """Each slice of the target modality of a split, and beside it one of each source modality.

    A modality is a channel of the cohort, by name; scans of different modalities may be of different patients and
    sizes, and are brought to one grid. What is drawn beside a slice is drawn anew each time, from torch's global random
    state, which checkpoints keep. An epoch has the target modality's slices, whatever sources there are, so that
    trainings with and without one take the same number of steps.

    Args:
        cohort: a folder made by `phs-pipeline preprocess`.
        split: `training`, `validation` or `test`.
        grid: the network's grid.
        target_modality: channel that a prediction is learned for.
        sources: channels that help.
        labels: which slices, by label.
        fraction: share of the patients with the target modality to use, as in `SliceDataset`; of the sources all are
            used.
        seed: of their order.
        learned: `target`, which each scan must have then; or `mask`, the lesion masks of the sources, whose slices are
            those with a drawn mask, healthy or pathological. The target modality has none then, whatever the cohort
            holds: this is unsupervised domain adaptation.

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
        learned: Literal["target", "mask"] = "target",
    ) -> None:
        if target_modality in sources:
            raise UsageError(
                f"sources: found {target_modality}, which is the target modality, expected other modalities; take it "
                "out"
            )
        self.learned = learned
        self.target = SliceDataset(cohort, split, grid, labels, fraction, seed, [target_modality])
        of_sources = DRAWN if learned == "mask" else labels
        self.sources = {name: SliceDataset(cohort, split, grid, of_sources, channels=[name]) for name in sources}
        for name, slices in {target_modality: self.target, **self.sources}.items():
            if learned == "target" and len(slices) and "target" not in slices[0]:
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
            in [0, 1], and `target_s` r_s, (1,) float32. Where masks are learned, `image` and `image_s`, and `mask_s`,
            (1, H, W) float32 in {0, 1}, and nothing else.
        """
        sample = self.target[index] if self.learned == "target" else {"image": self.target[index]["image"]}
        for name, slices in self.sources.items():
            drawn = slices[int(torch.randint(len(slices), ()))]
            sample |= {f"image_{name}": drawn["image"], f"{self.learned}_{name}": drawn[self.learned]}
        return sample
