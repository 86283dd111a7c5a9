"""What a restoration keeps of disease: the contrast of a drawn lesion, and small lesions that were planted."""

import math

import pandas as pd
import torch
from torch import Tensor

from pipeline.metrics.contrast import lesion_difference, paired_contrast_sums

LEAST_CONTRAST = (
    0.05  # of the window: below, a lesion hardly differs from its surroundings, and shares of it say nothing
)
KEPT = 0.5  # of a planted lesion's contrast: with less it counts as lost


def lesion_contrast_kept(
    restored: Tensor, truth: Tensor, mask: Tensor, foreground: Tensor, spacing_mm: tuple[float, float]
) -> float:
    """How much of a lesion's contrast is left: (mean of it − mean around it), restored over true.

    All slices of a scan are taken together; what is around a lesion is as `pipeline.metrics.contrast` has it.

    Args:
        restored: shape (N, 1, H, W), in [0, 1].
        truth: what it was before it was degraded, same shape.
        mask: lesion, same shape.
        foreground: head or body, same shape.
        spacing_mm: of pixels along H and W.

    Returns:
        1 if all is kept, 0 if the lesion is gone, below 0 if it is reversed; nan without a lesion, or if its true
        contrast is below `LEAST_CONTRAST`.
    """
    rows = pd.DataFrame(paired_contrast_sums(restored, truth, mask, foreground, spacing_mm))
    made, true = (lesion_difference(rows, side) for side in ("translated", "target"))
    return made / true if abs(true) >= LEAST_CONTRAST else math.nan


def planted_kept(restored: Tensor, without: Tensor, added: Tensor, numbers: Tensor) -> Tensor:
    """How much is left of each lesion that was planted before the image was degraded, with the same draws.

    What a restoration makes of the scan with the lesions, less what it makes of the same scan without them, is
    projected on what was added: Σ d a / Σ a² over the voxels of a lesion.

    Args:
        restored: of the scan with the lesions, any shape.
        without: of the scan without them, same shape.
        added: what was planted, same shape.
        numbers: of the lesion that a voxel belongs to, from 1, and 0 elsewhere, same shape.

    Returns:
        Of each lesion, 1 if it is there as it was planted, 0 if nothing is left, shape (lesions,).
    """
    change, values = (restored - without).double().flatten(), added.double().flatten()
    where = numbers.flatten().long()
    count = int(where.max()) + 1 if where.numel() else 1
    products, squares = (
        torch.zeros(count, dtype=torch.float64).index_add_(0, where, part) for part in (change * values, values**2)
    )
    present = squares[1:] > 0
    return (products[1:] / squares[1:])[present].float()
