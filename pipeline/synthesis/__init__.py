"""Scan in, pseudo-healthy scan, anomaly map or enhanced scan out, on the scan's own grid."""

from pipeline.synthesis.enhance import enhance
from pipeline.synthesis.evaluator import ScanDataset, SynthesisEvaluator, load_weights
from pipeline.synthesis.run import Outcome, synthesize_scans
from pipeline.synthesis.synthesizer import Synthesizer, Twin

__all__ = [
    "Outcome",
    "ScanDataset",
    "SynthesisEvaluator",
    "Synthesizer",
    "Twin",
    "enhance",
    "load_weights",
    "synthesize_scans",
]
