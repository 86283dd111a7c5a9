"""Autoencoders of healthy images: the losses as they stand in the file's head."""

import math

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import Autoencoder
from pipeline.networks import DCGANGenerator, LatentEncoder, Reconstruction

SIZE = (16, 16)


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(3, 1, *SIZE)


def network(variational: bool = False) -> Reconstruction:
    torch.manual_seed(1)
    return Reconstruction(LatentEncoder(4, SIZE, 2, variational), DCGANGenerator(4, SIZE, filters=2)).eval()


def terms(method: Autoencoder, x: Tensor) -> dict[str, Tensor]:
    (player,) = method.players
    return player.loss({"image": x}, method.forward({"image": x}))


def test_an_autoencoder_s_loss_is_the_mean_squared_error(x) -> None:
    AE = network()
    assert terms(Autoencoder(AE), x).keys() == {"residual"}
    torch.testing.assert_close(terms(Autoencoder(AE), x)["residual"], (AE(x) - x).square().mean())


def test_a_vae_draws_codes_around_their_mean_and_keeps_them_close_to_the_prior(x) -> None:
    VAE = network(variational=True)
    nn.init.zeros_(VAE.encoder.last.weight)
    with torch.no_grad():  # N(0.5, σ²) with σ² = e² for each image and number
        VAE.encoder.last.bias.copy_(torch.tensor([0.5] * 4 + [2.0] * 4))
    torch.manual_seed(2)
    found = terms(Autoencoder(VAE, beta=3.0), x)
    torch.manual_seed(2)
    z = 0.5 + math.e * torch.randn(3, 4)
    torch.testing.assert_close(found["residual"], (VAE.generator(z) - x).square().mean())
    divergence = 4 * (0.25 + math.exp(2) - 1 - 2) / 2
    assert float(found["divergence"].detach()) == pytest.approx(3 * divergence / (16 * 16), rel=1e-5)


@pytest.mark.parametrize("beta", [-1.0, math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(beta) -> None:
    with pytest.raises(ValueError, match="beta is a number of at least 0"):
        Autoencoder(network(), beta)
