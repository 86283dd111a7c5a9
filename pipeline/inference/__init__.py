"""Scan in, pseudo-healthy scan, anomaly map or enhanced scan out, on the scan's own grid."""

from pipeline.inference.enhance import enhance
from pipeline.inference.evaluator import ScanDataset, SynthesisEvaluator, load_weights
from pipeline.inference.folder import write_folder_pages, write_run_report
from pipeline.inference.outputs import Products
from pipeline.inference.run import Outcome, Request, synthesize_scans
from pipeline.inference.steps import Steps
from pipeline.inference.translator import Translator, Twin

__all__ = [
    "Outcome",
    "Products",
    "Request",
    "ScanDataset",
    "Steps",
    "SynthesisEvaluator",
    "Translator",
    "Twin",
    "enhance",
    "load_weights",
    "synthesize_scans",
    "write_folder_pages",
    "write_run_report",
]
