"""Scans and cohorts as they lie on disk."""

from pipeline.scans.nifti import is_nifti, read_nifti, stem, write_nifti
from pipeline.scans.scan import Scan, same_grid

__all__ = ["Scan", "is_nifti", "read_nifti", "same_grid", "stem", "write_nifti"]
