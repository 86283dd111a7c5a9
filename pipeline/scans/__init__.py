"""Scans as they lie on disk."""

from pipeline.scans.nifti import as_nifti, from_image, is_nifti, read_grid, read_nifti, stem, write_nifti
from pipeline.scans.scan import DicomSeries, DicomSlice, Scan, check_labels, check_same_grid, on_grid_of

__all__ = [
    "DicomSeries",
    "DicomSlice",
    "Scan",
    "as_nifti",
    "check_labels",
    "check_same_grid",
    "from_image",
    "is_nifti",
    "on_grid_of",
    "read_grid",
    "read_nifti",
    "stem",
    "write_nifti",
]
