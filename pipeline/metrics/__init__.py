"""Metrics: tensors in, numbers out, one value per sample as MONAI's metrics give.

A-Dice alone measures a set of images as a whole, by training on it. `catalogue` describes the metrics of an evaluation.
"""

from pipeline.metrics.a_dice import ADice, a_dice, random_lesion_masks
from pipeline.metrics.catalogue import A_DICE, METRICS
from pipeline.metrics.fidelity import psnr, ssim, ssim_map
from pipeline.metrics.healthiness import healthiness, healthiness_of_counts, healthiness_per_volume
from pipeline.metrics.identity import identity, ms_ssim_padding
from pipeline.metrics.metric import Metric
from pipeline.metrics.segmentation import dice, fragments, hd95, holes, pooled_dice, precision, recall

__all__ = [
    "A_DICE",
    "METRICS",
    "ADice",
    "Metric",
    "a_dice",
    "dice",
    "fragments",
    "hd95",
    "healthiness",
    "healthiness_of_counts",
    "healthiness_per_volume",
    "holes",
    "identity",
    "ms_ssim_padding",
    "pooled_dice",
    "precision",
    "psnr",
    "random_lesion_masks",
    "recall",
    "ssim",
    "ssim_map",
]
