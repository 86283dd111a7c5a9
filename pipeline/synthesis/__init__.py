"""Scan in, pseudo-healthy scan, anomaly map or enhanced scan out, on the scan's own grid."""

from pipeline.synthesis.enhance import enhance
from pipeline.synthesis.evaluator import ScanDataset, SynthesisEvaluator, load_weights
from pipeline.synthesis.folder import write_folder_pages, write_run_report
from pipeline.synthesis.outputs import Products
from pipeline.synthesis.run import Outcome, Request, synthesize_scans
from pipeline.synthesis.steps import Steps
from pipeline.synthesis.synthesizer import Synthesizer, Twin

__all__ = [
    "Outcome",
    "Products",
    "Request",
    "ScanDataset",
    "Steps",
    "SynthesisEvaluator",
    "Synthesizer",
    "Twin",
    "enhance",
    "load_weights",
    "synthesize_scans",
    "write_folder_pages",
    "write_run_report",
]
