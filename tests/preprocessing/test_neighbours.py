"""A slice with those above and below it."""

import numpy as np
import pytest
import torch

from pipeline.preprocessing.neighbours import with_neighbours


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_sequences_are_outermost_and_at_the_ends_the_last_slice_is_seen_again(kind):
    slices = kind([[[[10 * number + channel]] for channel in range(2)] for number in range(4)])
    seen = with_neighbours(slices, np.array([0, 2, 3]), 1)
    assert seen.reshape(3, -1).tolist() == [[0, 0, 10, 1, 1, 11], [10, 20, 30, 11, 21, 31], [20, 30, 30, 21, 31, 31]]


def test_without_neighbours_the_slices_are_as_they_were():
    slices = np.arange(24.0).reshape(3, 2, 2, 2)
    assert np.array_equal(with_neighbours(slices, np.arange(3), 0), slices)
