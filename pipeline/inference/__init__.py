"""Scans in, products on the scan's own grid out: predictors, the run over many scans, and what is written."""

from pipeline.inference.anomaly import AnomalyScorer, AnomalySegmenter
from pipeline.inference.enhance import enhance
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
    "enhance",
    "load_export",
    "load_parts",
    "load_predictor",
    "load_weights",
    "predict_scans",
]
