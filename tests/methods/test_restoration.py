"""Restoration: who plays when, and for what. G(x) = 0.5 x, D(x) = 2 x, φ(x) = 3 x, ψ(x) = 0.25 x."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import Restoration


class Times(nn.Module):
    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, image: Tensor) -> Tensor:
        return self.slope * image


def batch() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {key: torch.rand(2, 1, 4, 4, generator=random) for key in ("image", "target_image")}


def perceptual(**options) -> Restoration:
    settings = {"objective": "wasserstein", "lambda_l1": 0.0, "lambda_features": 2.0, "conditional": False}
    return Restoration(Times(0.5), Times(2.0), Times(3.0), Times(0.25), **{**settings, **options})


def test_the_autoencoder_learns_clean_images_before_the_others_play() -> None:
    method, data = perceptual(feature_steps=4, critic_steps=2), batch()
    played = {player.name: [i for i in range(10) if player.plays(i)] for player in method.players}
    assert played == {"features": [0, 1, 2, 3], "discriminator": [4, 5, 6, 7, 8, 9], "generator": [5, 7, 9]}
    y = data["target_image"]
    torch.testing.assert_close(method.perceive(data, {}), {"autoencoder": ((0.75 * y - y) ** 2).mean()})


def test_g_plays_for_the_critic_and_for_what_the_encoder_perceives() -> None:
    method, data = perceptual(lambda_gan=0.1), batch()
    terms = method.translate(data, method.forward(data))
    made, y = 0.5 * data["image"], data["target_image"]
    assert list(terms) == ["gan", "features"]
    torch.testing.assert_close(terms["gan"], -0.1 * (2 * made).mean())
    torch.testing.assert_close(terms["features"], 2 * ((3 * made - 3 * y) ** 2).mean())


def test_without_perception_and_adversary_it_is_regression() -> None:
    method, data = Restoration(Times(0.5), lambda_gan=0.0, lambda_l1=1.0), batch()
    (player,) = method.players
    assert (player.name, set(method.networks)) == ("generator", {"generator"})
    terms = player.loss(data, method.forward(data))
    torch.testing.assert_close(terms, {"l1": (0.5 * data["image"] - data["target_image"]).abs().mean()})


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: perceptual(feature_steps=0), "at least 1 step"),
        (lambda: Restoration(Times(0.5), Times(2.0), decoder=Times(1.0)), "an encoder and a decoder"),
        (lambda: Restoration(Times(0.5), Times(2.0), Times(1.0), Times(1.0)), "lambda_features is 0.0 with features"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(make, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()
