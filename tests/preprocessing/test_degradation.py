"""Degradations whose truth is known: noise, undersampled k-space, thick slices."""

import math
from collections.abc import Callable

import pytest
import torch

from pipeline.preprocessing.degradation import (
    Degradation,
    Noise,
    ThickSlices,
    Undersampling,
    cartesian_mask,
    rician_noise,
    thick_slices,
    thin_again,
    undersampled,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_of_air_is_rayleigh_and_noise_of_bright_tissue_gaussian_of_the_level() -> None:
    level = 0.05
    air = rician_noise(torch.zeros(200, 200), level, seeded())
    assert float(air.mean()) == pytest.approx(level * math.sqrt(math.pi / 2), rel=0.02)
    tissue = rician_noise(torch.full((200, 200), 0.6), level, seeded())
    assert float(tissue.std()) == pytest.approx(level, rel=0.02)
    assert float(tissue.mean()) == pytest.approx(math.sqrt(0.6**2 + level**2), rel=0.005)


def test_the_same_seed_gives_the_same_noise_and_another_seed_other_noise() -> None:
    image = torch.rand(1, 16, 16, generator=seeded())
    first, again, other = (rician_noise(image, 0.1, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(rician_noise(image, 0.0), image)


@pytest.mark.parametrize("level", [-0.1, math.nan, math.inf])
def test_a_level_of_noise_that_is_none_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="share of the window"):
        rician_noise(torch.zeros(1), level)


@pytest.mark.parametrize(("lines", "fraction", "centre"), [(64, 0.25, 0.08), (65, 0.5, 0.5), (32, 1.0, 0.1)])
def test_a_mask_has_its_share_of_lines_and_all_of_the_centre(lines: int, fraction: float, centre: float) -> None:
    mask = cartesian_mask(lines, fraction, centre, seeded())
    assert int(mask.sum()) == round(fraction * lines)
    middle = max(1, round(centre * lines))
    first = lines // 2 - middle // 2
    assert mask[first : first + middle].all()


@pytest.mark.parametrize(("fraction", "centre"), [(0.0, 0.0), (0.2, 0.3), (1.2, 0.1)])
def test_shares_of_lines_out_of_range_are_refused(fraction: float, centre: float) -> None:
    with pytest.raises(ValueError, match="centre ≤ fraction"):
        cartesian_mask(16, fraction, centre)


def test_a_full_k_space_gives_the_image_back_and_its_centre_alone_the_mean_of_each_line() -> None:
    image = torch.rand(2, 12, 16, generator=seeded())
    torch.testing.assert_close(undersampled(image, torch.ones(16, dtype=torch.bool)), image)
    lowest = torch.zeros(16, dtype=torch.bool)
    lowest[8] = True
    means = image.mean(dim=-1, keepdim=True).expand_as(image)
    torch.testing.assert_close(undersampled(image, lowest), means)


def test_every_second_line_folds_the_image_along_the_last_axis_alone() -> None:
    image = torch.zeros(8, 16)
    image[2, 3] = 0.8
    ghosts = undersampled(image, torch.arange(16) % 2 == 0)
    expected = torch.zeros(8, 16)
    expected[2, 3] = expected[2, 11] = 0.4
    torch.testing.assert_close(ghosts, expected)


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected \\(16,\\)"):
        undersampled(torch.zeros(8, 16), torch.ones(8, dtype=torch.bool))


def test_thick_slices_are_means_of_thin_ones_and_what_is_left_over_is_left_out() -> None:
    volume = torch.arange(7.0)[:, None, None].expand(7, 2, 2) / 10
    thick = thick_slices(volume, 3)
    assert thick.shape == (2, 2, 2)
    torch.testing.assert_close(thick[:, 0, 0], torch.tensor([0.1, 0.4]))


def test_a_gaussian_profile_sees_the_neighbours_and_keeps_what_is_constant() -> None:
    constant = torch.full((9, 2, 2), 0.5)
    torch.testing.assert_close(thick_slices(constant, 3, "gaussian"), torch.full((3, 2, 2), 0.5))
    single = torch.zeros(9, 1, 1)
    single[4] = 1.0
    box, gaussian = (thick_slices(single, 3, profile)[:, 0, 0] for profile in ("box", "gaussian"))
    torch.testing.assert_close(box, torch.tensor([0.0, 1 / 3, 0.0]))
    assert gaussian[0] > 0
    assert gaussian[0] == pytest.approx(float(gaussian[2]))


@pytest.mark.parametrize(("group", "profile", "told"), [(9, "box", "8 slices"), (2, "sinc", "one of box, gaussian")])
def test_thick_slices_that_cannot_be_are_refused(group: int, profile: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        thick_slices(torch.zeros(8, 2, 2), group, profile)


def test_thick_slices_come_back_to_the_thin_grid_where_they_were() -> None:
    ramp = torch.linspace(0.2, 0.8, 24)[:, None, None].expand(24, 3, 4).contiguous()
    back = thin_again(thick_slices(ramp, 4), 4)
    assert back.shape == ramp.shape
    torch.testing.assert_close(back[6:-6], ramp[6:-6], atol=1e-5, rtol=0)
    textured = torch.rand(8, 5, 6, generator=seeded())
    torch.testing.assert_close(thin_again(textured, 1), textured)


@pytest.mark.parametrize("degradation", [Noise((0.02, 0.2)), Undersampling((0.2, 0.6), centre=0.1)])
def test_each_slice_is_degraded_by_draws_of_its_own_and_repeated_by_the_seed(degradation: Degradation) -> None:
    slices = torch.rand(1, 12, 20, generator=seeded()).expand(3, 12, 20)
    once, again = (degradation(slices, seeded(1)) for _ in range(2))
    assert torch.equal(once, again)
    assert once.shape == slices.shape
    errors = (once - slices).square().mean(dim=(1, 2))
    assert len(set(errors.tolist())) == 3


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Noise((0.2, 0.1)), "level is a range"),
        (lambda: Undersampling((0.05, 0.2), centre=0.1), "fraction is a range"),
        (lambda: ThickSlices(group=1), "group of at least 2"),
        (lambda: ThickSlices(thickest_mm=0), "thickness above 0"),
    ],
)
def test_degradations_that_cannot_be_are_refused(make: Callable[[], Degradation], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()
