"""A filler changes the inside of a mask and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ScanError
from pipeline.inference import Filler, HarmonicFiller, Inputs, ResidualFiller
from pipeline.preprocessing.grid import Grid, VolumeGrid
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan, read_nifti

HIGH = 1000.0
DTYPES = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64]


class Constant(nn.Module):
    """Puts a value everywhere, and remembers what it was shown."""

    def __init__(self, value: float = 0.25) -> None:
        super().__init__()
        self.value = value
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(image)
        return torch.full_like(image[:, :1], self.value)


def harmonic() -> HarmonicFiller:
    return HarmonicFiller(WindowRule(fixed=(0, HIGH)))


def filler(network: nn.Module, spacing_mm: float = 1.0, **options) -> Filler:
    grid = options.pop("grid", Grid(spacing_mm, (32, 32)))
    return Filler(network, grid, WindowRule(fixed=(0, HIGH)), **options)


def residual() -> ResidualFiller:
    return ResidualFiller(Constant(), Grid(2.0, (32, 32)), WindowRule(fixed=(0, HIGH)))


def mask_of(scan: Scan, inside: np.ndarray) -> Scan:
    return replace(scan, stored=inside.astype(np.uint8), slope=1.0, intercept=0.0, origin=Path("mask.nii.gz"))


@pytest.fixture
def hole(scan: Scan) -> np.ndarray:
    hole = np.zeros(scan.shape, dtype=bool)
    hole[8:12, 10:14, 4:7] = True
    return hole


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [harmonic, lambda: filler(Constant()), lambda: filler(Constant(), 2.0), residual],
    ids=["harmonic", "network", "network on a coarser grid", "residual"])  # fmt: skip
def test_voxels_outside_the_mask_keep_their_bits(
    make: Callable, dtype: type, head: np.ndarray, hole: np.ndarray, write_scan: Callable[..., Path]
) -> None:
    slope = 1.0 if np.dtype(dtype).itemsize > 1 else 10.0
    voxels = (head / slope).astype(dtype)
    scan = read_nifti(write_scan(voxels, scaling=(slope, 0.0)))
    result = make()(Inputs(scan, mask=mask_of(scan, hole)))
    assert result.main.voxels.dtype == scan.stored.dtype
    assert result.main.voxels[~hole].tobytes() == scan.stored[~hole].tobytes()
    assert (result.main.voxels[hole] != scan.stored[hole]).any()


def test_products_are_the_filled_scan_the_difference_and_the_mask(scan: Scan, hole: np.ndarray) -> None:
    result = harmonic()(Inputs(scan, mask=mask_of(scan, hole)))
    filled, difference, mask = result.products
    assert [(each.name, each.kind) for each in result.products] == [
        ("filled", "image"),
        ("fill", "difference"),
        ("filled", "mask"),
    ]
    np.testing.assert_array_equal(scan.stored - difference.voxels, filled.voxels)
    np.testing.assert_array_equal(mask.voxels, hole)
    assert result.figures[0].value == pytest.approx(hole.sum() / 1000)
    assert result.facts["EditedVoxels"] == hole.sum()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 6.0)])
def test_a_harmonic_fill_is_exact_on_a_linear_ramp_whatever_the_voxels_size(
    spacing: tuple[float, ...], write_scan: Callable[..., Path]
) -> None:
    x, y, z = np.meshgrid(*(np.arange(n) * mm for n, mm in zip((16, 18, 12), spacing, strict=True)), indexing="ij")
    ramp = (300 + 8 * x - 3 * y + 5 * z).astype(np.float32)
    hole = np.zeros(ramp.shape, dtype=bool)
    hole[5:10, 6:12, 3:8] = True
    scan = read_nifti(write_scan(np.where(hole, np.float32(900), ramp), affine=np.diag([*spacing, 1.0])))
    filled = harmonic()(Inputs(scan, mask=mask_of(scan, hole))).main.voxels
    np.testing.assert_allclose(filled, ramp, atol=0.5)


def test_neighbouring_slices_count_as_boundary(write_scan: Callable[..., Path]) -> None:
    """In three dimensions, a hole that takes the whole of a slice is continued from those above and below."""
    voxels = np.broadcast_to(np.array([100, 100, 200, 300, 300], dtype=np.float32), (12, 12, 5)).copy()
    hole = np.zeros(voxels.shape, dtype=bool)
    hole[..., 2] = True
    voxels[hole] = 900
    scan = read_nifti(write_scan(voxels))
    filled = harmonic()(Inputs(scan, mask=mask_of(scan, hole))).main.voxels
    np.testing.assert_allclose(filled[hole], 200, atol=1)


def test_a_part_of_the_mask_that_touches_no_tissue_takes_the_mean_of_all_tissue(scan: Scan, hole: np.ndarray) -> None:
    outside = np.zeros(scan.shape, dtype=bool)
    outside[0, 0, 0] = True
    result = harmonic()(Inputs(scan, mask=mask_of(scan, hole | outside)))
    tissue = scan.stored[(scan.stored > 0) & ~hole]
    assert result.main.voxels[0, 0, 0] == pytest.approx(tissue.mean(), rel=0.05)


class TestRefusals:
    @pytest.mark.parametrize(
        "make", [harmonic, lambda: filler(Constant()), residual], ids=["harmonic", "network", "residual"]
    )
    def test_without_a_mask_one_is_asked_for(self, make: Callable, scan: Scan) -> None:
        with pytest.raises(ScanError, match="no lesion mask was given, expected one to fill; give --mask FILE"):
            make()(Inputs(scan))

    def test_an_empty_mask(self, scan: Scan) -> None:
        with pytest.raises(ScanError, match="the mask is empty, expected a lesion"):
            harmonic()(Inputs(scan, mask=mask_of(scan, np.zeros(scan.shape))))

    def test_a_mask_on_another_grid(self, scan: Scan, hole: np.ndarray, write_scan: Callable[..., Path]) -> None:
        elsewhere = read_nifti(write_scan(hole.astype(np.uint8), "mask.nii.gz", np.diag([2.0, 1.0, 1.0, 1.0])))
        with pytest.raises(ScanError, match="mask"):
            harmonic()(Inputs(scan, mask=elsewhere))

    def test_a_network_that_gives_no_numbers(self, scan: Scan, hole: np.ndarray) -> None:
        with pytest.raises(ScanError, match="NaN or infinite"):
            filler(Constant(float("nan")))(Inputs(scan, mask=mask_of(scan, hole)))


class TestNetwork:
    def test_its_values_arrive_in_the_scan_s_units(self, scan: Scan, hole: np.ndarray) -> None:
        filled = filler(Constant(0.25))(Inputs(scan, mask=mask_of(scan, hole))).main.voxels
        np.testing.assert_array_equal(filled[hole], 250)

    def test_it_sees_the_scan_with_the_hole_and_the_hole_and_never_the_lesion(
        self, scan: Scan, hole: np.ndarray
    ) -> None:
        network = Constant()
        filler(network)(Inputs(scan, mask=mask_of(scan, hole)))
        shown = torch.cat(network.seen)
        assert shown.shape[:2] == (3, 2), "the slices of the hole alone, sequence and hole"
        assert int(shown[:, 1].sum()) == hole.sum()
        assert not (shown[:, 0] * shown[:, 1]).any()

    def test_with_neighbours_it_sees_the_slices_around_the_hole_too(self, scan: Scan, hole: np.ndarray) -> None:
        network = Constant()
        filled = filler(network, neighbours=1)(Inputs(scan, mask=mask_of(scan, hole))).main.voxels
        assert torch.cat(network.seen).shape[:2] == (5, 6)
        np.testing.assert_array_equal(filled[hole], 250)

    def test_a_network_of_volumes_sees_the_whole_scan(self, scan: Scan, hole: np.ndarray) -> None:
        network = Constant()
        filled = filler(network, grid=VolumeGrid())(Inputs(scan, mask=mask_of(scan, hole))).main.voxels
        assert network.seen[0].shape == (1, 2, 10, 20, 24)
        np.testing.assert_array_equal(filled[hole], 250)
        np.testing.assert_array_equal(filled[~hole], scan.stored[~hole])

    def test_further_sequences_keep_the_hole_closed(self, scan: Scan, hole: np.ndarray) -> None:
        network = Constant()
        inputs = Inputs(scan, channels={"T1w": scan}, mask=mask_of(scan, hole))
        filler(network, channels=("FLAIR", "T1w"))(inputs)
        shown = torch.cat(network.seen)
        assert shown.shape[1] == 3
        assert not (shown[:, :2] * shown[:, 2:]).any()
