"""Filling of holes in healthy tissue, whose truth is known: one player, no game.

x: the slice as it was, m: the hole, h: the slice with the hole filled harmonically; N: network, y = N(h, m, …), equal
to h outside the hole.

    L = w ‖m (y − x)‖₁ / σ + μ w ‖∇(y − x)‖₁ / σ      w: 1 / √area of each slice's hole, so that small holes count;
                                                      σ: deviation of the slice's tissue, so that all contrasts do;
                                                      the second term over pairs of neighbouring pixels that touch the
                                                      hole, its border included
"""

import torch
from torch import Tensor, nn

from pipeline.methods.base import Batch, Player, Shared, Terms


class Inpainting:
    """L1 in the hole, and of differences between neighbouring pixels in it and at its border.

    Args:
        network: what it is shown (B, C, H, W) to filled slices (B, 1, H, W).
        mu: weight of the second term.
    """

    def __init__(self, network: nn.Module, mu: float = 0.5) -> None:
        self.networks = {"network": network}
        self.exports = {"filler": network}
        self.mu = mu
        self.players = (Player("network", ("network",), self.supervise),)

    def forward(self, batch: Batch) -> Shared:
        """Nothing is shared: there is one player."""
        del batch
        return {}

    def supervise(self, batch: Batch, shared: Shared) -> Terms:
        """Put back what was there."""
        del shared
        truth, hole = batch["image"], batch["mask"]
        error = (self.networks["network"](batch["shown"]) - truth) / _deviation(truth)
        area = hole.sum(dim=(1, 2, 3))
        weight = 1 / area.clamp_min(1).sqrt()
        whole = (area * weight).sum().clamp_min(1)
        steps = torch.stack([_step(error, hole, axis) for axis in (2, 3)]).sum(dim=0)
        return {
            "l1": ((error * hole).abs().sum(dim=(1, 2, 3)) * weight).sum() / whole,
            "border": self.mu * (steps * weight).sum() / whole,
        }


def _deviation(image: Tensor) -> Tensor:
    """Standard deviation of what is brighter than air, which is 0, shape (B, 1, 1, 1); at least 0.01."""
    tissue = (image > 0).to(image.dtype)
    count = tissue.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
    mean = (image * tissue).sum(dim=(1, 2, 3), keepdim=True) / count
    return (((image - mean).square() * tissue).sum(dim=(1, 2, 3), keepdim=True) / count).sqrt().clamp_min(0.01)


def _step(error: Tensor, hole: Tensor, axis: int) -> Tensor:
    """Sum over the pairs along one axis of which one is in the hole, shape (B,)."""
    pixels = error.shape[axis] - 1
    first, second = error.narrow(axis, 0, pixels), error.narrow(axis, 1, pixels)
    touching = torch.maximum(hole.narrow(axis, 0, pixels), hole.narrow(axis, 1, pixels))
    return ((second - first).abs() * touching).sum(dim=(1, 2, 3))
