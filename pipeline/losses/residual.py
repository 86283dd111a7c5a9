"""The residual loss of GVS (Eq. 3): a synthetic image should look like its input."""

from jaxtyping import Float
from torch import Tensor


def residual_mse(
    x_p: Float[Tensor, "batch 1 height width"],
    x_s: Float[Tensor, "batch 1 height width"],
    region: Float[Tensor, "batch 1 height width"] | None = None,
) -> Float[Tensor, ""]:
    """GVS Eq. 3: mean squared difference between input and output.

    Args:
        x_p: pathological images, shape (B, 1, H, W).
        x_s: synthetic images, same shape.
        region: 1 where the loss counts, same shape; None counts every pixel. The mean is over the counted pixels
            of each slice, then over the slices, so that parts of a batch add up to the whole.
    """
    squared = (x_p - x_s).square()
    if region is None:
        return squared.mean()
    pixels = (1, 2, 3)
    return ((squared * region).sum(pixels) / region.sum(pixels).clamp_min(1)).mean()
