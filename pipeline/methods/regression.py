"""Supervised regression of a cohort's target, such as age: one player, no game.

x: image of a slice, t: target of its scan; N: network.

    L = ‖N(x) − t‖² / σ²      mean over the batch; σ: deviation of the training targets, so that rates do not depend on
                              the target's units
"""

import math

from torch import nn
from torch.nn.functional import mse_loss

from pipeline.methods.base import Batch, Player, Shared, Terms


class Regression:
    """Mean squared error against the target.

    Args:
        network: images (B, C, H, W) in [0, 1] to targets (B, 1).
        deviation: σ, in the target's units.
    """

    def __init__(self, network: nn.Module, deviation: float = 1.0) -> None:
        if not 0 < deviation < math.inf:
            raise ValueError(f"the deviation of the targets must be a number above 0, found {deviation}")
        self.networks = {"network": network}
        self.exports = {"score": network}
        self.deviation = deviation
        self.players = (Player("network", ("network",), self.supervise),)

    def forward(self, batch: Batch) -> Shared:
        """Nothing is shared: there is one player."""
        del batch
        return {}

    def supervise(self, batch: Batch, shared: Shared) -> Terms:
        """Estimate the target of each slice's scan."""
        del shared
        error = mse_loss(self.networks["network"](batch["image"]), batch["target"])
        return {"mse": error / self.deviation**2}
