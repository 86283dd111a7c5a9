"""A network's grid: there, and back onto exactly the scan's pixels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pipeline.preprocessing.grid import Grid, pad_or_crop


def smooth(height: int, width: int, seed: int = 0) -> Tensor:
    coarse = torch.rand((1, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True).clamp(0, 1)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    spacing_mm=st.tuples(st.floats(0.3, 4), st.floats(0.3, 4)),
)
def test_there_and_back_ends_on_the_scans_pixels(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> None:
    grid = Grid(1.0, (64, 64))
    there = grid.images(torch.rand(2, 1, *shape), spacing_mm)
    height, width = there.shape[-2:]
    assert (height, width) == grid.canvas(grid.resampled(shape, spacing_mm))
    assert height % 16 == width % 16 == 0
    assert height >= 64
    assert width >= 64
    assert there.min() >= 0
    assert there.max() <= 1
    assert grid.residuals_back(there, shape, spacing_mm).shape == (2, 1, *shape)


@given(shape=st.tuples(st.integers(1, 100), st.integers(1, 100)))
@settings(max_examples=30)
def test_same_spacing_is_carried_back_without_a_changed_bit(shape: tuple[int, int]) -> None:
    grid = Grid(1.0, (64, 64))
    slices = torch.rand(1, 1, *shape)
    assert torch.equal(grid.residuals_back(grid.images(slices, (1.0, 1.0)), shape, (1.0, 1.0)), slices)


@pytest.mark.parametrize("spacing_mm", [(0.5, 0.5), (2.0, 2.0), (0.8, 1.3)])
def test_smooth_images_survive_there_and_back(spacing_mm: tuple[float, float]) -> None:
    grid, slices = Grid(1.0, (64, 64)), smooth(60, 50)
    back = grid.residuals_back(grid.images(slices, spacing_mm), (60, 50), spacing_mm)
    assert (back - slices).abs().max() < 0.05


def test_an_object_stays_where_it_lies_in_millimetres() -> None:
    # A square from 10 to 20 mm along both axes of a field of view of 32 mm, seen in pixels of half the size.
    slices = torch.zeros(1, 1, 64, 64)
    slices[..., 20:40, 20:40] = 1
    there = Grid(1.0, (32, 32)).images(slices, (0.5, 0.5))
    expected = torch.zeros(1, 1, 32, 32)
    expected[..., 10:20, 10:20] = 1
    assert ((there > 0.5) == (expected > 0.5)).all()


def test_fine_stripes_are_averaged_not_aliased() -> None:
    slices = torch.zeros(1, 1, 48, 48)
    slices[..., ::2, :] = 1
    there = Grid(3.0, (16, 16)).images(slices, (1.0, 1.0))[..., 1:-1, :]
    assert (there - 0.5).abs().max() < 0.1  # picking single pixels gives stripes of 0 and 1 again


def test_masks_stay_binary_and_keep_their_area() -> None:
    rows, columns = torch.meshgrid(torch.arange(80.0), torch.arange(80.0), indexing="ij")
    disc = ((rows - 40) ** 2 + (columns - 35) ** 2 < 20**2).float()[None, None]
    there = Grid(1.0, (64, 64)).masks(disc, (0.7, 0.7))
    assert set(there.unique().tolist()) == {0.0, 1.0}
    assert float(there.sum()) == pytest.approx(float(disc.sum()) * 0.49, rel=0.02)


def test_training_slices_are_cropped_around_their_centre() -> None:
    slices = torch.zeros(1, 1, 100, 100)
    slices[..., 49:51, 49:51] = 1
    cropped = Grid(1.0, (64, 64)).images(slices, (1.0, 1.0), fit=True)
    assert cropped.shape == (1, 1, 64, 64)
    assert cropped[..., 31:33, 31:33].all()


@given(pixels=st.integers(1, 40), size=st.integers(1, 40))
def test_padding_is_undone_by_cropping(pixels: int, size: int) -> None:
    slices = torch.rand(1, 1, pixels, 3)
    padded = pad_or_crop(slices, (max(pixels, size), 8))
    assert torch.equal(pad_or_crop(padded, (pixels, 3)), slices)
    assert padded.sum() == pytest.approx(float(slices.sum()), rel=1e-5)


@pytest.mark.parametrize(("spacing_mm", "size"), [(0.0, (64, 64)), (-1.0, (64, 64)), (1.0, (60, 64)), (1.0, (0, 64))])
def test_grids_that_no_network_can_use_are_refused(spacing_mm: float, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive spacing and sides divisible by 16"):
        Grid(spacing_mm, size)
