"""A scan from a format that places voxels in LPS+, as DICOM and ITK do; NIfTI's space is RAS+."""

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.scans.scan import DicomSeries, Scan, check_affine

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def scan_from_lps(
    stored: NDArray[np.generic],
    lps: NDArray[np.float64],
    origin: Path,
    slope: float = 1.0,
    intercept: float = 0.0,
    dicom: DicomSeries | None = None,
) -> Scan:
    """Give voxels a fresh NIfTI header: qform and sform codes 1 (scanner), millimetres.

    Args:
        stored: voxels, shape (X, Y, Z).
        lps: voxel indices to millimetres in LPS+, shape (4, 4).
        origin: as in `Scan`.
        slope: as in `Scan`.
        intercept: as in `Scan`.
        dicom: as in `Scan`.

    Raises:
        ScanError: if the volume is constant or `Scan` refuses it.
    """
    affine = RAS_FROM_LPS @ lps
    check_affine(affine, origin)
    header = nib.Nifti1Header()
    header.set_data_shape(stored.shape)
    header.set_data_dtype(stored.dtype)
    header.set_xyzt_units("mm")
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    scan = Scan(stored, slope, intercept, header, origin, dicom)
    if stored.min() == stored.max():
        raise ScanError(
            f"{origin}: found a constant volume (every voxel is {stored.flat[0]}), expected an image; check the export "
            "that made it"
        )
    return scan
