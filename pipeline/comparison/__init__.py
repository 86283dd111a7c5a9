"""Methods side by side: reports of the same cohort in one table, with tests of significance."""

from pipeline.comparison.compare import Comparison, Report, compare, read_report

__all__ = ["Comparison", "Report", "compare", "read_report"]
