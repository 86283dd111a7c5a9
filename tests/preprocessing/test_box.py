"""Boxes around regions: the smallest that hold them, as SciPy finds them."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.preprocessing.box import box_of


@pytest.mark.parametrize("seed", range(4))
def test_a_box_is_that_of_scipy_whatever_the_order_of_the_memory(seed: int) -> None:
    region = np.random.default_rng(seed).random((7, 9, 11)) > 0.99
    region[2, 3, 4] = True
    (expected,) = ndimage.find_objects(region.astype(np.uint8))
    assert box_of(region) == box_of(np.asfortranarray(region)) == expected
    assert box_of(np.moveaxis(region, 2, 0)) == (expected[2], *expected[:2])


def test_nothing_has_a_box_without_voxels() -> None:
    empty = np.zeros((3, 4, 5), dtype=bool)
    assert empty[box_of(empty)].size == 0
