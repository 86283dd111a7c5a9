"""GVS Eq. 3, over the whole slice or a region of it."""

import pytest
import torch

from pipeline.losses import residual_mse


def test_the_mean_is_over_every_pixel_of_every_slice():
    x_p = torch.tensor([[[[0.0, 0.2], [0.4, 0.6]]]])
    x_s = torch.tensor([[[[0.1, 0.2], [0.1, 1.0]]]])
    # (0.01 + 0 + 0.09 + 0.16) / 4
    assert float(residual_mse(x_p, x_s)) == pytest.approx(0.065)


def test_a_region_counts_only_its_own_pixels_and_divides_by_them():
    x_p = torch.tensor([[[[0.0, 0.2], [0.4, 0.6]]]])
    x_s = torch.tensor([[[[0.1, 0.2], [0.1, 1.0]]]])
    region = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert float(residual_mse(x_p, x_s, region)) == pytest.approx(0.01 / 2)


def test_each_slice_counts_the_same_however_large_its_region():
    x_p, x_s = torch.zeros(2, 1, 2, 2), torch.tensor([0.1, 0.3]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    region = torch.ones(2, 1, 2, 2)
    region[1, 0, 0, 0] = region[1, 0, 0, 1] = 0
    assert float(residual_mse(x_p, x_s, region)) == pytest.approx((0.01 + 0.09) / 2)


def test_halves_of_a_batch_add_up_to_the_batch():
    x_p, x_s, region = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8), (torch.rand(4, 1, 8, 8) > 0.5).float()
    halves = [residual_mse(x_p[part], x_s[part], region[part]) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(sum(halves) / 2, residual_mse(x_p, x_s, region))


def test_the_whole_region_gives_the_plain_mean():
    x_p, x_s = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(residual_mse(x_p, x_s, torch.ones_like(x_p)), residual_mse(x_p, x_s))


def test_an_empty_region_costs_nothing():
    assert float(residual_mse(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))) == 0


def test_the_gradient_pulls_the_synthetic_image_back_to_the_input():
    x_p, x_s = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.8, requires_grad=True)
    residual_mse(x_p, x_s).backward()
    torch.testing.assert_close(x_s.grad, torch.full_like(x_p, 2 * 0.3 / 4))
