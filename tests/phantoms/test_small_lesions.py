"""Small lesions planted in healthy tissue."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.phantoms.small_lesions import ADDED, DIAMETERS_MM, EDGE_MM, small_lesions

SPACING = (5.0, 2.0, 2.0)


def brain(slices: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A skull-stripped ball of even tissue with a drawn lesion in a corner of it."""
    rows, columns = np.mgrid[:72, :72] - 36
    inside = rows**2 + columns**2 < 32**2
    image = np.where(inside, 0.5, 0.0).astype(np.float32) * np.ones((slices, 1, 1), np.float32)
    image += np.random.default_rng(0).normal(0, 0.01, image.shape).astype(np.float32) * (image > 0)
    lesion = np.zeros(image.shape, bool)
    lesion[2:4, 20:30, 20:30] = True
    return image, lesion


def test_lesions_are_small_soft_apart_and_away_from_disease() -> None:
    image, lesion = brain()
    added, numbers = small_lesions(image, lesion, SPACING, 4, np.random.default_rng(1))
    found = set(np.unique(numbers)) - {0}
    assert len(found) == 4
    assert added.max() == pytest.approx(ADDED, abs=0.02)
    assert ((added > 0) == (numbers > 0)).all()
    assert not (added[lesion] > 0).any()
    _, pieces = ndimage.label(numbers > 0, structure=np.ones((3, 3, 3)))
    assert pieces == 4
    for number in found:
        widest = max(np.ptp(np.argwhere(numbers == number), axis=0) * SPACING)
        assert widest <= DIAMETERS_MM[1] + EDGE_MM
    assert (image + added).max() <= 1


def test_the_same_seed_plants_the_same_and_without_tissue_nothing_is_planted() -> None:
    image, lesion = brain()
    first, again = (small_lesions(image, lesion, SPACING, 3, np.random.default_rng(2))[0] for _ in range(2))
    assert np.array_equal(first, again)
    added, numbers = small_lesions(np.zeros_like(image), lesion, SPACING, 3, np.random.default_rng(2))
    assert not added.any()
    assert not numbers.any()
