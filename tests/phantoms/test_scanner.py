"""A simulated scanner changes contrast, shading, noise and resolution, and nothing else."""

import numpy as np
import pytest
import torch

from pipeline.phantoms.scanner import FIRST, SECOND, Scanner


@pytest.fixture
def images() -> torch.Tensor:
    """Two slices of a body of 0.5 with a lesion of 1 in the first."""
    images = torch.zeros(2, 1, 64, 64)
    images[:, :, 8:56, 8:56] = 0.5
    images[0, :, 20:30, 20:30] = 1
    return images


def test_a_perfect_scanner_shows_what_is_there(images):
    torch.testing.assert_close(Scanner("perfect").scan(images, 1.0, seed=0), images)


def test_gamma_changes_the_contrast_of_the_lesion(images):
    shown = Scanner("flat", gamma=0.5).scan(images, 1.0, seed=0)
    assert shown[0, 0, 40, 40] == pytest.approx(0.5**0.5)
    assert shown[0, 0, 25, 25] == 1


def test_the_bias_field_is_smooth_and_the_same_in_all_slices(images):
    flat = torch.full_like(images, 0.5)
    shown = Scanner("shaded", bias=0.4).scan(flat, 1.0, seed=0)[:, 0]
    torch.testing.assert_close(shown[0], shown[1])
    unclipped = shown[0][shown[0] < 1]
    assert 0.4 < float((unclipped.max() / unclipped.min()).log()) <= 0.8  # from −b to b at most
    assert float(shown[0].diff(dim=0).abs().max()) < 0.05


def test_noise_is_rician(images):
    air = Scanner("noisy", noise=0.05).scan(images, 1.0, seed=0)[:, 0, :8]
    assert float(air.mean()) == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.1)


def test_the_point_spread_has_its_width_in_mm():
    point = torch.zeros(1, 1, 65, 65)
    point[0, 0, 32] = 1  # a line
    for spacing in (0.5, 1.0):
        shown = Scanner("blurred", fwhm_mm=8.0).scan(point, spacing, seed=0)[0, 0, :, 32]
        half = 32 + round(4 / spacing)
        assert float(shown[half] / shown[32]) == pytest.approx(0.5, abs=0.02)


def test_the_same_seed_draws_the_same_and_another_one_another(images):
    for scanner in (FIRST, SECOND):
        first, again, other = (scanner.scan(images, 3.0, seed) for seed in ((0, 1), (0, 1), (0, 2)))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert first.min() >= 0
        assert first.max() == 1


@pytest.mark.parametrize("wrong", [{"gamma": 0}, {"noise": -0.1}, {"bias": -1}, {"fwhm_mm": -1}])
def test_what_no_scanner_has_is_refused(wrong):
    with pytest.raises(ValueError, match="neither negative bias, noise nor blur"):
        Scanner("wrong", **wrong)
