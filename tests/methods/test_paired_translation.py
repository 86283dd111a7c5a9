"""Paired translation: the three cases of λ, pairs or images for D, features. G(x) = 0.5 x + 0.1 of one channel."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import PairedTranslation


class G(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5))

    def forward(self, image: Tensor) -> Tensor:
        return self.slope * image[:, :1] + 0.1


class Weighed(nn.Module):
    """The sum of the channels, each weighed by its number from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(2.0))

    def forward(self, image: Tensor) -> Tensor:
        weights = torch.arange(1.0, image.shape[1] + 1)[:, None, None]
        return self.slope * (weights * image).sum(dim=1, keepdim=True)


class Features(nn.Module):
    """Two layers of features; it notes whether it was in training."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, image: Tensor) -> list[Tensor]:
        assert not self.training
        return [self.scale * image, image.mean(dim=(1, 2, 3))]


def batch(channels: int = 2) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(3, channels, 4, 4, generator=random),
        "target_image": torch.rand(3, 1, 4, 4, generator=random),
    }


def terms(method: PairedTranslation, data: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    shared = method.forward(data)
    return {player.name: player.loss(data, shared) for player in method.players}


def test_d_judges_pairs_and_g_is_held_to_the_target() -> None:
    data = batch()
    played = terms(PairedTranslation(G(), Weighed(), "least_squares", lambda_gan=2.0, lambda_l1=7.0), data)
    (first, second), y = data["image"].split(1, dim=1), data["target_image"]
    made = 0.5 * first + 0.1
    real, fake = (2 * (first + 2 * second + 3 * image) for image in (y, made))
    assert list(played) == ["discriminator", "generator"]
    assert list(played["generator"]) == ["gan", "l1"]
    torch.testing.assert_close(played["discriminator"]["gan"], ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2)
    torch.testing.assert_close(played["generator"]["gan"], 2 * ((fake - 1) ** 2).mean() / 2)
    torch.testing.assert_close(played["generator"]["l1"], 7 * (made - y).abs().mean())


def test_without_condition_d_sees_images_alone() -> None:
    data = batch()
    played = terms(PairedTranslation(G(), Weighed(), "wasserstein", conditional=False), data)
    fake = 2 * (0.5 * data["image"][:, :1] + 0.1)
    torch.testing.assert_close(played["generator"]["gan"], -fake.mean())
    torch.testing.assert_close(played["discriminator"]["gan"], fake.mean() - 2 * data["target_image"].mean())


def test_l1_alone_needs_no_discriminator_and_adversarial_alone_knows_no_distance() -> None:
    regression = PairedTranslation(G(), lambda_gan=0.0)
    assert set(terms(regression, batch())) == {"generator"}
    assert set(regression.networks) == {"generator"}
    assert list(terms(PairedTranslation(G(), Weighed(), lambda_l1=0.0), batch())["generator"]) == ["gan"]


def test_features_are_compared_layer_by_layer_and_trained_by_nobody() -> None:
    method, data = PairedTranslation(G(), lambda_gan=0.0, features=Features(), lambda_features=4.0), batch()
    method.networks["features"].train()  # as the engine does
    made, y = method.forward(data)["G(x)"], data["target_image"]
    first = (9 * (made - y) ** 2).mean()
    second = ((made.mean(dim=(1, 2, 3)) - y.mean(dim=(1, 2, 3))) ** 2).mean()
    torch.testing.assert_close(terms(method, data)["generator"]["features"], 4 * (first + second) / 2)
    assert [player.networks for player in method.players] == [("generator",)]


def test_g_plays_less_often_where_the_critic_takes_several_steps() -> None:
    discriminator, generator = PairedTranslation(G(), Weighed(), critic_steps=3).players
    assert all(discriminator.plays(iteration) for iteration in range(9))
    assert [iteration for iteration in range(9) if generator.plays(iteration)] == [2, 5, 8]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lambda_gan": 0.0, "lambda_l1": 0.0}, "not all 0"),
        ({"lambda_gan": 0.0, "lambda_l1": -1.0}, "0 or more"),
        ({}, "lambda_gan is 1.0 without discriminator"),
        ({"lambda_gan": 0.0, "discriminator": Weighed()}, "lambda_gan is 0.0 with discriminator"),
        ({"lambda_gan": 0.0, "lambda_features": 1.0}, "lambda_features is 1.0 without features"),
    ],
)
def test_weights_that_leave_nothing_to_learn_or_lack_their_network_are_refused(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        PairedTranslation(G(), **options)
