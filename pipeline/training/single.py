"""A training without a bundle: Adam for each player, one schedule; stopped, it goes on from its last epoch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, PolynomialLR
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from pipeline.methods.base import Method
from pipeline.training.checkpoint import CHECKPOINT, CheckpointLoader, CheckpointSaver
from pipeline.training.handlers import ProgressBar
from pipeline.training.trainer import PlayerTrainer

# Batch, Adam's rate and the poly schedule of GVS' segmentor (Section V-B).
BATCH_SIZE = 8
RATE = 1e-3
POWER = 0.8


@dataclass(frozen=True)
class Schedule:
    """How a method is trained without a bundle.

    Args:
        batch_size: slices in a step.
        rate: of Adam.
        decay: of the rate: by the poly schedule, or as CycleGAN's, constant for half of the epochs and then linear.
        average_decay: of the moving average of the weights that is exported, as in `PlayerTrainer`; None has none.
        betas: of Adam; (0.5, 0.999) is usual where networks play against each other.
        rates: of Adam for players by name, where one has another rate.
    """

    batch_size: int = BATCH_SIZE
    rate: float = RATE
    decay: Literal["poly", "late linear"] = "poly"
    average_decay: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    rates: Mapping[str, float] = field(default_factory=dict)

    def of(self, optimizer: Adam, epochs: int) -> LRScheduler:
        """The learning rate's schedule over so many epochs."""
        if self.decay == "poly":
            return PolynomialLR(optimizer, total_iters=epochs, power=POWER)
        return LambdaLR(optimizer, lambda epoch: min(1.0, 2.0 - 2.0 * epoch / epochs))


SEGMENTOR = Schedule()


def train_alone(
    folder: Path,
    method: Method,
    dataset: Dataset[dict[str, Tensor]],
    iterations: int,
    seed: int,
    device: torch.device,
    keep_every: int | None = None,
    schedule: Schedule = SEGMENTOR,
) -> int:
    """Train a method, from the checkpoint in the folder if one was left there.

    The global random state is used as it is: who wants a repeatable training sets it before the method is built.

    Args:
        folder: receives the weights of its exports, those of the main one as `model.pt`, and `checkpoint.pt`, which the
            caller removes once the training is on record.
        method: with its networks' first weights.
        dataset: the training slices.
        iterations: about how many; whole epochs are trained.
        seed: of the order of slices.
        device: where to train.
        keep_every: as in `CheckpointSaver`.
        schedule: batch, learning rate and its decay.

    Returns:
        The number of epochs.
    """
    # One process trains for itself; this sampler's order depends on seed and epoch alone, which makes it resumable.
    sampler: DistributedSampler[Any] = DistributedSampler(dataset, num_replicas=1, rank=0, seed=seed)
    loader = DataLoader(dataset, batch_size=schedule.batch_size, sampler=sampler)
    epochs = math.ceil(iterations / len(loader))
    optimizers = {
        player.name: Adam(
            [parameter for name in player.networks for parameter in method.networks[name].parameters()],
            lr=schedule.rates.get(player.name, schedule.rate),
            betas=schedule.betas,
        )
        for player in method.players
    }
    interrupted = (folder / CHECKPOINT).is_file()
    PlayerTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=loader,
        method=method,
        optimizers=optimizers,
        schedulers={name: schedule.of(optimizer, epochs) for name, optimizer in optimizers.items()},
        average_decay=schedule.average_decay,
        train_handlers=[
            *([CheckpointLoader(folder)] if interrupted else []),
            ProgressBar(),
            CheckpointSaver(folder, keep_every),
        ],
    ).run()
    return epochs
