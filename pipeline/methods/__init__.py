"""One file per method, readable beside its paper."""

from pipeline.methods.adversarial_segmentation import AdversarialSegmentation
from pipeline.methods.anogan import AnoGAN, BiGAN
from pipeline.methods.ant_gan import ANTGAN
from pipeline.methods.autoencoder import Autoencoder
from pipeline.methods.base import Method, Player
from pipeline.methods.conditional_gan import ConditionalGAN
from pipeline.methods.cycle_gan import CycleGAN
from pipeline.methods.dann import DANN
from pipeline.methods.domain_adaptation import DomainAdaptation
from pipeline.methods.duiit import DUIIT, PredictionLoss
from pipeline.methods.gan import GAN
from pipeline.methods.genseg import Autoencoding, GenSeg
from pipeline.methods.genseg_pathologies import GenSegPathologies
from pipeline.methods.gvs import GVS
from pipeline.methods.info_gan import InfoGAN
from pipeline.methods.inpainting import Inpainting
from pipeline.methods.laplacian_gan import LaplacianGAN
from pipeline.methods.multi_task import MultiTask
from pipeline.methods.paired_translation import PairedTranslation
from pipeline.methods.phs_gan import PairedPHSGAN, UnpairedPHSGAN
from pipeline.methods.pool import ImagePool, ImagePools
from pipeline.methods.progressive_gan import ProgressiveGAN
from pipeline.methods.regression import Regression
from pipeline.methods.restoration import Restoration
from pipeline.methods.segmentation import Segmentation
from pipeline.methods.semi_supervised import SemiSupervisedGAN
from pipeline.methods.va_gan import VAGAN

__all__ = [
    "ANTGAN",
    "DANN",
    "DUIIT",
    "GAN",
    "GVS",
    "VAGAN",
    "AdversarialSegmentation",
    "AnoGAN",
    "Autoencoder",
    "Autoencoding",
    "BiGAN",
    "ConditionalGAN",
    "CycleGAN",
    "DomainAdaptation",
    "GenSeg",
    "GenSegPathologies",
    "ImagePool",
    "ImagePools",
    "InfoGAN",
    "Inpainting",
    "LaplacianGAN",
    "Method",
    "MultiTask",
    "PairedPHSGAN",
    "PairedTranslation",
    "Player",
    "PredictionLoss",
    "ProgressiveGAN",
    "Regression",
    "Restoration",
    "Segmentation",
    "SemiSupervisedGAN",
    "UnpairedPHSGAN",
]
