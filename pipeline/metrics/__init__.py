"""Metrics: tensors in, numbers out, one value per sample as MONAI's metrics give.

Dice is MONAI's own, `monai.metrics.compute_dice`: shape (B, 1) for binary masks, `nan` where no lesion is
annotated.
"""

from pipeline.metrics.fidelity import psnr, ssim, ssim_map
from pipeline.metrics.healthiness import healthiness, healthiness_per_volume
from pipeline.metrics.identity import identity, ms_ssim_padding

__all__ = [
    "healthiness",
    "healthiness_per_volume",
    "identity",
    "ms_ssim_padding",
    "psnr",
    "ssim",
    "ssim_map",
]
