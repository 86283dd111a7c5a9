"""Volumes for the niivue viewer inside a page."""

import base64
import gzip

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.scans import Scan


def embedded_nifti(stored: NDArray[np.generic], like: Scan, scaling: tuple[float, float]) -> str:
    """A volume as gzipped NIfTI in base64, every voxel kept, with a header of its own.

    The source's header may hold free text about a patient; only its geometry is taken over.

    Args:
        stored: shape (X, Y, Z); more than 32 bits a voxel become float32.
        like: the scan on whose grid they lie.
        scaling: slope and intercept from what is stored to what it means.
    """
    if stored.dtype.itemsize > 4:
        stored = stored.astype(np.float32)
    image = nib.Nifti1Image(stored, like.affine)
    image.header.set_xyzt_units("mm")
    # Set after construction: nibabel then writes the stored values as they are.
    image.header.set_slope_inter(*scaling)
    return base64.b64encode(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)).decode("ascii")
