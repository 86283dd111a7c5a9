"""Architectures of the papers, one file per family."""

from pipeline.networks.johnson import JohnsonGenerator
from pipeline.networks.unet import UNetSegmentor

__all__ = ["JohnsonGenerator", "UNetSegmentor"]
