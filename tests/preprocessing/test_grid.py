"""A network's grid: there, and back onto exactly the scan's pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pipeline.preprocessing.grid import Grid


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
    assert there.shape == (2, 1, 64, 64)
    assert there.min() >= 0
    assert there.max() <= 1
    assert grid.back({grid.middle(shape, spacing_mm): there}, shape, spacing_mm).shape == (2, 1, *shape)


def there_and_back(grid: Grid, slices: Tensor, spacing_mm: tuple[float, float]) -> Tensor:
    shape = (slices.shape[-2], slices.shape[-1])
    corners = grid.corners(np.ones((1, *shape), dtype=bool), spacing_mm)
    return grid.back(grid.canvases(slices, spacing_mm, corners), shape, spacing_mm)


@given(shape=st.tuples(st.integers(1, 64), st.integers(1, 64)))
@settings(max_examples=30)
def test_same_spacing_is_carried_back_without_a_changed_bit(shape: tuple[int, int]) -> None:
    grid = Grid(1.0, (64, 64))
    slices = torch.rand(1, 1, *shape)
    assert torch.equal(there_and_back(grid, slices, (1.0, 1.0)), slices)


@given(shape=st.tuples(st.integers(1, 200), st.integers(65, 200)), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_canvases_cover_whatever_part_of_a_large_field_of_view_is_tissue(shape: tuple[int, int], seed: int) -> None:
    grid, random = Grid(1.0, (64, 64)), np.random.default_rng(seed)
    tissue = np.zeros(shape, dtype=bool)
    (top, bottom), (left, right) = (sorted(random.integers(0, side, 2)) for side in shape)
    tissue[top : bottom + 1, left : right + 1] = True
    covered = np.zeros(shape, dtype=bool)
    for row, column in grid.corners(tissue[None], (1.0, 1.0)):
        covered[max(row, 0) : row + 64, max(column, 0) : column + 64] = True
    assert covered[tissue].all()
    slices = torch.rand(1, 1, *shape)
    torch.testing.assert_close(there_and_back(grid, slices, (1.0, 1.0)), slices)


@pytest.mark.parametrize("spacing_mm", [(0.5, 0.5), (2.0, 2.0), (0.8, 1.3)])
def test_smooth_images_survive_there_and_back(spacing_mm: tuple[float, float]) -> None:
    grid, slices = Grid(1.0, (64, 64)), smooth(60, 50)
    back = there_and_back(grid, slices, spacing_mm)
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
    cropped = Grid(1.0, (64, 64)).images(slices, (1.0, 1.0))
    assert cropped.shape == (1, 1, 64, 64)
    assert cropped[..., 31:33, 31:33].all()


@pytest.mark.parametrize(("spacing_mm", "size"), [(0.0, (64, 64)), (-1.0, (64, 64)), (1.0, (60, 64)), (1.0, (0, 64))])
def test_grids_that_no_network_can_use_are_refused(spacing_mm: float, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive spacing and sides divisible by 16"):
        Grid(spacing_mm, size)
