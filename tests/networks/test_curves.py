"""Generator and critic of curves."""

import pytest
import torch

from pipeline.networks.curves import CurveCritic, CurveGenerator


def test_a_latent_becomes_a_curve_and_a_curve_a_score() -> None:
    curves = CurveGenerator(5, 64, channels=4, filters=6)(torch.randn(3, 5))
    assert curves.shape == (3, 4, 64)
    assert CurveCritic(64, channels=4, filters=6)(curves).shape == (3, 1)


def test_the_critic_scores_each_curve_by_itself_and_sees_single_points() -> None:
    torch.manual_seed(0)
    critic, curves = CurveCritic(16, filters=6), torch.randn(3, 4, 16, requires_grad=True)
    critic(curves)[1].sum().backward()
    assert curves.grad is not None
    assert curves.grad[0].abs().max() == curves.grad[2].abs().max() == 0
    assert (curves.grad[1].abs() > 0).all()


@pytest.mark.parametrize("points", [8, 24, 63])
def test_points_that_8_is_not_doubled_to_are_refused(points: int) -> None:
    for network in (CurveGenerator, CurveCritic):
        with pytest.raises(ValueError, match=f"points is {points}, expected 8 doubled"):
            network(points=points)
