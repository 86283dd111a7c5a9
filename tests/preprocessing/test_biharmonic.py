"""The biharmonic fill continues slopes, stays within what lies around, and leaves all else as it is."""

import numpy as np
import pytest

from pipeline.preprocessing.biharmonic import biharmonic_fill, open_to_air


@pytest.fixture
def hole() -> np.ndarray:
    hole = np.zeros((3, 24, 28), bool)
    hole[1, 8:13, 10:16] = True
    hole[1, 20, 20] = True
    hole[2, 11, 12] = True
    return hole


def test_a_plane_is_continued_exactly(hole: np.ndarray) -> None:
    rows, columns = np.meshgrid(np.arange(24), np.arange(28), indexing="ij")
    plane = np.broadcast_to(2.0 * rows + 3.0 * columns, hole.shape).astype(np.float32)
    filled = biharmonic_fill(np.where(hole, np.float32(0), plane), hole)
    np.testing.assert_allclose(filled, plane, atol=1e-2)


def test_a_bump_is_filled_rounder_than_its_rim_and_not_beyond_what_lies_around(hole: np.ndarray) -> None:
    image = np.random.default_rng(0).uniform(10, 20, hole.shape).astype(np.float32)
    filled = biharmonic_fill(image, hole)
    np.testing.assert_array_equal(filled[~hole], image[~hole])
    assert filled[hole].min() >= image.min()
    assert filled[hole].max() <= image.max()


def test_what_was_in_the_hole_is_never_seen(hole: np.ndarray) -> None:
    image = np.random.default_rng(0).uniform(10, 20, hole.shape).astype(np.float32)
    other = np.where(hole, np.float32(500), image)
    np.testing.assert_array_equal(biharmonic_fill(other, hole)[hole], biharmonic_fill(image, hole)[hole])


def test_far_from_each_other_parts_are_filled_as_if_they_were_alone(hole: np.ndarray) -> None:
    image = np.random.default_rng(0).uniform(10, 20, hole.shape).astype(np.float32)
    alone = np.zeros_like(hole)
    alone[1, 20, 20] = True
    assert biharmonic_fill(image, hole)[alone] == pytest.approx(biharmonic_fill(image, alone)[alone], rel=1e-5)


def test_a_slice_without_any_tissue_is_left_alone() -> None:
    image = np.ones((1, 8, 8), np.float32)
    np.testing.assert_array_equal(biharmonic_fill(image, np.ones((1, 8, 8), bool)), image)


def test_parts_beside_air_are_told_from_those_inside(hole: np.ndarray) -> None:
    head = np.ones_like(hole)
    head[:, :, 22:] = False
    near = open_to_air(hole, head)
    assert near[1, 20, 20]
    assert not near[1, 8:13, 10:16].any()
    assert not near[2].any()
