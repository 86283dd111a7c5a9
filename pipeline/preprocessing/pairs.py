"""Slices of one channel of a cohort beside those of others, of the same people and places: pairs to translate."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.modalities import LABELS
from pipeline.preprocessing.slices import SliceDataset

# Sources that are drawn from the pair itself, and are no channels of a cohort.
DRAWN = ("mask", "edges")
EDGE_SIGMA = 1.0  # pixels, of the Gaussian before the gradient


def edges(image: Float32[Tensor, "1 height width"]) -> Float32[Tensor, "1 height width"]:
    """A sketch of an image: 1 on its edges (Canny 1986), 0 elsewhere.

    Args:
        image: in [0, 1].
    """
    from skimage.feature import canny

    drawn = canny(image[0].numpy(), EDGE_SIGMA)  # type: ignore[no-untyped-call]
    return torch.from_numpy(drawn.astype(np.float32))[None]


class PairedDataset(Dataset[dict[str, Tensor]]):
    """Slices of scans that have all of these channels: the sources' stacked, and the target's.

    Args:
        cohort: a folder made by `phs-pipeline preprocess --channels`.
        split: `training`, `validation` or `test`.
        grid: the network's grid.
        sources: channels to translate from, and of `DRAWN`: `mask`, the lesion mask, and `edges`, a sketch of the
            target.
        target_modality: channel to translate into.
        labels: which slices, by label.
        fraction: share of the patients to use, as in `SliceDataset`.
        seed: of their order.

    Attributes:
        slices: of all channels, the target's last.

    Raises:
        UsageError: if a source is the target, none is named, or no scan has all channels.
    """

    def __init__(
        self,
        cohort: Path | str,
        split: str,
        grid: Grid,
        sources: Sequence[str],
        target_modality: str,
        labels: Sequence[str] = LABELS,
        fraction: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not sources or target_modality in sources:
            raise UsageError(
                f"sources: found {', '.join(sources) or 'none'} for the target modality {target_modality}, expected at "
                "least one, each another; change --set sources or --set target_modality"
            )
        self.sources = tuple(sources)
        self.channels = [name for name in sources if name not in DRAWN]
        self.slices = SliceDataset(
            cohort, split, grid, labels, fraction, seed, channels=[*self.channels, target_modality]
        )

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One pair.

        Returns:
            `image` x (C, H, W) in the order of the sources, `target_image` y (1, H, W), both float32 in [0, 1], and
            `mask` (1, H, W) in {0, 1}.
        """
        sample = self.slices[index]
        target = sample["image"][-1:]
        found = dict(zip(self.channels, sample["image"].split(1), strict=False))
        if "mask" in self.sources:
            found["mask"] = sample["mask"]
        if "edges" in self.sources:
            found["edges"] = edges(target)
        return {
            "image": torch.cat([found[name] for name in self.sources]),
            "target_image": target,
            "mask": sample["mask"],
        }
