"""Shapes of real lesions are put where there is tissue, and stay what they are."""

import numpy as np
import pytest

from pipeline.preprocessing.holes import lesions, place_shape

STILL = {"scales": (1.0, 1.0), "tilt_degrees": 0.0}


def ball(radius: int) -> np.ndarray:
    axes = np.indices((2 * radius + 1,) * 3) - radius
    return (axes**2).sum(axis=0) <= radius**2


def test_lesions_are_told_apart_and_come_the_largest_first():
    mask = np.zeros((9, 9, 9), bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True  # they touch by a corner
    mask[5:8, 5:8, 5:8] = True
    assert [int(piece.sum()) for piece in lesions(mask)] == [27, 2]
    assert [piece.shape for piece in lesions(mask)] == [(3, 3, 3), (2, 2, 2)]
    assert lesions(np.zeros((3, 3, 3), bool)) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_hole_lies_in_the_tissue_and_has_the_size_of_its_shape(seed):
    allowed = np.zeros((30, 40, 40), bool)
    allowed[:, 5:35, 5:35] = True
    hole = place_shape(ball(6), (1, 1, 1), allowed, (1, 1, 1), np.random.default_rng(seed), **STILL, inside=1.0)
    assert not (hole & ~allowed).any()
    assert hole.sum() == pytest.approx(ball(6).sum(), rel=0.1)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 0.5, 2.0)])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.5])
def test_its_volume_in_millimetres_does_not_depend_on_the_voxels(spacing, scale):
    allowed = np.ones(tuple(round(64 / mm) for mm in spacing), bool)
    placed = place_shape(
        ball(8), (1, 1, 1), allowed, spacing, np.random.default_rng(0), scales=(scale, scale), inside=1.0
    )
    assert placed.sum() * np.prod(spacing) == pytest.approx(ball(8).sum() * scale**3, rel=0.1)


def test_it_is_turned_and_moved_as_the_generator_says():
    shape, allowed = np.ones((2, 4, 12), bool), np.ones((20, 40, 40), bool)
    holes = [place_shape(shape, (1, 1, 1), allowed, (1, 1, 1), np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(holes[0], holes[1])
    assert not np.array_equal(holes[0], holes[2])


def test_what_sticks_out_of_the_tissue_is_cut_off_and_what_does_not_fit_is_left():
    allowed = np.zeros((20, 20, 20), bool)
    allowed[:, :, :10] = True
    rng = np.random.default_rng(0)
    cut = place_shape(ball(5), (1, 1, 1), allowed, (1, 1, 1), rng, **STILL, inside=0.5)
    assert 0.5 * ball(5).sum() <= cut.sum() <= ball(5).sum() * 1.1
    assert not (cut & ~allowed).any()
    assert place_shape(ball(9), (1, 1, 1), allowed, (1, 1, 1), rng, **STILL) is None
    assert place_shape(ball(5), (1, 1, 1), np.zeros_like(allowed), (1, 1, 1), rng) is None
