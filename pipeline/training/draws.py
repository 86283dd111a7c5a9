"""Random draws of a dataset, by whichever worker a sample is made."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class DrawnByIndex(Dataset[dict[str, Tensor]]):
    """A dataset that draws what follows from seed, epoch and index alone.

    Each worker of a loader has a random state of its own, so that what a slice is drawn with would depend on how many
    workers, and that is how many processors, there are.

    Args:
        dataset: draws from torch's global random state.
        seed: of the training.

    Attributes:
        epoch: set before its workers start.
    """

    def __init__(self, dataset: Dataset[dict[str, Tensor]], seed: int) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, 0

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        (drawn,) = np.random.SeedSequence([self.seed, self.epoch, index]).generate_state(1, np.uint64)
        torch.manual_seed(int(drawn))
        return self.dataset[index]


def drawn_by_index(loader: DataLoader[dict[str, Tensor]]) -> DataLoader[dict[str, Tensor]]:
    """A loader with workers over `DrawnByIndex`; one without, whose draws a checkpoint keeps, as it is."""
    if not loader.num_workers or loader.batch_size is None:
        return loader
    kept: dict[str, Any] = {
        name: getattr(loader, name)
        for name in ("batch_size", "sampler", "drop_last", "num_workers", "pin_memory", "collate_fn", "timeout")
    }
    return DataLoader(DrawnByIndex(loader.dataset, getattr(loader.sampler, "seed", 0)), **kept)
