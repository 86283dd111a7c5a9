"""The domain discriminator of adversarial adaptation, of one layer or several (Kamnitsas et al. 2017)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from pipeline.networks.blocks import LEAK, rectifier


class DomainDiscriminator(nn.Sequential):
    """Which domain an image is of, answered at many places, from activations that `merged` brought to one grid.

    With `hidden` N:

    | layer | kernel, stride | output |
    |---|---|---|
    | convolution, leaky ReLU | 1×1, 1 | N × h × w |
    | convolution, leaky ReLU | 3×3, 2 | N × h/2 × w/2 |
    | convolution, leaky ReLU | 3×3, 2 | N × h/4 × w/4 |
    | convolution | 1×1, 1 | domains × h/4 × w/4 |

    Args:
        channels: of the merged activations, summed over the layers.
        hidden: N; 100 in Kamnitsas et al., whose discriminator is three-dimensional.
        domains: how many are told apart.
    """

    def __init__(self, channels: int, hidden: int = 32, domains: int = 2) -> None:
        super().__init__(
            nn.Conv2d(channels, hidden, 1),
            rectifier(LEAK),
            nn.Conv2d(hidden, hidden, 3, stride=2, padding=1),
            rectifier(LEAK),
            nn.Conv2d(hidden, hidden, 3, stride=2, padding=1),
            rectifier(LEAK),
            nn.Conv2d(hidden, domains, 1),
        )


def merged(
    activations: Sequence[Float[Tensor, "batch _ _ _"]], size: tuple[int, int]
) -> Float[Tensor, "batch channel height width"]:
    """Activations of several depths, side by side on one grid: finer ones are averaged, coarser ones interpolated.

    Args:
        activations: shapes (B, C_i, H_i, W_i).
        size: of the grid.

    Returns:
        Shape (B, Σ C_i, *size).
    """
    brought = [
        adaptive_avg_pool2d(each, size)
        if each.shape[-2] >= size[0]
        else interpolate(each, size, mode="bilinear", align_corners=False)
        for each in activations
    ]
    return torch.cat(brought, dim=1)
