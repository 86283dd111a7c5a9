"""The conditional GAN: healthy or not is all that counts, unless it is self-regularised.

G(x) = 0.5 x + 0.1, D(x) = 2 x − 0.3.
"""

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import ConditionalGAN


class Affine(nn.Module):
    def __init__(self, slope: float, shift: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))
        self.shift = shift

    def forward(self, image: Tensor) -> Tensor:
        return self.slope * image + self.shift


def method() -> ConditionalGAN:
    return ConditionalGAN(Affine(0.5, 0.1), Affine(2.0, -0.3))


def batch() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {key: torch.rand(3, 1, 2, 2, generator=random) for key in ("image", "healthy")}


def test_the_translation_is_shared():
    data = batch()
    assert set(method().forward(data)) == {"x_s"}
    torch.testing.assert_close(method().forward(data)["x_s"], 0.5 * data["image"] + 0.1)


def test_d_tells_healthy_images_from_translated_ones():
    plays, data = method(), batch()
    terms = plays.discriminate(data, plays.forward(data))
    real, fake = 2 * data["healthy"] - 0.3, 2 * (0.5 * data["image"] + 0.1) - 0.3
    assert list(terms) == ["gan"]
    torch.testing.assert_close(terms["gan"], ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2)


def test_g_wants_its_translation_taken_for_healthy():
    plays, data = method(), batch()
    terms = plays.translate(data, plays.forward(data))
    fake = 2 * (0.5 * data["image"] + 0.1) - 0.3
    torch.testing.assert_close(terms["gan"], ((fake - 1) ** 2).mean() / 2)


def test_nothing_holds_the_output_to_its_input():
    plays, data = method(), batch()
    x_s = plays.forward(data)["x_s"]
    terms = plays.translate(data, {"x_s": x_s})
    assert list(terms) == ["gan"]
    # The loss does not know the input, and somebody else's healthy brain would do as well.
    torch.testing.assert_close(plays.translate({}, {"x_s": x_s}), terms)
    torch.testing.assert_close(plays.translate(data, {"x_s": x_s.roll(1, 0)}), terms)


def test_self_regularisation_holds_it_to_its_input():
    plays, data = ConditionalGAN(Affine(0.5, 0.1), Affine(2.0, -0.3), lambda_self=3.0), batch()
    terms = plays.translate(data, plays.forward(data))
    assert list(terms) == ["gan", "self"]
    torch.testing.assert_close(terms["gan"], method().translate(data, plays.forward(data))["gan"])
    torch.testing.assert_close(terms["self"], 3 * (0.1 - 0.5 * data["image"]).abs().mean())


def test_no_mask_is_read():
    data = batch()
    assert set(data) == {"image", "healthy"}
    plays = method()
    for player in plays.players:
        assert all(value.isfinite() for value in player.loss(data, plays.forward(data)).values())


def test_each_player_moves_its_own_network():
    plays, data = method(), batch()
    generator, discriminator = plays.networks["generator"], plays.networks["discriminator"]
    plays.discriminate(data, plays.forward(data))["gan"].backward()
    assert generator.slope.grad is None
    assert discriminator.slope.grad is not None
    plays.translate(data, plays.forward(data))["gan"].backward()
    assert generator.slope.grad is not None
    assert [(player.name, player.networks) for player in plays.players] == [
        ("discriminator", ("discriminator",)),
        ("generator", ("generator",)),
    ]


def test_d_plays_against_the_generator_at_each_step_and_g_less_often_if_asked():
    discriminator, generator = ConditionalGAN(nn.Identity(), nn.Identity(), critic_steps=4).players
    assert all(discriminator.plays(iteration) for iteration in range(9))
    assert [iteration for iteration in range(9) if generator.plays(iteration)] == [3, 7]


def test_users_run_g_and_there_is_no_way_back():
    plays = method()
    assert plays.exports == {"healthy": plays.networks["generator"]}


@pytest.mark.parametrize("objective", ["hinge", "wasserstein"])
def test_d_and_g_play_for_the_objective_that_is_asked_for(objective):
    plays, data = ConditionalGAN(Affine(0.5, 0.1), Affine(2.0, -0.3), objective=objective), batch()
    fake = 2 * (0.5 * data["image"] + 0.1) - 0.3
    torch.testing.assert_close(plays.translate(data, plays.forward(data))["gan"], -fake.mean())
