"""A network that is trained by itself: one player, Adam, the poly schedule; stopped, it goes on from its last epoch."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from pipeline.methods.base import Method
from pipeline.training.checkpoint import CHECKPOINT, CheckpointLoader, CheckpointSaver
from pipeline.training.handlers import ProgressBar
from pipeline.training.trainer import PlayerTrainer

# Batch, Adam's rate and the poly schedule of GVS' segmentor (Section V-B).
BATCH_SIZE = 8
RATE = 1e-3
POWER = 0.8


def train_alone(
    folder: Path,
    method: Method,
    dataset: Dataset[dict[str, Tensor]],
    iterations: int,
    seed: int,
    device: torch.device,
    keep_every: int | None = None,
) -> int:
    """Train a method of one player, from the checkpoint in the folder if one was left there.

    The global random state is used as it is: who wants a repeatable training sets it before the method is built.

    Args:
        folder: receives the weights `model.pt`, and `checkpoint.pt`, which the caller removes once the training is on
            record.
        method: with its network's first weights.
        dataset: the training slices.
        iterations: about how many; whole epochs are trained.
        seed: of the order of slices.
        device: where to train.
        keep_every: as in `CheckpointSaver`.

    Returns:
        The number of epochs.
    """
    # One process trains for itself; this sampler's order depends on seed and epoch alone, which makes it resumable.
    sampler: DistributedSampler[Any] = DistributedSampler(dataset, num_replicas=1, rank=0, seed=seed)
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, sampler=sampler)
    epochs = math.ceil(iterations / len(loader))
    (player,) = method.players
    owned = [parameter for name in player.networks for parameter in method.networks[name].parameters()]
    optimizer = Adam(owned, lr=RATE)
    interrupted = (folder / CHECKPOINT).is_file()
    PlayerTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=loader,
        method=method,
        optimizers={player.name: optimizer},
        schedulers={player.name: PolynomialLR(optimizer, total_iters=epochs, power=POWER)},
        train_handlers=[
            *([CheckpointLoader(folder)] if interrupted else []),
            ProgressBar(),
            CheckpointSaver(folder, keep_every),
        ],
    ).run()
    return epochs
