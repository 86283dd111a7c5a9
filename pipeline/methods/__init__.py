"""One file per method, readable beside its paper."""

from pipeline.methods.ant_gan import ANTGAN
from pipeline.methods.base import Method, Player
from pipeline.methods.conditional_gan import ConditionalGAN
from pipeline.methods.cycle_gan import CycleGAN
from pipeline.methods.genseg import GenSeg
from pipeline.methods.gvs import GVS
from pipeline.methods.inpainting import Inpainting
from pipeline.methods.phs_gan import PairedPHSGAN, UnpairedPHSGAN
from pipeline.methods.pool import ImagePool
from pipeline.methods.regression import Regression
from pipeline.methods.segmentation import Segmentation
from pipeline.methods.va_gan import VAGAN

__all__ = [
    "ANTGAN",
    "GVS",
    "VAGAN",
    "ConditionalGAN",
    "CycleGAN",
    "GenSeg",
    "ImagePool",
    "Inpainting",
    "Method",
    "PairedPHSGAN",
    "Player",
    "Regression",
    "Segmentation",
    "UnpairedPHSGAN",
]
