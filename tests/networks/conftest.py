"""How the tests read a network: as the papers print theirs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

Row = tuple[Any, ...]
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid)


@pytest.fixture
def table() -> Callable[..., list[Row]]:
    """A network's layer table for images of a size: (layer, kernel, stride, instance norm, activation, output).

    Rows are in the order of computation. Weights and images have no values: the papers' sizes cost nothing.
    """

    def rows(network: nn.Module, channels: int, height: int, width: int) -> list[Row]:
        found: list[Row] = []

        def add(layer: Any, _: Any, output: torch.Tensor) -> None:
            shape = tuple(output.shape[1:])
            if isinstance(layer, nn.InstanceNorm2d):
                found[-1] = (*found[-1][:3], True, *found[-1][4:])
            elif isinstance(layer, ACTIVATIONS):
                found[-1] = (*found[-1][:4], type(layer).__name__, shape)
            elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                found.append((type(layer).__name__, layer.kernel_size[0], layer.stride[0], False, None, shape))
            elif isinstance(layer, nn.Upsample):
                found.append((f"{layer.mode} upsampling", None, None, False, None, shape))
            elif isinstance(layer, nn.MaxPool2d):
                found.append(("maximum", layer.kernel_size, layer.stride, False, None, shape))

        network = network.to("meta")
        hooks = [layer.register_forward_hook(add) for layer in network.modules()]
        network(torch.empty(1, channels, height, width, device="meta"))
        for hook in hooks:
            hook.remove()
        return found

    return rows


@pytest.fixture
def count() -> Callable[[nn.Module], int]:
    """The number of a network's parameters."""
    return lambda network: sum(parameter.numel() for parameter in network.parameters())
