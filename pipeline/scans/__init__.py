"""Scans and cohorts as they lie on disk."""

from pipeline.scans.nifti import is_nifti, read_nifti, stem, write_nifti
from pipeline.scans.scan import Scan, check_same_grid

__all__ = ["Scan", "check_same_grid", "is_nifti", "read_nifti", "stem", "write_nifti"]
