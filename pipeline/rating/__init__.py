"""A blinded reader study: slices for raters, their scores read back, their agreement (GVS, Section V.D)."""

from pipeline.rating.agreement import ICC, Interval, icc, quadratic_kappa
from pipeline.rating.draw import draw_study
from pipeline.rating.results import report_study

__all__ = ["ICC", "Interval", "draw_study", "icc", "quadratic_kappa", "report_study"]
