"""Random contrasts keep the anatomy: what was tissue is tissue, what was air is air."""

import numpy as np
import pytest

from pipeline.preprocessing.contrasts import other_contrast
from pipeline.preprocessing.foreground import AIR


@pytest.fixture
def volume() -> np.ndarray:
    volume = np.random.default_rng(0).uniform(0.1, 1, (4, 16, 16)).astype(np.float32)
    volume[:, :3] = 0
    return volume


@pytest.mark.parametrize("seed", range(20))
def test_tissue_stays_in_the_window_and_brighter_than_air(volume, seed):
    tissue = volume > 0
    made = other_contrast(volume, tissue, np.random.default_rng(seed))
    assert made.dtype == np.float32
    assert made[tissue].min() > AIR
    assert made.max() <= 1
    assert not made[~tissue].any()


def test_contrasts_rise_and_fall_and_are_drawn_by_the_generator_alone(volume):
    made = [other_contrast(volume, volume > 0, np.random.default_rng(seed)) for seed in range(20)]
    like = [np.corrcoef(each[volume > 0], volume[volume > 0])[0, 1] for each in made]
    assert min(like) < -0.5
    assert max(like) > 0.5
    assert np.array_equal(made[3], other_contrast(volume, volume > 0, np.random.default_rng(3)))
