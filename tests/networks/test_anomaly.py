"""What finds an image's nearest relative among those that a generator can make, and how far it is from it."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.networks import (
    AnomalyScore,
    DCGANGenerator,
    JointDiscriminator,
    LatentEncoder,
    Reconstruction,
    SearchedReconstruction,
)

SIZE = (16, 16)


class Level(nn.Module):
    """Makes images of one level: 0.5 and the code."""

    def forward(self, code: Tensor) -> Tensor:
        return (code[:, :1, None, None] + 0.5).expand(-1, 1, *SIZE)


class Ends(nn.Module):
    """A critic whose features are the first and the last pixel."""

    def features(self, image: Tensor) -> Tensor:
        return image.flatten(1)[:, [0, -1]]


class Halving(nn.Module):
    """Encodes the mean of an image, halfway to that of 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.size = list(SIZE)

    def forward(self, image: Tensor) -> Tensor:
        return (image.flatten(1).mean(dim=1, keepdim=True) - 0.5) / 2


def searched(**options) -> SearchedReconstruction:
    return SearchedReconstruction(Level(), Ends(), latent=3, size=SIZE, **{"steps": 80, "rate": 0.05, **options})


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(3, 1, *SIZE)


@pytest.mark.parametrize(("size", "stages"), [((16, 16), 2), ((32, 48), 3)])
def test_an_encoder_halves_to_four_pixels_a_side_and_codes_each_image_by_itself(size, stages) -> None:
    torch.manual_seed(0)
    encoder = LatentEncoder(5, size, filters=2).eval()
    assert sum(isinstance(layer, nn.Conv2d) for layer in encoder.stages) == stages
    batch = torch.rand(3, 1, *size)
    assert encoder(batch).shape == (3, 5)
    torch.testing.assert_close(encoder(batch)[:1], encoder(batch[:1]))


def test_an_encoder_tells_a_brighter_image_from_a_darker_one(images) -> None:
    torch.manual_seed(0)
    encoder = LatentEncoder(5, SIZE, filters=2).eval()
    assert not torch.allclose(encoder(images / 2), encoder(images), atol=2e-3)


def test_a_variational_encoder_s_code_is_the_mean_of_its_distribution(images) -> None:
    encoder = LatentEncoder(5, SIZE, filters=2, variational=True)
    mean, log_variance = encoder.distribution(images)
    assert mean.shape == log_variance.shape == (3, 5)
    torch.testing.assert_close(encoder(images), mean)


def test_an_image_of_another_size_is_reconstructed_at_its_own() -> None:
    network = Reconstruction(LatentEncoder(4, SIZE, filters=2), DCGANGenerator(4, SIZE, filters=2)).eval()
    image = torch.rand(2, 1, 32, 24)
    assert network(image).shape == image.shape


def test_the_score_is_f_anogan_s(images) -> None:
    """Squares, means over pixels and over features, κ between the two."""
    network = Reconstruction(Halving(), Level(), Ends(), kappa=3.0)
    change = images - network(images)
    pixels = change.square().flatten(1).mean(dim=1)
    features = change.flatten(1)[:, [0, -1]].square().mean(dim=1)
    torch.testing.assert_close(network.score(images)[:, 0], pixels + 3 * features)
    torch.testing.assert_close(AnomalyScore(Reconstruction(Halving(), Level()))(images)[:, 0], pixels)


def test_a_joint_discriminator_compares_features_of_images_with_the_same_code(images) -> None:
    torch.manual_seed(0)
    critic = JointDiscriminator(1, SIZE, filters=2, width=6)
    network = Reconstruction(Halving(), Level(), critic, kappa=2.0)
    code, made = Halving()(images), network(images)
    seen = critic.features(critic.pairs(images, code)) - critic.features(critic.pairs(made, code))
    expected = (images - made).square().flatten(1).mean(dim=1) + 2 * seen.square().mean(dim=1)
    torch.testing.assert_close(network.score(images)[:, 0], expected)


def test_a_pair_s_score_depends_on_image_and_code(images) -> None:
    torch.manual_seed(0)
    critic, code = JointDiscriminator(4, SIZE, filters=2, width=6), torch.randn(3, 4)
    scores = critic(critic.pairs(images, code))
    assert scores.shape == (3, 1)
    for other in (critic.pairs(images.flip(0), code), critic.pairs(images, code.flip(0))):
        assert not torch.allclose(critic(other), scores)


def test_the_search_finds_what_the_generator_can_make() -> None:
    x = torch.stack([torch.full((1, *SIZE), level) for level in (0.3, 0.5, 0.8)])
    with torch.inference_mode():  # as predictors run it
        network = searched()
        torch.testing.assert_close(network(x), x, atol=0.02, rtol=0)
        assert network.score(x).shape == (3, 1)


def test_the_loss_weighs_pixels_and_features_as_anogan_does(images) -> None:
    network, made = searched(weight=0.25), torch.full_like(images, 0.5)
    change = (images - made).abs().flatten(1)
    expected = 0.75 * change.sum(dim=1) + 0.25 * change[:, [0, -1]].sum(dim=1)
    torch.testing.assert_close(network.loss(images, made)[:, 0], expected)


def test_each_image_is_searched_for_by_itself_and_has_one_result(images) -> None:
    network = searched(steps=5)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


@pytest.mark.parametrize("options", [{"steps": 0}, {"weight": 1.5}])
def test_a_search_without_steps_or_with_a_weight_that_is_no_share_is_refused(options) -> None:
    with pytest.raises(ValueError, match="at least 1 step and a weight"):
        searched(**options)
