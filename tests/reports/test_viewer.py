"""Volumes inside a page."""

import base64
import gzip
from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest

from pipeline.inference.translator import Twin
from pipeline.reports.viewer import embedded_nifti


def read(embedded: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(embedded)))


@pytest.mark.parametrize(("dtype", "slope", "intercept"), [(np.int16, 0.5, -100), (np.float64, 1, 0), (np.int64, 2, 8)])
def test_every_voxel_comes_back_in_its_place(
    make_twin: Callable[..., Twin], dtype: type, slope: float, intercept: float
) -> None:
    twin = make_twin("PSR", dtype, slope, intercept, tilt_degrees=5)
    image = read(embedded_nifti(twin.scan.stored, twin.scan))
    assert np.asarray(image.dataobj) == pytest.approx(twin.scan.intensities())
    assert image.affine == pytest.approx(twin.scan.affine)
    difference = read(embedded_nifti(twin.stored_anomaly, twin.scan, difference=True))
    assert np.asarray(difference.dataobj) == pytest.approx(twin.anomaly)


def test_free_text_of_the_source_stays_out(twin: Twin) -> None:
    twin.scan.header["descrip"] = b"JOHN DOE"
    twin.scan.header["db_name"] = b"JOHN DOE"
    assert b"JOHN" not in gzip.decompress(base64.b64decode(embedded_nifti(twin.stored, twin.scan)))
