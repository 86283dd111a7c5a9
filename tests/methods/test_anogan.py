"""AnoGAN, f-AnoGAN and BiGAN: who plays when, and for what."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.methods import AnoGAN, BiGAN
from pipeline.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    JointDiscriminator,
    LatentEncoder,
    Reconstruction,
    SearchedReconstruction,
)

SIZE = (16, 16)


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"image": torch.rand(4, 1, *SIZE)}


def parts(joint: bool = False) -> tuple[LatentEncoder, DCGANGenerator, Any]:
    torch.manual_seed(1)
    critic = JointDiscriminator(3, SIZE, 2, width=6) if joint else DCGANDiscriminator(SIZE, 2, norm="instance")
    return LatentEncoder(3, SIZE, 2), DCGANGenerator(3, SIZE, 2), critic


def f_anogan(**options: Any) -> AnoGAN:
    return AnoGAN(Reconstruction(*parts(), kappa=2.0), 3, **{"gan_steps": 6, "critic_steps": 2, **options})


def bigan(objective: str) -> BiGAN:
    return BiGAN(Reconstruction(*parts(joint=True)), 3, objective)


def test_f_anogan_s_encoder_plays_when_the_gan_has_done_so() -> None:
    turns = {player.name: [player.plays(iteration) for iteration in range(9)] for player in f_anogan().players}
    assert turns["discriminator"] == [True] * 6 + [False] * 3
    assert turns["generator"] == [False, True] * 3 + [False] * 3
    assert turns["encoder"] == [False] * 6 + [True] * 3


def test_the_encoder_plays_for_pixels_and_for_the_discriminator_s_features(batch) -> None:
    method, x = f_anogan(), batch["image"]
    network = method.exports["healthy"]
    found = method.encode(batch, method.forward(batch))
    made = network.eval()(x)
    features = network.critic.features
    torch.testing.assert_close(found["residual"], (x - made).square().mean())
    torch.testing.assert_close(found["features"], 2 * (features(x) - features(made)).square().mean())


def test_training_the_encoder_leaves_the_statistics_of_the_generator_s_norms(batch) -> None:
    method = f_anogan()
    shared = method.forward(batch)
    before = copy.deepcopy(method.networks["generator"].state_dict())
    method.encode(batch, shared)
    after = method.networks["generator"].state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_anogan_that_searches_has_no_encoder_and_its_gan_plays_on() -> None:
    _, generator, critic = parts()
    method = AnoGAN(SearchedReconstruction(generator, critic, 3, SIZE), 3, "non_saturating", 1, gan_steps=1)
    assert [player.name for player in method.players] == ["discriminator", "generator"]
    assert all(player.plays(50) for player in method.players)


def test_a_bigan_s_discriminator_takes_the_encoder_s_pairs_for_real(batch) -> None:
    method, D = bigan("least_squares"), None
    D = method.critic
    shared = method.forward(batch)
    torch.testing.assert_close(shared["encoded"][:, :256].reshape(4, 1, *SIZE), batch["image"])
    torch.testing.assert_close(shared["encoded"][:, 256:], method.networks["encoder"](batch["image"]))
    found = method.discriminate(batch, shared)["pairs"]
    expected = ((D(shared["encoded"]) - 1).square() / 2).mean() + (D(shared["generated"]).square() / 2).mean()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("objective", ["least_squares", "non_saturating", "hinge"])
def test_generator_and_encoder_play_for_the_reverse_of_each_other(batch, objective) -> None:
    """Where D is sure of both kinds of pair, both pay as much, and in least squares what D would for fooled pairs."""
    method = bigan(objective)
    certain = 1.0 if objective == "least_squares" else 3.0
    scores = {"encoded": certain, "generated": 1 - certain if objective == "least_squares" else -certain}
    method.critic.forward = lambda pairs: torch.full((1, 1), scores[pairs])
    found = method.translate(batch, {"encoded": "encoded", "generated": "generated"})
    torch.testing.assert_close(found["generator"], found["encoder"])
    if objective == "least_squares":
        assert float(found["generator"]) == 0.5


def test_pairs_have_a_gradient_penalty_over_image_and_code(batch) -> None:
    method = bigan("wasserstein_gp")
    assert method.discriminate(batch, method.forward(batch)).keys() == {"pairs", "pairs_penalty"}


def test_networks_that_do_not_make_the_method_are_refused() -> None:
    encoder, generator, critic = parts()
    with pytest.raises(ValueError, match="has no critic"):
        AnoGAN(Reconstruction(encoder, generator), 3)
    with pytest.raises(TypeError, match="DCGANDiscriminator, expected a JointDiscriminator"):
        BiGAN(Reconstruction(encoder, generator, critic), 3)
    with pytest.raises(ValueError, match="at least 1 step"):
        f_anogan(gan_steps=0)
