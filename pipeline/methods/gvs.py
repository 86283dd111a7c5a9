"""Generator Versus Segmentor (Zhang et al.): the segmentor is the discriminator.

x_p: pathological image, y_t: its lesion mask, y_h: all zero; G: generator, S: segmentor; x_s = G(x_p).

    Step A, S plays:   L_wce = −(1/N) Σ w [y_t log S(x_s) + (1 − y_t) log(1 − S(x_s))]     (Eqs. 1, 5, 6)
    Step B, G plays:   L_G = L_s2 + λ L_R                                                 (Eq. 4)
                       L_s2 = L_ce(S(x_s), y_h)                                           (Eq. 2)
                       L_R = L_mse(x_p, x_s)                                              (Eq. 3)
"""

import math
from typing import Literal

import torch
from torch import nn

from pipeline.losses import difference_weights, residual_mse, weighted_cross_entropy
from pipeline.methods.base import Batch, Player, Shared, Terms


class GVS:
    """Generator Versus Segmentor.

    The defaults are the paper's. Each option below departs from it for a reason:

    Args:
        generator: G, images (B, 1, H, W) in [0, 1] to the same.
        segmentor: S, images (B, 1, H, W) to lesion logits of the same shape.
        lambda_: λ of Eq. 4.
        difference_aware: weigh Step A by how little each pixel was changed (Eqs. 5, 6). False is the paper's basic GVS
            (Eq. 1).
        residual_region: `whole` slice as in Eq. 3, or `normal` tissue only: the lesion has to change, and a loss that
            holds it back leaves part of it.
        real_in_step_a: in Step A the segmentor also sees the unchanged scan, unweighted. A segmentor that only sees
            synthetic images forgets what lesions look like, and the two players then circle around each other.
    """

    def __init__(
        self,
        generator: nn.Module,
        segmentor: nn.Module,
        lambda_: float = 10.0,
        difference_aware: bool = True,
        residual_region: Literal["whole", "normal"] = "whole",
        real_in_step_a: bool = False,
    ) -> None:
        if not 0 < lambda_ < math.inf:
            raise ValueError(f"lambda must be a number above 0 (GVS, below Eq. 4), found {lambda_}")
        if residual_region not in ("whole", "normal"):
            raise ValueError(f"residual_region is 'whole' or 'normal', found {residual_region!r}")
        self.networks = {"generator": generator, "segmentor": segmentor}
        self.exports = {"healthy": generator, "segmentor": segmentor}
        self.lambda_ = lambda_
        self.difference_aware = difference_aware
        self.residual_region = residual_region
        self.real_in_step_a = real_in_step_a
        self.players = (
            Player("segmentor", ("segmentor",), self.step_a),
            Player("generator", ("generator",), self.step_b),
        )

    def forward(self, batch: Batch) -> Shared:
        """x_s = G(x_p). Step A leaves G as it is, so both steps use the same x_s."""
        return {"x_s": self.networks["generator"](batch["image"])}

    def step_a(self, batch: Batch, shared: Shared) -> Terms:
        """Fix G, update S: find the lesion in the synthetic image, less so where it was transformed well."""
        S = self.networks["segmentor"]
        x_p, y_t, x_s = batch["image"], batch["mask"], shared["x_s"].detach()
        w = difference_weights(x_p, x_s) if self.difference_aware else None
        terms = {"wce" if self.difference_aware else "s1": weighted_cross_entropy(S(x_s), y_t, w)}
        if self.real_in_step_a:
            terms["real"] = weighted_cross_entropy(S(x_p), y_t)
        return terms

    def step_b(self, batch: Batch, shared: Shared) -> Terms:
        """Fix S, update G: leave S no lesion to find, and change as little as possible."""
        S = self.networks["segmentor"]
        x_p, y_t, x_s = batch["image"], batch["mask"], shared["x_s"]
        y_h = torch.zeros_like(y_t)
        region = 1 - y_t if self.residual_region == "normal" else None
        return {
            "s2": weighted_cross_entropy(S(x_s), y_h),
            "residual": self.lambda_ * residual_mse(x_p, x_s, region),
        }
