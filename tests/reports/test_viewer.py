"""Volumes inside a page."""

import base64
import gzip
from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest

from pipeline.inference.products import Result
from pipeline.reports.viewer import embedded_nifti
from pipeline.scans import Scan


def read(embedded: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(embedded)))


@pytest.mark.parametrize(("dtype", "slope", "intercept"), [(np.int16, 0.5, -100), (np.float64, 1, 0), (np.int64, 2, 8)])
def test_every_voxel_comes_back_in_its_place(
    make_result: Callable[..., Result], dtype: type, slope: float, intercept: float
) -> None:
    result = make_result("PSR", dtype, slope, intercept, tilt_degrees=5)
    scan, made = result.scan, result.main.voxels
    image = read(embedded_nifti(scan.stored, scan, (slope, intercept)))
    assert np.asarray(image.dataobj) == pytest.approx(scan.intensities())
    assert image.affine == pytest.approx(scan.affine)
    (anomaly,) = result.pictured("difference")
    difference = read(embedded_nifti(anomaly.voxels, scan, (slope, 0.0)))
    assert np.asarray(difference.dataobj) == pytest.approx(slope * (scan.stored - made))


def test_free_text_of_the_source_stays_out(scan: Scan) -> None:
    scan.header["descrip"] = b"JOHN DOE"
    scan.header["db_name"] = b"JOHN DOE"
    assert b"JOHN" not in gzip.decompress(base64.b64decode(embedded_nifti(scan.stored, scan, (1.0, 0.0))))
