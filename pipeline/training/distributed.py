"""Several processes, one training: each plays on its share of the batch, and gradients are averaged.

Gradients are averaged here, after a player's backward pass, instead of by wrapping each network in
DistributedDataParallel: players freeze each other's networks in turn, which the wrapper does not allow.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import distributed, nn


def rank() -> int:
    """This process's number; 0 without distributed training."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together; 1 without distributed training."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes, in one exchange."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def share_weights(networks: Iterable[nn.Module]) -> None:
    """Give all processes the weights of the first."""
    if world_size() > 1:
        for network in networks:
            for tensor in network.state_dict().values():
                distributed.broadcast(tensor, src=0)


def of_first(value: Any) -> Any:
    """The first process's value, in all of them."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]
