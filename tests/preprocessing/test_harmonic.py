"""A harmonic fill continues the tissue around a hole: Laplace's equation, in millimetres."""

import numpy as np
import pytest

from pipeline.preprocessing.harmonic import harmonic_fill


def ramp(shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """A linear function of the position in millimetres, which is harmonic."""
    slopes = (3.0, -2.0, 1.5)
    axes = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(shape, spacing, strict=True)), indexing="ij")
    return sum(slope * axis for slope, axis in zip(slopes, axes, strict=False)).astype(np.float32) + 200


def hole_in(shape: tuple[int, ...]) -> np.ndarray:
    hole = np.zeros(shape, dtype=bool)
    hole[tuple(slice(n // 4, n - n // 4) for n in shape)] = True
    return hole


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((16, 12), (1.0, 1.0)), ((16, 12), (0.5, 4.0)), ((10, 12, 8), (1.0, 1.0, 1.0)), ((10, 12, 8), (6.0, 0.4, 1.0))],
)
def test_a_linear_ramp_is_filled_exactly_whatever_the_voxels_size(shape, spacing):
    volume, hole = ramp(shape, spacing), hole_in(shape)
    damaged = np.where(hole, np.float32(9999), volume)
    filled = harmonic_fill(damaged, hole, ~hole, spacing)
    np.testing.assert_allclose(filled, volume, atol=1e-3 * np.ptp(volume))


def test_what_lies_outside_the_hole_keeps_its_bits():
    volume = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
    hole = hole_in(volume.shape)
    filled = harmonic_fill(volume, hole, ~hole, (1.0, 1.0, 1.0))
    assert filled[~hole].tobytes() == volume[~hole].tobytes()
    assert (filled[hole] != volume[hole]).all()


def test_near_neighbours_weigh_more_by_the_inverse_square_of_their_distance():
    volume = np.zeros((3, 3), dtype=np.float32)
    volume[0, 1] = volume[2, 1] = 10
    hole = np.zeros((3, 3), dtype=bool)
    hole[1, 1] = True
    # Two neighbours of 10 at a distance of 1, two of 0 at a distance of 2: (2 · 10) / (2 + 2 / 4).
    assert harmonic_fill(volume, hole, ~hole, (1.0, 2.0))[1, 1] == pytest.approx(8)


def test_air_is_no_boundary_so_that_a_lesion_at_the_edge_does_not_turn_dark():
    volume = np.full((9, 9), 100, dtype=np.float32)
    volume[:3] = 0
    hole = np.zeros_like(volume, dtype=bool)
    hole[3:5, 3:6] = True
    filled = harmonic_fill(volume, hole, (volume > 0) & ~hole, (1.0, 1.0))
    np.testing.assert_allclose(filled[hole], 100)


def test_a_part_that_touches_no_tissue_takes_the_mean_of_all_tissue():
    volume = np.zeros((12, 12), dtype=np.float32)
    volume[:4] = 60
    volume[4, :6] = 120
    hole = np.zeros_like(volume, dtype=bool)
    hole[9:11, 9:11] = hole[1, 1] = True
    tissue = (volume > 0) & ~hole
    filled = harmonic_fill(volume, hole, tissue, (1.0, 1.0))
    np.testing.assert_allclose(filled[9:11, 9:11], volume[tissue].mean())
    assert filled[1, 1] == pytest.approx(60)


def test_values_stay_between_those_of_the_tissue():
    volume = np.random.default_rng(1).uniform(40, 90, size=(14, 14, 6)).astype(np.float32)
    hole = hole_in(volume.shape)
    filled = harmonic_fill(volume, hole, ~hole, (1.0, 1.0, 5.0))
    assert filled[hole].min() >= volume[~hole].min()
    assert filled[hole].max() <= volume[~hole].max()


@pytest.mark.parametrize("what", ["no hole", "no tissue"])
def test_without_a_hole_or_without_tissue_nothing_changes(what):
    volume = np.ones((4, 4), dtype=np.float32)
    hole = np.full((4, 4), what == "no tissue")
    filled = harmonic_fill(volume, hole, ~hole, (1.0, 1.0))
    assert filled is not volume
    np.testing.assert_array_equal(filled, volume)
