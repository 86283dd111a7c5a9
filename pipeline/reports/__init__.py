"""Tables, pictures and pages; no metric is computed here."""

from pipeline.reports.scan_page import ScanPage

__all__ = ["ScanPage"]
