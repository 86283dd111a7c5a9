"""The papers' experiments, each one function: train several times, measure, and put the results into one table."""

from pipeline.studies.enhancement import enhancement
from pipeline.studies.saliency import saliency
from pipeline.studies.sweep import sweep

__all__ = ["enhancement", "saliency", "sweep"]
