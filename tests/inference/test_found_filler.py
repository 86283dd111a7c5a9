"""What a segmenter finds is filled by a filler: healthy tissue keeps its exact value, and a healthy scan all of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ScanError
from pipeline.inference import FoundFiller, HarmonicFiller, Inputs, Segmenter
from pipeline.inference.change import SMALLEST_ML
from pipeline.inference.fill_error import FillError
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan, read_nifti

HIGH = 1000.0
WINDOW = WindowRule(fixed=(0, HIGH))


class Bright(nn.Module):
    """Logits that are positive where the image is brighter than a level."""

    def __init__(self, level: float = 0.6) -> None:
        super().__init__()
        self.level = level

    def forward(self, image: Tensor) -> Tensor:
        return 20 * (image - self.level)


@pytest.fixture
def scan(head: np.ndarray, write_scan: Callable[..., Path]) -> Scan:
    """A head of voxels of 2 mm with a bright lesion."""
    return read_nifti(write_scan(head, affine=np.diag([2.0, 2.0, 2.0, 1.0])))


def found_filler(level: float = 0.6, grow_mm: float = 0.0, **options: Any) -> FoundFiller:
    segmenter = Segmenter(Bright(level), Grid(2.0, (32, 32)), WINDOW, **options)
    return FoundFiller(segmenter, HarmonicFiller(WINDOW), grow_mm)


def mask_of(scan: Scan, inside: np.ndarray) -> Scan:
    return replace(scan, stored=inside.astype(np.uint8), slope=1.0, intercept=0.0, origin=Path("mask.nii.gz"))


def test_what_is_found_is_what_the_filler_makes_of_that_mask(scan: Scan) -> None:
    result = found_filler()(Inputs(scan))
    found = result.first("mask").voxels > 0
    assert found.sum() > 20
    filled = HarmonicFiller(WINDOW)(Inputs(scan, mask=mask_of(scan, found)))
    np.testing.assert_array_equal(result.main.voxels, filled.main.voxels)
    assert [(product.name, product.kind) for product in result.products] == [
        ("pseudohealthy", "image"),
        ("anomaly", "difference"),
        ("lesion", "mask"),
        ("lesionprobability", "map"),
    ]


def test_all_other_voxels_keep_their_exact_values(scan: Scan) -> None:
    result = found_filler(grow_mm=2.0)(Inputs(scan))
    outside = result.first("mask").voxels == 0
    np.testing.assert_array_equal(result.main.voxels[outside], scan.stored[outside])
    assert result.facts["EditedVoxels"] == (~outside).sum()


def test_what_is_found_is_grown_by_the_rim_that_lesions_have(scan: Scan) -> None:
    exact, grown = (found_filler(grow_mm=mm)(Inputs(scan)).first("mask").voxels for mm in (0.0, 2.0))
    assert (exact <= grown).all()
    assert grown.sum() > exact.sum()


def test_a_scan_in_which_nothing_is_found_stays_bit_identical_and_that_is_said(scan: Scan) -> None:
    result = found_filler(level=2.0)(Inputs(scan))
    np.testing.assert_array_equal(result.main.voxels, scan.stored)
    assert result.main.voxels.dtype == scan.stored.dtype
    assert not result.first("difference").voxels.any()
    assert "no lesion was found, and the scan was left as it is" in result.notes


def test_the_uncertainty_is_that_of_the_filler_in_what_was_found(scan: Scan) -> None:
    predictor = found_filler()
    predictor.filler.error = FillError((1.0,), (1.0, 5.0), ((0.5, 1.0),), (2.0,), (1.0,))
    assert not predictor.uncertainty
    predictor.uncertainty = True
    result = predictor(Inputs(scan))
    (uncertainty,) = (product for product in result.products if product.name == "uncertainty")
    filled = predictor.filler(Inputs(scan, mask=mask_of(scan, result.first("mask").voxels > 0)))
    np.testing.assert_array_equal(uncertainty.voxels, filled.first("map").voxels)
    assert uncertainty.voxels.any()
    assert {"UncertaintyMean", "UncertaintyPercent"} <= {figure.name for figure in result.figures}
    unchanged = replace(scan, stored=np.minimum(scan.stored, 450))
    assert [product.name for product in predictor(Inputs(unchanged)).products][-1] == "lesionprobability"


def test_specks_are_no_lesions(scan: Scan) -> None:
    stored = np.where(scan.stored > 600, 400, scan.stored)
    stored[10, 12, 4] = 900
    assert scan.voxel_ml < SMALLEST_ML
    result = found_filler()(Inputs(replace(scan, stored=stored.astype(scan.stored.dtype))))
    assert not result.first("mask").voxels.any()


def test_a_mask_that_is_given_is_filled_and_nothing_else_is_looked_for(scan: Scan) -> None:
    given = np.zeros(scan.shape, bool)
    given[6:9, 8:12, 3:5] = True
    result = found_filler()(Inputs(scan, mask=mask_of(scan, given)))
    np.testing.assert_array_equal(result.region, given)
    assert result.first("map") is None


def test_a_mask_that_is_given_is_looked_at_as_by_fill(scan: Scan) -> None:
    given = np.zeros(scan.shape, bool)
    given[6:9, 8:12, 3:6] = True
    given[7, 10, 4] = False
    inputs = Inputs(scan, mask=mask_of(scan, given))
    result, filled = found_filler()(inputs), HarmonicFiller(WINDOW)(inputs)
    assert any("the mask encloses 1 voxels" in warning for warning in result.warnings)
    assert result.warnings == filled.warnings
    assert {"Pieces", "RimContrast"} <= {figure.name for figure in result.figures}


@pytest.mark.parametrize(("mm", "large"), [(2.0, False), (14.0, True)])
def test_what_is_found_and_too_large_for_a_fill_to_be_trusted_is_warned_of(
    head: np.ndarray, write_scan: Callable[..., Path], mm: float, large: bool
) -> None:
    scan = read_nifti(write_scan(head, affine=np.diag([mm, mm, mm, 1.0])))
    result = found_filler()(Inputs(scan))
    assert result.first("mask").voxels.any()
    assert any("the mask's largest piece has" in warning for warning in result.warnings) == large


def test_in_a_slab_lesions_are_looked_for_there_alone(scan: Scan) -> None:
    predictor = found_filler()
    predictor.slab = Slab(slices=2, thickness_mm=None)
    assert scan.axial(predictor(Inputs(scan)).first("mask").voxels).any(axis=(1, 2)).sum() == 2


def test_evaluation_measures_the_same_change_as_users_get(scan: Scan) -> None:
    predictor = found_filler(grow_mm=2.0)
    windowed = WINDOW.window(scan.intensities(), scan.origin).apply(scan.axial(scan.intensities()))
    residual = predictor.residual(windowed[:, None], scan.axial_spacing_mm)
    result = predictor(Inputs(scan))
    np.testing.assert_allclose(-HIGH * residual, scan.axial(result.first("difference").voxels), atol=1)


def test_a_flipped_scan_gets_the_flipped_result_when_flips_are_averaged(scan: Scan) -> None:
    class Onesided(nn.Module):
        """Takes what lies to the right for brighter than it is."""

        def forward(self, image: Tensor) -> Tensor:
            slope = torch.linspace(0.2, -0.2, image.shape[2])[:, None]
            return 20 * (image + slope - 0.6)

    segmenter = Segmenter(Onesided(), Grid(2.0, (32, 32)), WINDOW, flip_average=True)
    predictor = FoundFiller(segmenter, HarmonicFiller(WINDOW))
    flipped = predictor(Inputs(replace(scan, stored=scan.stored[::-1]))).first("mask").voxels
    plain = predictor(Inputs(scan)).first("mask").voxels
    assert plain.any()
    np.testing.assert_array_equal(flipped[::-1], plain)


def test_a_mask_on_another_grid_is_refused(scan: Scan) -> None:
    other = replace(mask_of(scan, scan.stored > 600), stored=np.ones((3, 3, 3), np.uint8))
    with pytest.raises(ScanError, match="mask"):
        found_filler()(Inputs(scan, mask=other))
