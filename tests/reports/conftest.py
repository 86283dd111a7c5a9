"""A scan with one lesion and a twin without it, so simple that pictures of it can be foretold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pipeline.inference.translator import Twin
from pipeline.preprocessing.window import Window
from pipeline.scans import Scan

WINDOW = Window(0.0, 1000.0)
TISSUE, LESION = 400, 900
SPACING_MM = (2.0, 2.0, 5.0)


@pytest.fixture
def lesion() -> np.ndarray:
    """In the person's right, in front, above the middle, shape (30, 36, 12) along right, anterior and superior."""
    where = np.zeros((30, 36, 12), dtype=bool)
    where[19:23, 22:28, 6:8] = True
    return where


@pytest.fixture
def make_twin(lesion: np.ndarray) -> Callable[..., Twin]:
    """A cuboid head of `TISSUE`, its lesion of `LESION`, and a twin whose lesion is tissue; edited in 6 slices.

    The arguments turn the file's axes without moving the head (`axes`, an orientation such as "LAS"), store it
    otherwise (`dtype`, `slope`, `intercept`) and drop the header's codes (`codes`).
    """

    def make(
        axes: str = "RAS",
        dtype: Any = np.int16,
        slope: float = 1.0,
        intercept: float = 0.0,
        codes: int = 1,
        tilt_degrees: float = 0.0,
    ) -> Twin:
        image = np.zeros(lesion.shape)
        image[5:25, 6:30, 2:10] = TISSUE
        healthy, edited = image.copy(), np.zeros(lesion.shape, dtype=bool)
        image[lesion] = LESION
        edited[5:25, 6:30, 3:9] = True
        affine = np.diag([*SPACING_MM, 1.0])
        affine[:3, 3] = (-29, -35, -27)
        to_axes = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
        affine = affine @ nib.orientations.inv_ornt_aff(to_axes, image.shape)
        turn = np.radians(tilt_degrees)
        affine[:2] = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ affine[:2]

        def turned(voxels: np.ndarray) -> np.ndarray:
            return nib.apply_orientation(voxels, to_axes)

        stored, made = (((turned(voxels) - intercept) / slope).astype(dtype) for voxels in (image, healthy))
        header = nib.Nifti1Image(stored, affine, dtype=stored.dtype).header
        header.set_sform(affine, code=codes)
        header.set_qform(affine, code=codes)
        scan = Scan(stored, slope, intercept, header, Path("scan.nii.gz"))
        return Twin(scan, made, turned(edited), WINDOW, ["4 slices were left alone"])

    return make


@pytest.fixture
def twin(make_twin: Callable[..., Twin]) -> Twin:
    return make_twin()


@pytest.fixture
def sidecar() -> dict[str, Any]:
    """What the sidecar of a twin says, as `Outputs` writes it."""
    return {
        "Sources": ["scan.nii.gz"],
        "Description": "The scan with the network's pseudo-healthy residual added",
        "SyntheticData": True,
        "GeneratedBy": [{"Name": "phs-pipeline", "Version": "0.1.0"}],
        "Bundle": "gvs",
        "BundleVersion": "0.2.0",
        "WeightsSha256": "ab" * 32,
        "Citations": ["A paper. A venue 2022"],
        "Window": [0.0, 1000.0],
        "Steps": [],
        "Change": {
            "ChangedMl": 0.96,
            "RemovedMl": 0.95,
            "AddedMl": 0.01,
            "LesionMl": 0.9,
            "EditedMl": 57.6,
            "ChangedPercent": 1.667,
            "MeanAbsoluteChange": 0.00833,
        },
        "Warnings": [],
        "Uncertainty": None,
        "Notes": ["4 slices were left alone"],
        "Methods": "A pseudo-healthy version of the scan was synthesised [1].",
        "References": ["A paper. A venue 2022"],
        "Page": "scan_desc-pseudohealthy.html",
        "Outputs": {"scan_desc-pseudohealthy.nii.gz": "cd" * 32},
        "Request": {"Slab": {"thickness_mm": 60.0}, "Bundle": "gvs"},
    }
