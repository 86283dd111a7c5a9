"""Autoencoders that learn healthy images alone, and so reconstruct healthy ones: AE and VAE (Kingma and Welling 2014).

x: healthy image; E: encoder, G: decoder.

    AE:   L = ‖x − G(E(x))‖² / n
    VAE:  L = ‖x − G(z)‖² / n + β KL(N(μ, σ²) ‖ N(0, I)) / n,    z = μ + σ ε,  ε ~ N(0, I),  (μ, σ) = E(x)

n: pixels. With β = 2 s² this is 2 s² / n times the negative evidence bound of pixels with noise of deviation s.
What the two cannot reconstruct in an image that is not healthy is an anomaly (Baur et al. 2021).
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from pipeline.methods.base import Batch, Player, Shared, Terms
from pipeline.networks import Reconstruction


class Autoencoder:
    """Reconstruction of healthy images through a code.

    Args:
        network: G ∘ E; with a variational encoder it is a VAE.
        beta: β, of a VAE; the default is that of s = 0.1 of the intensity window.

    Raises:
        ValueError: if the weight is no number of at least 0.
    """

    def __init__(self, network: Reconstruction, beta: float = 0.02) -> None:
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta is a number of at least 0, found {beta}")
        self.network = network
        self.networks = {"reconstruction": network}
        self.exports = {"healthy": network}
        self.beta = beta
        self.players = (Player("autoencoder", ("reconstruction",), self.reconstruct),)

    def forward(self, batch: Batch) -> Shared:
        """Nothing is shared: there is one player."""
        del batch
        return {}

    def reconstruct(self, batch: Batch, shared: Shared) -> Terms:
        """E and G play."""
        del shared
        x, E, G = batch["image"], self.network.encoder, self.network.generator
        if not E.variational:
            return {"residual": mse_loss(G(E(x)), x)}
        mean, log_variance = E.distribution(x)
        # Drawn on the CPU: one sequence on every device, and the one random state that every checkpoint restores.
        epsilon = torch.randn(mean.shape).to(mean)
        z = mean + (log_variance / 2).exp() * epsilon
        divergence = self.beta * _divergence(mean, log_variance).mean() / x[0].numel()
        return {"residual": mse_loss(G(z), x), "divergence": divergence}


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, I)) of each sample."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
