"""A scan with one lesion and what predictors make of it, so simple that pictures of it can be foretold."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.inference import HarmonicFiller, Inputs, ModalityTranslator, Scorer, Segmenter
from pipeline.inference.change import amounts
from pipeline.inference.products import Figure, Product, Result
from pipeline.inference.stored import stored_difference
from pipeline.networks import SourceTranslators
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import Window, WindowRule
from pipeline.scans import Scan

WINDOW = Window(0.0, 1000.0)
TISSUE, LESION = 400, 900
SPACING_MM = (2.0, 2.0, 5.0)
GRID = Grid(2.0, (32, 48))


@pytest.fixture
def lesion() -> np.ndarray:
    """In the person's right, in front, above the middle, shape (30, 36, 12) along right, anterior and superior."""
    where = np.zeros((30, 36, 12), dtype=bool)
    where[19:23, 22:28, 6:8] = True
    return where


@pytest.fixture
def translation() -> Callable[..., Result]:
    """A translator's result, of the scan, the image in stored units, and where it was edited."""

    def make(scan: Scan, made: np.ndarray, edited: np.ndarray, deviation: np.ndarray | None = None) -> Result:
        anomaly = stored_difference(scan.stored, made)
        lesion = anomaly != 0
        products = [
            Product("pseudohealthy", "image", made, "scan", "pseudo-healthy", "The scan without disease"),
            Product("anomaly", "difference", anomaly, "scan", "anomaly map", "Input minus pseudo-healthy"),
            Product("lesion", "mask", lesion.astype(np.uint8), "", "lesion mask", "Where the method removed disease"),
        ]
        figures = amounts(anomaly.astype(np.float32) * np.float32(scan.slope), edited, lesion, WINDOW, scan)
        if deviation is not None:
            products.append(Product("uncertainty", "map", deviation, "scan", "uncertainty", "Standard deviation"))
            mean = float(deviation[lesion].mean()) if lesion.any() else None
            where = "in what was taken for disease"
            figures += (Figure("UncertaintyLesionMean", "Uncertainty of the lesion", mean, "scan units", 3, where),)
        return Result(scan, tuple(products), edited, WINDOW, ["4 slices were left alone"], figures=figures)

    return make


@pytest.fixture
def make_result(lesion: np.ndarray, translation: Callable[..., Result]) -> Callable[..., Result]:
    """A cuboid head of `TISSUE`, its lesion of `LESION`, and an image whose lesion is tissue; edited in 6 slices.

    The arguments turn the file's axes without moving the head (`axes`, an orientation such as "LAS"), store it
    otherwise (`dtype`, `slope`, `intercept`), drop the header's codes (`codes`), give a map of the deviation, and
    change the stored voxels of scan and image before all else is made of them (`mend`).
    """

    def make(
        axes: str = "RAS",
        dtype: Any = np.int16,
        slope: float = 1.0,
        intercept: float = 0.0,
        codes: int = 1,
        tilt_degrees: float = 0.0,
        deviation: np.ndarray | None = None,
        mend: Callable[[np.ndarray, np.ndarray], None] | None = None,
    ) -> Result:
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
        if mend:
            mend(stored, made)
        header = nib.Nifti1Image(stored, affine, dtype=stored.dtype).header
        header.set_sform(affine, code=codes)
        header.set_qform(affine, code=codes)
        scan = Scan(stored, slope, intercept, header, Path("scan.nii.gz"))
        return translation(scan, made, turned(edited), deviation)

    return make


@pytest.fixture
def result(make_result: Callable[..., Result]) -> Result:
    return make_result()


@pytest.fixture
def scan(result: Result) -> Scan:
    return result.scan


class Bright(nn.Module):
    """Logits: above 0 where the image is brighter than 0.6, and for a second label than 0.2."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([20 * (image - 0.6), 20 * (image - 0.2)], dim=1)


class Brightness(nn.Module):
    """The mean of each image, in hundredths."""

    def forward(self, image: Tensor) -> Tensor:
        return 100 * image.mean(dim=(2, 3))


@pytest.fixture
def segmented(scan: Scan) -> Result:
    """Of a segmenter with two labels: two masks and two maps of probabilities, no image."""
    return Segmenter(Bright(), GRID, WindowRule(fixed=(0, 1000)), labels=("lesion", "head"))(Inputs(scan))


@pytest.fixture
def scored(scan: Scan) -> Result:
    """Of a scorer: a number."""
    return Scorer(Brightness(), GRID, WindowRule(fixed=(0, 1000)), target="brightness", units="%")(Inputs(scan))


@pytest.fixture
def filled(scan: Scan, lesion: np.ndarray) -> Result:
    """Of a filler: an image, a difference, and the mask that was given."""
    mask = Scan(lesion.astype(np.uint8), 1.0, 0.0, scan.header, Path("mask.nii.gz"))
    return HarmonicFiller(WindowRule(fixed=(0, 1000)))(Inputs(scan, mask=mask))


@pytest.fixture
def translated(scan: Scan) -> Result:
    """Of a modality translator: an image, which is no version of the scan that it could be compared with."""
    network = SourceTranslators(("MR",), filters=2, residual_blocks=1)
    return ModalityTranslator(network, GRID, WindowRule(fixed=(0, 1000)), target_modality="CT")(Inputs(scan))


@pytest.fixture
def sidecar(result: Result) -> dict[str, Any]:
    """What the sidecar of a translator's result says, as `Outputs` writes it."""
    return {
        "Scan": "scan",
        "Product": {"Name": "pseudohealthy", "Kind": "image", "Title": "pseudo-healthy image"},
        "Pictured": "input · SYNTHETIC pseudo-healthy · difference (orange: removed, blue: added)",
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
        "Figures": [asdict(figure) for figure in result.figures],
        "Warnings": [],
        "Notes": ["4 slices were left alone"],
        "Methods": "A pseudo-healthy version of the scan was synthesised [1].",
        "References": ["A paper. A venue 2022"],
        "Page": "scan_desc-pseudohealthy.html",
        "Outputs": {"scan_desc-pseudohealthy.nii.gz": "cd" * 32},
        "Request": {"Slab": {"thickness_mm": 60.0}, "Bundle": "gvs"},
    }
