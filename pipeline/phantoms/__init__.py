"""Synthetic cohorts whose healthy truth is known."""

from pipeline.phantoms.brain import Phantom, brain_phantom
from pipeline.phantoms.cluttered_cohort import write_cluttered_cohort
from pipeline.phantoms.cohort import write_phantom_cohort
from pipeline.phantoms.cross_modal import write_cross_modal_cohort
from pipeline.phantoms.planted_cohort import write_planted_cohort

__all__ = [
    "Phantom",
    "brain_phantom",
    "write_cluttered_cohort",
    "write_cross_modal_cohort",
    "write_phantom_cohort",
    "write_planted_cohort",
]
