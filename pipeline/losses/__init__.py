"""Losses of the papers: tensors in, a scalar out."""

from pipeline.losses.difference_aware import difference_weights, weighted_cross_entropy
from pipeline.losses.residual import residual_mse

__all__ = ["difference_weights", "residual_mse", "weighted_cross_entropy"]
