"""Several processes, one training: each plays on its share of the batch, and gradients are averaged.

    phs-pipeline train BUNDLE --data COHORT -o RUN --gpus 4                                       one machine
    torchrun --nnodes 2 --nproc_per_node 4 … -m pipeline.cli train BUNDLE --data COHORT -o RUN    several

Gradients are averaged here, after a player's backward pass, instead of by wrapping each network in
DistributedDataParallel: players freeze each other's networks in turn, which the wrapper does not allow.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import distributed, nn

from pipeline.errors import UsageError


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Join the processes that torchrun or `run_processes` started, if this is one of several; leave them at the end.

    Each takes the GPU of its number on its machine.

    Args:
        device: `cpu` computes there, whatever GPUs there are.

    Raises:
        UsageError: if there are fewer GPUs than processes, or the environment does not say where the others are.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    with_gpus = torch.cuda.is_available() and device != "cpu"
    if with_gpus:
        if local_rank() >= torch.cuda.device_count():
            raise UsageError(
                f"found {torch.cuda.device_count()} GPUs, expected one for each process, of which this is number "
                f"{local_rank() + 1} on its machine; start fewer, or give --device cpu"
            )
        torch.cuda.set_device(local_rank())
    try:
        distributed.init_process_group("nccl" if with_gpus else "gloo")
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, expected torchrun's other variables too ({error}); start "
            "torchrun, or give --gpus, or unset it for a training of one process"
        ) from error
    yield
    # Not after an error: the others are not there to leave together.
    distributed.destroy_process_group()


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """This process's number; 0 without distributed training."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together; 1 without distributed training."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes, in one exchange.

    A process whose share of the batch has nothing for a parameter, such as no labelled image, counts as 0; a parameter
    without a gradient in any process stays without, and its optimiser leaves it alone.
    """
    if world_size() == 1:
        return
    averaged = list(parameters)
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in averaged]
    found = torch.tensor([each.grad is not None for each in averaged]).to(gradients[0])
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), found])
    distributed.all_reduce(flat)
    *means, found = (flat / world_size()).split([*(gradient.numel() for gradient in gradients), len(found)])
    for parameter, gradient, mean, anywhere in zip(averaged, gradients, means, found.tolist(), strict=True):
        if anywhere:
            parameter.grad = gradient.copy_(mean.view_as(gradient))


def share_weights(networks: Iterable[nn.Module]) -> None:
    """Give all processes the weights of the first."""
    if world_size() > 1:
        for network in networks:
            for tensor in network.state_dict().values():
                distributed.broadcast(tensor, src=0)


def on_gpu() -> bool:
    """Whether the processes exchange by way of their GPUs."""
    return world_size() > 1 and distributed.get_backend() == "nccl"


def lost_another(error: BaseException) -> bool:
    """Whether an error says that another process of the training is gone."""
    below: BaseException | None = error
    while below is not None:
        said = str(below)
        if isinstance(below, distributed.DistError) or "gloo" in said or "NCCL" in said:
            return True
        below = below.__cause__ or below.__context__
    return False


def share_statistics(networks: Iterable[nn.Module]) -> None:
    """Give all processes the first one's running statistics and counters, which each keeps of its share of the data."""
    if world_size() > 1:
        for network in networks:
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)


def gathered(value: Any) -> list[Any]:
    """The values of all processes by their number, in each of them; on the CPU."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def of_first(value: Any) -> Any:
    """The first process's value, in all of them."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]
