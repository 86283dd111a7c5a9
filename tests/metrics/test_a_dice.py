"""A-Dice: how fast a segmentor fits the original lesion masks on synthetic images."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.metrics.a_dice import ADice, a_dice, random_lesion_masks

SIZE = 32
SMALL: dict[str, Any] = {"seeds": (0,), "epochs": 16, "filters": 4}
BRIEF: dict[str, Any] = {**SMALL, "epochs": 2, "batch_size": 4}


def heads(count: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Textured discs in air, and a round lesion mask somewhere inside each: (images, masks)."""
    rng = np.random.default_rng(seed)
    h, w = np.mgrid[:SIZE, :SIZE]
    brain = (h - 15.5) ** 2 + (w - 15.5) ** 2 < 14**2
    texture = 0.5 + 0.05 * rng.normal(size=(count, 1, SIZE, SIZE))
    centre = rng.uniform(10, 21, size=(2, count, 1, 1, 1))
    masks = (h - centre[0]) ** 2 + (w - centre[1]) ** 2 < 3.5**2
    return torch.from_numpy(texture * brain).float(), torch.from_numpy(masks).float()


healthy, lesions = heads()
bright = torch.where(lesions.bool(), healthy + 0.3, healthy)


@pytest.fixture(scope="module")
def results() -> dict[str, ADice]:
    """A-Dice of the same slices with visible, faint, cut-out and no lesions."""
    images = {
        "visible": bright,
        "faint": torch.where(lesions.bool(), healthy + 0.1, healthy),
        "cut out": torch.where(lesions.bool(), torch.zeros_like(healthy), healthy),
        "none": healthy,
    }
    return {lesion: a_dice(with_lesion, lesions, **SMALL) for lesion, with_lesion in images.items()}


@pytest.mark.slow
def test_it_is_the_mean_over_all_epochs_of_the_dice_after_each(results: dict[str, ADice]) -> None:
    (curve,) = results["visible"].curves
    assert len(curve) == 16
    assert all(0 <= value <= 1 for value in curve)
    assert curve[0] < 0.5 < 0.9 < curve[-1]
    assert results["visible"].per_seed == [pytest.approx(sum(curve) / 16)]
    assert a_dice(bright, lesions, **{**SMALL, "epochs": 6}).curves == [curve[:6]]


@pytest.mark.slow
def test_visible_lesions_are_fitted_faster_than_faint_ones_and_these_faster_than_none(
    results: dict[str, ADice],
) -> None:
    assert results["visible"].per_seed[0] > results["faint"].per_seed[0] + 0.1
    assert results["faint"].per_seed[0] > results["none"].per_seed[0] + 0.1


@pytest.mark.slow
def test_an_artifact_in_place_of_the_lesion_is_not_healthy(results: dict[str, ADice]) -> None:
    assert results["cut out"].per_seed[0] > results["none"].per_seed[0] + 0.2


@pytest.mark.slow
def test_images_without_a_trace_of_lesion_have_a_dice_near_zero_and_no_collapse(results: dict[str, ADice]) -> None:
    assert results["none"].collapsed == [False]
    assert 0 <= results["none"].per_seed[0] < 0.1


@pytest.mark.slow
def test_at_a_low_rate_adam_learns_where_gradient_descent_does_not() -> None:
    slow, fast = (
        a_dice(bright, lesions, **{**SMALL, "batch_size": 4}, rate=0.002, optimizer=name) for name in ("sgd", "adam")
    )
    assert slow.curves[0][-1] < 0.1 < 0.5 < fast.curves[0][-1]


def test_a_segmentor_that_has_learned_nothing_is_a_collapse_and_no_healthiness() -> None:
    result = a_dice(healthy, lesions, **{**BRIEF, "seeds": (0, 1)}, rate=0)
    assert result.curves == [[0, 0], [0, 0]]
    assert result.collapsed == [True, True]
    assert all(math.isnan(value) for value in result.per_seed)
    assert (result.mean, result.sd) == (None, None)


@pytest.mark.parametrize("rate", [1e4, 1e30])
def test_a_diverged_training_is_a_collapse(rate: float) -> None:
    result = a_dice(bright, lesions, **BRIEF, rate=rate)
    assert result.collapsed == [True]
    assert math.isnan(result.per_seed[0])
    assert len(result.curves[0]) <= 2


def test_mean_and_deviation_run_over_the_seeds_that_did_not_collapse() -> None:
    result = ADice([0.5, math.nan, 0.7, 0.6], [[]] * 4, [False, True, False, False])
    assert result.mean == pytest.approx(0.6)
    assert result.sd == pytest.approx(0.1)
    assert ADice([0.5, math.nan], [[]] * 2, [False, True]).sd is None


@pytest.mark.slow
def test_each_seed_is_a_training_of_its_own_that_can_be_repeated() -> None:
    settings = {**BRIEF, "epochs": 3}
    both = a_dice(bright, lesions, **{**settings, "seeds": (3, 4)})
    assert both.curves[0] != both.curves[1]
    assert a_dice(bright, lesions, **{**settings, "seeds": (4,)}).curves == both.curves[1:]


def test_the_global_random_state_is_neither_used_nor_changed() -> None:
    settings = {**BRIEF, "epochs": 3}
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate()  # noqa: NPY002
        masks = random_lesion_masks(lesions, healthy > 0)
        results.append((a_dice(bright, lesions, **settings), masks.tolist()))
        assert max(results[-1][0].curves[0]) > 0
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before[1]  # noqa: NPY002
        assert random.getstate() == before[2]
    assert results[0] == results[1]


def test_progress_counts_the_epochs_of_all_seeds() -> None:
    calls = []
    a_dice(bright, lesions, seeds=(0, 1), epochs=2, filters=4, progress=lambda *at: calls.append(at))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_images_and_masks_are_not_changed_and_may_be_of_any_type() -> None:
    images, masks = bright.clone(), lesions.clone()
    first = a_dice(images, masks, seeds=(0,), epochs=1, filters=4)
    assert torch.equal(images, bright)
    assert torch.equal(masks, lesions)
    assert a_dice(images.double(), masks.bool(), seeds=(0,), epochs=1, filters=4) == first


def test_masks_without_any_lesion_and_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="found none in 16 masks"):
        a_dice(bright, torch.zeros_like(lesions))
    with pytest.raises(ValueError, match=r"got \(16, 1, 32, 32\) and \(15, 1, 32, 32\)"):
        a_dice(bright, lesions[1:])


def shape_of(mask: Tensor) -> list[list[int]]:
    """The lesion cut out of its slice."""
    pixels = torch.nonzero(mask[0])
    return (pixels - pixels.amin(dim=0)).tolist()


def test_random_lesions_are_real_shapes_inside_the_foreground() -> None:
    foreground = heads(40, seed=1)[0] > 0
    placed = random_lesion_masks(lesions, foreground)
    assert (placed.shape, placed.dtype) == (foreground.shape, lesions.dtype)
    assert not (placed.bool() & ~foreground).any()
    shapes = [shape_of(mask) for mask in lesions]
    assert all(shape_of(mask) in shapes for mask in placed)


def test_every_shape_has_its_turn_before_one_comes_again() -> None:
    sizes = torch.zeros(3, 1, 8, 8)
    for count, mask in enumerate(sizes, start=1):
        mask[0, 2, :count] = 1
    placed = random_lesion_masks(sizes, torch.ones(6, 1, 8, 8, dtype=torch.bool)).sum(dim=(1, 2, 3)).tolist()
    assert sorted(placed[:3]) == sorted(placed[3:]) == [1, 2, 3]


def test_every_place_inside_the_foreground_can_be_drawn_and_no_other() -> None:
    lesion = torch.zeros(1, 1, 6, 5)
    lesion[0, 0, 4:6, 0] = 1
    foreground = torch.zeros(1, 1, 6, 5, dtype=torch.bool)
    foreground[0, 0, :4, 3:] = True
    foreground[0, 0, 5, 1] = True
    places = {
        tuple(torch.nonzero(mask[0])[0].tolist())
        for mask in random_lesion_masks(lesion, foreground.expand(200, -1, -1, -1))
    }
    assert places == {(h, w) for h in (0, 1, 2) for w in (3, 4)}


def test_a_lesion_larger_than_the_foreground_is_cut_to_it() -> None:
    foreground = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    foreground[..., 3:6, 20:22] = True
    assert torch.equal(random_lesion_masks(lesions, foreground), foreground.float())
    assert not random_lesion_masks(lesions, ~foreground & foreground).any()


def test_seeds_draw_different_places_and_slices_without_lesion_are_not_drawn() -> None:
    foreground = healthy > 0
    some = torch.cat([torch.zeros_like(lesions), lesions])
    assert random_lesion_masks(some, foreground).flatten(1).any(dim=1).all()
    assert not torch.equal(random_lesion_masks(lesions, foreground), random_lesion_masks(lesions, foreground, seed=1))
    with pytest.raises(ValueError, match="found none in 16 masks"):
        random_lesion_masks(torch.zeros_like(lesions), foreground)
    with pytest.raises(ValueError, match="slices of one size"):
        random_lesion_masks(lesions, foreground[..., 1:])
