"""GVS Eqs. 1, 2, 5 and 6, with values worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.losses import difference_weights, weighted_cross_entropy


def image(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([[list(rows)]], dtype=torch.float32)


def test_weights_are_one_minus_the_change_over_its_maximum():
    x_p, x_s = image([0.8, 0.5, 0.3, 0.0]), image([0.4, 0.4, 0.5, 0.0])
    # |x_p − x_s| = 0.4, 0.1, 0.2, 0; m = 1, 0.25, 0.5, 0; the first weight is held at 0.1.
    torch.testing.assert_close(difference_weights(x_p, x_s), image([0.1, 0.75, 0.5, 1.0]))


def test_a_darkened_and_a_brightened_pixel_count_the_same():
    x_p, x_s = image([0.5, 0.5, 0.5]), image([0.3, 0.7, 0.1])
    w = difference_weights(x_p, x_s)
    torch.testing.assert_close(w, image([0.5, 0.5, 0.1]))


def test_the_weight_of_a_well_transformed_pixel_is_a_tenth():
    x_p, x_s = image([1.0, 1.0, 1.0]), image([0.0, 0.05, 0.2])
    # m = 1, 0.95, 0.8: 1 − m is below 0.1 in the first two.
    torch.testing.assert_close(difference_weights(x_p, x_s), image([0.1, 0.1, 0.2]))


def test_each_slice_is_normalised_by_its_own_maximum():
    x_p = torch.zeros(2, 1, 1, 2)
    x_s = torch.tensor([[[[0.8, 0.4]]], [[[0.002, 0.001]]]])
    torch.testing.assert_close(difference_weights(x_p, x_s), image([0.1, 0.5]).expand(2, 1, 1, 2))


def test_nothing_changed_means_weight_one_everywhere():
    x_p = torch.rand(2, 1, 3, 3)
    assert torch.equal(difference_weights(x_p, x_p.clone()), torch.ones_like(x_p))


def test_an_unchanged_slice_beside_a_changed_one_keeps_weight_one():
    x_p = torch.zeros(2, 1, 1, 2)
    x_s = torch.tensor([[[[0.0, 0.0]]], [[[1.0, 0.0]]]])
    expected = torch.tensor([[[[1.0, 1.0]]], [[[0.1, 1.0]]]])
    torch.testing.assert_close(difference_weights(x_p, x_s), expected)


def test_no_gradient_flows_through_the_weights():
    x_p = torch.rand(1, 1, 3, 3, requires_grad=True)
    x_s = torch.rand(1, 1, 3, 3, requires_grad=True)
    assert not difference_weights(x_p, x_s).requires_grad


@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), st.lists(st.floats(0, 1, width=32), min_size=4))
def test_weights_lie_between_a_tenth_and_one(before, after):
    w = difference_weights(image(before), image(after[:4]))
    assert torch.isfinite(w).all()
    assert w.min() >= torch.tensor(0.1)
    assert w.max() <= 1


def test_cross_entropy_has_the_minus_sign_and_the_background_term():
    probabilities, y, w = image([0.9, 0.2, 0.6, 0.3]), image([1, 0, 0, 1]), image([1.0, 0.5, 0.1, 0.2])
    by_hand = -(1.0 * math.log(0.9) + 0.5 * math.log(0.8) + 0.1 * math.log(0.4) + 0.2 * math.log(0.3)) / 4
    assert float(weighted_cross_entropy(probabilities.logit(), y, w)) == pytest.approx(by_hand, rel=1e-5)


def test_n_is_the_number_of_pixels_not_the_sum_of_weights():
    logits, y = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert float(weighted_cross_entropy(logits, y, torch.full_like(y, 0.5))) == pytest.approx(0.5 * math.log(2))


def test_without_weights_every_pixel_counts_one():
    logits, y = torch.randn(2, 1, 4, 4), (torch.rand(2, 1, 4, 4) > 0.5).float()
    torch.testing.assert_close(
        weighted_cross_entropy(logits, y), weighted_cross_entropy(logits, y, torch.ones_like(logits))
    )


def test_the_printed_loss_would_reward_calling_everything_lesion_and_this_one_does_not():
    y = image([1, 0, 0, 0])
    everything, right = torch.full_like(y, 5.0), image([5.0, -5.0, -5.0, -5.0])
    assert weighted_cross_entropy(right, y) < weighted_cross_entropy(everything, y)


def test_against_the_zero_mask_the_loss_falls_as_less_lesion_is_found():
    y_h = torch.zeros(1, 1, 2, 2)
    # Eq. 2: −log(1 − S).
    assert float(weighted_cross_entropy(torch.full_like(y_h, 0.25).logit(), y_h)) == pytest.approx(-math.log(0.75))


def test_a_certain_segmentor_gives_a_finite_loss():
    assert float(weighted_cross_entropy(image([-500.0]), image([1.0]))) == pytest.approx(500.0)
