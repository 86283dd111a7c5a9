"""The difference-aware loss of GVS (Eqs. 5 and 6): pixels that were transformed well count less as lesion."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

MIN_WEIGHT = 0.1


def difference_weights(
    x_p: Float[Tensor, "batch channel height width"], x_s: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch channel height width"]:
    """GVS Eq. 6: w = max(1 − m, 0.1), m = |x_p − G(x_p)| divided by its maximum over the slice.

    "Normalization" is not defined in the paper; this reading keeps m in [0, 1] and zero where nothing changed. A slice
    in which nothing changed has w = 1 everywhere. The weights are constants: no gradient flows through them.

    Args:
        x_p: pathological images, shape (B, C, H, W).
        x_s: synthetic images, same shape.

    Returns:
        Shape (B, C, H, W), values in [0.1, 1].
    """
    change = (x_p - x_s).detach().abs()
    largest = change.amax(dim=(1, 2, 3), keepdim=True)
    m = change / torch.where(largest > 0, largest, torch.ones_like(largest))
    return (1 - m).clamp_min(MIN_WEIGHT)


def weighted_cross_entropy(
    logits: Float[Tensor, "batch 1 height width"],
    target: Float[Tensor, "batch 1 height width"],
    weights: Float[Tensor, "batch 1 height width"] | None = None,
) -> Float[Tensor, ""]:
    """GVS Eq. 5 with the minus sign and the background term that the print lacks.

    −(1/N) Σ w [y log S + (1 − y) log(1 − S)], with N the number of pixels (not the sum of weights).

    Args:
        logits: of S, shape (B, 1, H, W).
        target: y in {0, 1}, same shape.
        weights: w, same shape; None weighs every pixel 1 (Eqs. 1 and 2).
    """
    return functional.binary_cross_entropy_with_logits(logits, target, weight=weights)
