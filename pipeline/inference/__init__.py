"""Scans in, products on the scan's own grid out: predictors, the run over many scans, and what is written.

What is named here is imported when it is first asked for: torch and MONAI take seconds, and to verify a result takes
neither.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.inference.anomaly import AnomalyScorer, AnomalySegmenter
    from pipeline.inference.evaluator import PredictionEvaluator, SampleEvaluator, ScanDataset
    from pipeline.inference.fill_error import FillError
    from pipeline.inference.filler import Filler, HarmonicFiller
    from pipeline.inference.found_filler import FoundFiller
    from pipeline.inference.inputs import Inputs
    from pipeline.inference.load import Predictor, load_export, load_parts, load_predictor, load_weights
    from pipeline.inference.modality_translator import ModalityTranslator
    from pipeline.inference.preparation import Preparation
    from pipeline.inference.products import Product, Result
    from pipeline.inference.residual_filler import ResidualFiller
    from pipeline.inference.restorer import Restorer
    from pipeline.inference.run import Outcome, Request, predict_scans
    from pipeline.inference.sampler import Sampler, Samples
    from pipeline.inference.samples import Draw
    from pipeline.inference.scorer import Scorer
    from pipeline.inference.segmenter import Segmenter
    from pipeline.inference.translator import Translator

__all__ = [
    "AnomalyScorer",
    "AnomalySegmenter",
    "Draw",
    "FillError",
    "Filler",
    "FoundFiller",
    "HarmonicFiller",
    "Inputs",
    "ModalityTranslator",
    "Outcome",
    "PredictionEvaluator",
    "Predictor",
    "Preparation",
    "Product",
    "Request",
    "ResidualFiller",
    "Restorer",
    "Result",
    "SampleEvaluator",
    "Sampler",
    "Samples",
    "ScanDataset",
    "Scorer",
    "Segmenter",
    "Translator",
    "load_export",
    "load_parts",
    "load_predictor",
    "load_weights",
    "predict_scans",
]

# The module of this package that each is in.
MODULES = {
    "AnomalyScorer": "anomaly",
    "AnomalySegmenter": "anomaly",
    "Draw": "samples",
    "FillError": "fill_error",
    "Filler": "filler",
    "FoundFiller": "found_filler",
    "HarmonicFiller": "filler",
    "Inputs": "inputs",
    "ModalityTranslator": "modality_translator",
    "Outcome": "run",
    "PredictionEvaluator": "evaluator",
    "Predictor": "load",
    "Preparation": "preparation",
    "Product": "products",
    "Request": "run",
    "ResidualFiller": "residual_filler",
    "Restorer": "restorer",
    "Result": "products",
    "SampleEvaluator": "evaluator",
    "Sampler": "sampler",
    "Samples": "sampler",
    "ScanDataset": "evaluator",
    "Scorer": "scorer",
    "Segmenter": "segmenter",
    "Translator": "translator",
    "load_export": "load",
    "load_parts": "load",
    "load_predictor": "load",
    "load_weights": "load",
    "predict_scans": "run",
}


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported when it is first asked for."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
