"""Controls: what a method's numbers are worth is seen beside those of doing nothing, and of doing something trivial.

Each control takes the pathological image (N, 1, H, W) in [0, 1], its lesion mask and its foreground (bool, same
shape), and returns the image that it would hand in as pseudo-healthy.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def untouched(x: Tensor, mask: Tensor, foreground: Tensor) -> Tensor:
    """The pathological image itself: perfect identity, and the healthiness that a method must beat."""
    del mask, foreground
    return x


def mean_filled(x: Tensor, mask: Tensor, foreground: Tensor) -> Tensor:
    """The lesion filled with the mean of the slice's normal tissue (foreground outside the lesion).

    It hides most lesions from a segmentor and is anatomically empty: healthiness alone does not tell it from a good
    method.
    """
    normal = foreground & ~mask
    count = normal.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    mean = (x * normal).sum(dim=(2, 3), keepdim=True) / count
    return torch.where(mask, mean, x)


CONTROLS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "untouched input": untouched,
    "mean-filled lesion": mean_filled,
}
