"""How healthy, and how much the same person: a trained method and trivial controls, scored on a cohort."""

from pipeline.evaluation.cohort_evaluator import CohortEvaluator
from pipeline.evaluation.controls import CONTROLS
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.judge import Judge, load_judge

__all__ = ["CONTROLS", "CohortEvaluator", "Judge", "evaluate", "load_judge"]
