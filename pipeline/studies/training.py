"""A study's own networks: trained once, kept in its folder, and taken up again where they were stopped."""

from collections.abc import Callable
from pathlib import Path

import torch
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.files import sha256, write_json
from pipeline.methods.base import Method
from pipeline.training.checkpoint import CHECKPOINT, WEIGHTS, load_tensors
from pipeline.training.single import train_alone

RECORD = "trained.json"


def trained(
    folder: Path,
    build: Callable[[], Method],
    dataset: Callable[[], Dataset[dict[str, Tensor]]],
    iterations: int,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """The network of a method with one player, from `folder`; trained there first if it is not.

    The global random state is set.

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
        epochs = train_alone(folder, method, dataset(), iterations, seed, device)
        write_json(folder / RECORD, {"weights_sha256": sha256(folder / WEIGHTS), "epochs": epochs, "seed": seed})
        (folder / CHECKPOINT).unlink()
    network.load_state_dict(load_tensors(folder / WEIGHTS))
    return network.to(device).eval()
