"""The papers' experiments, each one function: train several times, measure, and put the results into one table."""

from pipeline.studies.anomaly import anomaly
from pipeline.studies.conditional import Lengths, conditional
from pipeline.studies.convergence import convergence
from pipeline.studies.counterfeits import counterfeits
from pipeline.studies.cross_modal import cross_modal
from pipeline.studies.curves import curves
from pipeline.studies.domain_adaptation import domain_adaptation
from pipeline.studies.enhancement import enhancement
from pipeline.studies.few_labels import few_labels
from pipeline.studies.hallucination import hallucination
from pipeline.studies.healthiness import healthiness
from pipeline.studies.misregistration import misregistration
from pipeline.studies.objectives import objectives
from pipeline.studies.paired import paired
from pipeline.studies.quality import quality
from pipeline.studies.saliency import saliency
from pipeline.studies.samples import samples
from pipeline.studies.segmentation import segmentation
from pipeline.studies.semi_supervised import semi_supervised
from pipeline.studies.sweep import sweep
from pipeline.studies.volumes import volumes

__all__ = [
    "Lengths",
    "anomaly",
    "conditional",
    "convergence",
    "counterfeits",
    "cross_modal",
    "curves",
    "domain_adaptation",
    "enhancement",
    "few_labels",
    "hallucination",
    "healthiness",
    "misregistration",
    "objectives",
    "paired",
    "quality",
    "saliency",
    "samples",
    "segmentation",
    "semi_supervised",
    "sweep",
    "volumes",
]
