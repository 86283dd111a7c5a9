"""How good, beside trivial controls: a predictor, scored on a cohort with the metrics whose needs it meets."""

from pipeline.evaluation.bracketed import ADiceSettings
from pipeline.evaluation.controls import CONTROLS
from pipeline.evaluation.evaluate import Evaluation, Settings, evaluate, evaluate_share
from pipeline.evaluation.judge import Judge, load_judge

__all__ = ["CONTROLS", "ADiceSettings", "Evaluation", "Judge", "Settings", "evaluate", "evaluate_share", "load_judge"]
