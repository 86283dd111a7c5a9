"""Architectures of the papers, one file per family.

What `ckpt_export` compiles has its types twice: TorchScript knows no shapes, and reads a `# type:` comment instead of
the annotations where there is one, after the docstring, where mypy passes over it.
"""

from pipeline.networks.anomaly import (
    AnomalyScore,
    JointDiscriminator,
    LatentEncoder,
    Reconstruction,
    SearchedReconstruction,
)
from pipeline.networks.class_discriminator import ClassDiscriminator
from pipeline.networks.codes import CodedGenerator, CodeReader
from pipeline.networks.cycle_gan import PatchGANDiscriminator, PlainCycle
from pipeline.networks.dcgan import (
    DCGANDiscriminator,
    DCGANGenerator,
    MinibatchDiscrimination,
    MLPDiscriminator,
    MLPGenerator,
)
from pipeline.networks.domain import DomainDiscriminator
from pipeline.networks.duiit import SourceDiscriminators, SourceTranslators
from pipeline.networks.fill import FillNetwork
from pipeline.networks.genseg import (
    AbsenceToPresence,
    GenSegDecoder,
    GenSegDiscriminator,
    GenSegDiscriminators,
    GenSegEncoder,
    GenSegResidualDecoder,
    GenSegResidualDecoders,
    GenSegSegmentor,
    PresenceToAbsence,
)
from pipeline.networks.johnson import JohnsonGenerator
from pipeline.networks.laplacian import LaplacianDiscriminator, LaplacianGenerator
from pipeline.networks.phs_gan import FactorisedCycle, PHSDiscriminator, PHSGenerator
from pipeline.networks.pix2pix import Pix2PixUNet
from pipeline.networks.progressive import ProgressiveDiscriminator, ProgressiveGenerator
from pipeline.networks.residual_unet import ResidualUNet
from pipeline.networks.restoration import FeatureDecoder, FeatureEncoder, RestorationUNet
from pipeline.networks.score_resnet import ScoreResNet
from pipeline.networks.segmentation_critic import SegmentationCritic
from pipeline.networks.unet import UNetSegmentor
from pipeline.networks.va_gan import MapCritic, MapGenerator

__all__ = [
    "AbsenceToPresence",
    "AnomalyScore",
    "ClassDiscriminator",
    "CodeReader",
    "CodedGenerator",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DomainDiscriminator",
    "FactorisedCycle",
    "FeatureDecoder",
    "FeatureEncoder",
    "FillNetwork",
    "GenSegDecoder",
    "GenSegDiscriminator",
    "GenSegDiscriminators",
    "GenSegEncoder",
    "GenSegResidualDecoder",
    "GenSegResidualDecoders",
    "GenSegSegmentor",
    "JohnsonGenerator",
    "JointDiscriminator",
    "LaplacianDiscriminator",
    "LaplacianGenerator",
    "LatentEncoder",
    "MLPDiscriminator",
    "MLPGenerator",
    "MapCritic",
    "MapGenerator",
    "MinibatchDiscrimination",
    "PHSDiscriminator",
    "PHSGenerator",
    "PatchGANDiscriminator",
    "Pix2PixUNet",
    "PlainCycle",
    "PresenceToAbsence",
    "ProgressiveDiscriminator",
    "ProgressiveGenerator",
    "Reconstruction",
    "ResidualUNet",
    "RestorationUNet",
    "ScoreResNet",
    "SearchedReconstruction",
    "SegmentationCritic",
    "SourceDiscriminators",
    "SourceTranslators",
    "UNetSegmentor",
]
