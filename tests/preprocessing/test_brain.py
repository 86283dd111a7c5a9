"""Brain tissue is found in whole heads and stripped brains, in any contrast, without fluid, scalp and face."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.phantoms import brain_phantom
from pipeline.preprocessing.brain import brain_region, brain_tissue

MM = (5.0, 2.0, 2.0)
FLUID = 300


@pytest.fixture(scope="module")
def brain() -> NDArray[np.float32]:
    """A skull-stripped phantom, axial, shape (slices, right, anterior)."""
    return np.moveaxis(brain_phantom(0).healthy, 2, 0).astype(np.float32)


def in_a_head(brain: NDArray[np.float32]) -> NDArray[np.float32]:
    """The brain in a dark skull and a bright scalp."""
    h, w = np.indices(brain.shape)[1:]
    middle = [(size - 1) / 2 for size in brain.shape]
    radius = np.sqrt(((h - middle[1]) / 43) ** 2 + ((w - middle[2]) / 51) ** 2)
    return np.where(brain > 0, brain, np.where(radius < 0.92, 60, np.where(radius < 1, 900, 0))).astype(np.float32)


@pytest.mark.parametrize("inverted", [False, True])
def test_a_stripped_brain_is_found_without_its_ventricles(brain: NDArray[np.float32], inverted: bool) -> None:
    tissue = brain > FLUID
    image = 120 / np.maximum(brain, 200) * (brain > 0) if inverted else brain / 1200
    found = brain_tissue(image.astype(np.float32), MM)
    assert found[tissue].mean() > 0.95
    assert not found[brain == 0].any()
    middle = (slice(10, 16), slice(38, 50), slice(40, 60))  # around the lateral ventricles
    assert found[middle][brain[middle] < FLUID].mean() < 0.5


def test_scalp_and_skull_are_no_brain(brain: NDArray[np.float32]) -> None:
    head = in_a_head(brain)
    found = brain_tissue(head / 1200, MM)
    assert found[(brain == 0)].mean() < 0.02
    assert found[6:18][brain[6:18] > FLUID].mean() > 0.7


def test_the_region_of_a_stripped_brain_has_its_ventricles_and_that_of_a_head_is_its_tissue(
    brain: NDArray[np.float32],
) -> None:
    np.testing.assert_array_equal(brain_region(brain / 1200, MM), brain > 0)
    rows, columns = np.indices(brain.shape)[1:]
    radius = np.hypot((rows - brain.shape[1] / 2) / 0.9, columns - brain.shape[2] / 2) * MM[1]
    head = np.select([radius < 60, radius < 74, radius < 82], [0.5, 0.05, 0.9], 0).astype(np.float32)
    head[:, 40:44, 60:] *= np.where(head[:, 40:44, 60:] == np.float32(0.05), 10, 1)  # as the face joins brain and scalp
    np.testing.assert_array_equal(brain_region(head, MM), brain_tissue(head, MM))
    assert not brain_region(head, MM)[radius > 64].any()


def test_the_drawn_lesion_is_no_brain_tissue_and_does_not_count_in_its_brightness(brain: NDArray[np.float32]) -> None:
    lesion = np.zeros(brain.shape, bool)
    lesion[:, :44] = True
    sick = np.where(lesion & (brain > 0), 1200, brain) / 1200
    found = brain_tissue(sick.astype(np.float32), MM, lesion)
    assert not (found & lesion).any()
    assert found[~lesion & (brain > FLUID)].mean() > 0.9


def test_noise_around_the_head_is_no_head(brain: NDArray[np.float32]) -> None:
    noisy = brain / 1200 + np.random.default_rng(0).uniform(0, 0.08, brain.shape)
    found = brain_tissue(noisy.astype(np.float32), MM)
    assert not found[brain == 0].any()
    assert found[brain > FLUID].mean() > 0.9


@pytest.mark.parametrize("head", [False, True])
def test_air_around_changes_nothing(brain: NDArray[np.float32], head: bool) -> None:
    image = (in_a_head(brain) if head else brain) / 1200
    tight = np.pad(image, ((0, 0), (4, 4), (4, 4))).astype(np.float32)
    wide = np.pad(tight, ((0, 0), (30, 20), (10, 40)))
    np.testing.assert_array_equal(brain_tissue(wide, MM)[:, 30:-20, 10:-40], brain_tissue(tight, MM))


def test_nothing_is_found_in_nothing() -> None:
    assert not brain_tissue(np.zeros((4, 20, 20), np.float32), MM).any()
