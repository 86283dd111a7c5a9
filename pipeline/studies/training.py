"""A study's own networks: trained once, kept in its folder, and taken up again where they were stopped."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from pipeline.files import sha256, write_json
from pipeline.methods.base import Method
from pipeline.training import CheckpointLoader, CheckpointSaver, PlayerTrainer, ProgressBar
from pipeline.training.checkpoint import CHECKPOINT, WEIGHTS, load_tensors

RECORD = "trained.json"
BATCH_SIZE = 8
RATE = 1e-3
POWER = 0.8


def trained(
    folder: Path,
    build: Callable[[], Method],
    dataset: Callable[[], Dataset[dict[str, Tensor]]],
    iterations: int,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """The network of a method with one player, from `folder`; trained there first if it is not.

    Batch, Adam's rate and the poly schedule are those of GVS (Section V-B). The global random state is set.

    Args:
        folder: receives `model.pt` and, last, `trained.json`; before that, `checkpoint.pt` to go on from.
        build: makes the method, with its network's first weights.
        dataset: makes the training slices.
        iterations: about how many; whole epochs are trained.
        seed: of weights, order of slices, and what the method draws.
        device: where to train.

    Returns:
        The network on the device, ready for use.
    """
    set_determinism(seed=seed)
    method = build()
    (network,) = method.exports.values()
    if not (folder / RECORD).is_file():
        slices = dataset()
        # One process trains for itself; this sampler's order depends on seed and epoch alone, which makes it resumable.
        sampler: DistributedSampler[Any] = DistributedSampler(slices, num_replicas=1, rank=0, seed=seed)
        loader = DataLoader(slices, batch_size=BATCH_SIZE, sampler=sampler)
        epochs = math.ceil(iterations / len(loader))
        (player,) = method.players
        optimizer = Adam(network.parameters(), lr=RATE)
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
                CheckpointSaver(folder),
            ],
        ).run()
        write_json(folder / RECORD, {"weights_sha256": sha256(folder / WEIGHTS), "epochs": epochs, "seed": seed})
        (folder / CHECKPOINT).unlink()
    network.load_state_dict(load_tensors(folder / WEIGHTS))
    return network.to(device).eval()
