"""The brain phantom: a FLAIR-like scan, its lesions, and the healthy truth beneath them."""

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.phantoms.brain import Phantom, brain_phantom

SEEDS = range(4)


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [brain_phantom(seed) for seed in SEEDS]


def test_truth_equals_the_image_outside_the_lesions_and_differs_inside(
    phantoms: list[Phantom],
) -> None:
    for phantom in phantoms:
        differs = phantom.image != phantom.healthy
        np.testing.assert_array_equal(differs, phantom.lesion == 1)


def test_lesions_are_clearly_visible_and_mostly_bright(phantoms: list[Phantom]) -> None:
    change = np.concatenate([(p.image.astype(int) - p.healthy)[p.lesion == 1] for p in phantoms])
    assert np.abs(change).min() > 40
    assert np.mean(change > 0) > 0.7


@pytest.mark.slow
def test_some_lesions_have_a_core_darker_than_the_tissue_they_replaced() -> None:
    coarse = [brain_phantom(seed, shape=(44, 52, 12), spacing_mm=(4.0, 4.0, 10.0)) for seed in range(12)]
    with_core = [phantom for phantom in coarse if (phantom.image < phantom.healthy).any()]
    assert 0 < len(with_core) < len(coarse)


def test_lesions_lie_in_brain_tissue_never_in_background_or_fluid(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        fluid_at_most = 0.7 * np.median(phantom.healthy[phantom.healthy > 0])
        assert phantom.healthy[phantom.lesion == 1].min() > fluid_at_most


def test_background_is_exactly_zero_and_surrounds_a_positive_brain(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        brain = phantom.healthy > 0
        np.testing.assert_array_equal(phantom.image > 0, brain)
        assert phantom.image.min() == 0
        assert 0.2 < brain.mean() < 0.6
        for axis in (0, 1):
            assert not np.take(brain, [0, -1], axis=axis).any()


def test_tissue_has_flair_contrast_fluid_below_white_below_grey_matter(
    phantoms: list[Phantom],
) -> None:
    for phantom in phantoms:
        low, middle, high = np.percentile(phantom.healthy[phantom.healthy > 0], [2, 50, 98])
        assert 150 < low < 0.7 * middle
        assert 400 < middle < 650
        assert 1.15 * middle < high < 1000


def test_ventricles_are_dark_beside_the_midline_at_mid_height(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        slice_at_10_mm = phantom.healthy[:, :, 14]
        ventricles = slice_at_10_mm[36:52, 40:60]
        assert ventricles.min() < 0.6 * np.median(slice_at_10_mm[slice_at_10_mm > 0])


def test_each_subject_has_healthy_and_pathological_slices_in_similar_number(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        slices = phantom.image.any(axis=(0, 1))
        pathological = phantom.lesion.any(axis=(0, 1))
        assert 0.4 <= pathological.sum() / slices.sum() <= 0.6


def test_values_are_whole_numbers_of_the_types_scanners_store(phantoms: list[Phantom]) -> None:
    phantom = phantoms[0]
    assert (phantom.image.dtype, phantom.healthy.dtype, phantom.lesion.dtype) == (
        np.int16,
        np.int16,
        np.uint8,
    )
    assert phantom.image.shape == phantom.healthy.shape == phantom.lesion.shape == (88, 104, 24)
    assert set(np.unique(phantom.lesion)) == {0, 1}


def test_affine_holds_the_spacing_and_puts_the_world_origin_at_the_centre_of_the_grid() -> None:
    phantom = brain_phantom(0, shape=(44, 52, 12), spacing_mm=(4.0, 4.0, 10.0))
    np.testing.assert_array_equal(np.diag(phantom.affine), [4, 4, 10, 1])
    np.testing.assert_allclose(phantom.affine @ [21.5, 25.5, 5.5, 1], [0, 0, 0, 1])


@pytest.mark.slow
def test_same_seed_same_brain_other_seed_other_brain(phantoms: list[Phantom]) -> None:
    again = brain_phantom(np.random.default_rng(0))
    np.testing.assert_array_equal(again.image, phantoms[0].image)
    np.testing.assert_array_equal(again.lesion, phantoms[0].lesion)
    assert ((phantoms[0].image > 0) != (phantoms[1].image > 0)).any()
    assert (phantoms[0].lesion != phantoms[1].lesion).any()


def test_a_grid_with_too_few_slices_for_both_labels_is_refused() -> None:
    with pytest.raises(UsageError, match=r"phantom grid: white matter reaches only 3 of 3 slices"):
        brain_phantom(0, shape=(44, 52, 3), spacing_mm=(4.0, 4.0, 5.0))


@pytest.mark.parametrize(
    ("contrast", "order"),
    [("FLAIR", "csf < white < grey"), ("T1w", "csf < grey < white"), ("T2w", "white < grey < csf")],
)
def test_contrasts_show_the_same_anatomy_in_other_orders_of_brightness(contrast: str, order: str) -> None:
    drawn = brain_phantom(0, (44, 52, 12), (4.0, 4.0, 10.0), contrast)
    flair = brain_phantom(0, (44, 52, 12), (4.0, 4.0, 10.0))
    np.testing.assert_array_equal(drawn.lesion, flair.lesion)
    ends = {"csf": (0, 250), "white": (460, 530), "grey": (610, 1000)}  # in FLAIR
    signal = {
        name: np.median(drawn.healthy[(flair.healthy > low) & (flair.healthy < high)])
        for name, (low, high) in ends.items()
    }
    assert sorted(signal, key=lambda name: signal[name]) == order.split(" < ")


def test_fluid_widens_with_atrophy_alone() -> None:
    def fluid(atrophy: float) -> int:
        healthy = brain_phantom(1, (44, 52, 12), (4.0, 4.0, 10.0), atrophy=atrophy).healthy
        return int(((healthy > 0) & (healthy < 300)).sum())

    assert fluid(0.0) < 0.8 * fluid(0.5) < 0.64 * fluid(1.0)
