"""Semi-supervised GAN (survey, Section 5.6 and Fig. 12; Salimans et al. 2016, Section 5): one class more, for fakes.

x, c: image with its class; x′: any image; u ~ N(0, I): noise; G: generator; l(x): K logits of D, f(x): its features.
Of the K + 1 logits one may be fixed; that of the fakes is 0.

    p(k | x) = exp l_k / (1 + Z),  D(x) = Z / (1 + Z),  Z = Σ exp l_k      class k; real, of whatever class

    L_supervised   = −log p(c | x) / D(x)                       cross-entropy among the K classes
    L_unsupervised = −log D(x′) − log(1 − D(G(u)))
    D: L_supervised + λ L_unsupervised
    G: ‖E f(x′) − E f(G(u))‖²                                   feature matching (Section 3.1), mean over the features

D is what is kept, a classifier. Salimans et al. have λ = 1.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, softplus

from pipeline.methods.base import Batch, Player, Shared, Terms, is_labelled
from pipeline.networks import ClassDiscriminator


class SemiSupervisedGAN:
    """A classifier that learns from images without a class too, by telling them from a generator's.

    Args:
        classifier: D, images (B, C, H, W) in [0, 1] to logits (B, K), with `features`.
        generator: G, noise (B, latent) to images (B, C, H, W); None: D learns from what is labelled alone, the control.
        latent: numbers of noise.
        lambda_: λ.

    Raises:
        ValueError: if λ is no number above 0.
    """

    def __init__(
        self,
        classifier: ClassDiscriminator,
        generator: nn.Module | None = None,
        latent: int = 100,
        lambda_: float = 1.0,
    ) -> None:
        if not 0 < lambda_ < math.inf:
            raise ValueError(f"lambda_ must be a number above 0, found {lambda_}")
        self.D, self.G = classifier, generator
        self.latent, self.lambda_ = latent, lambda_
        self.networks: dict[str, nn.Module] = {"classifier": classifier}
        self.exports = {"classifier": classifier}
        self.players: tuple[Player, ...] = (Player("classifier", ("classifier",), self.classify),)
        if generator is not None:
            self.networks["generator"] = generator
            self.players = (*self.players, Player("generator", ("generator",), self.generate))

    def forward(self, batch: Batch) -> Shared:
        """G(u), one for each image."""
        if self.G is None:
            return {}
        image = batch["image"]
        # Drawn on the CPU: one sequence on every device, and the one random state that every checkpoint restores.
        return {"fake": self.G(torch.randn(len(image), self.latent).to(image))}

    def classify(self, batch: Batch, shared: Shared) -> Terms:
        """D plays."""
        x, known = batch["image"], is_labelled(batch)
        fake = shared["fake"].detach() if "fake" in shared else x[:0]
        of_real, of_fake = self.D(torch.cat((x, fake))).split((len(x), len(fake)))
        # Without a label, zero and a gradient of zero for all that the optimiser holds.
        supervised = (
            cross_entropy(of_real[known], batch["class"][known, 0].long()) if known.any() else 0 * of_real.sum()
        )
        terms = {"supervised": supervised}
        if self.G is not None:
            terms["real"] = self.lambda_ * softplus(-_real(of_real)).mean()
            terms["fake"] = self.lambda_ * softplus(_real(of_fake)).mean()
        return terms

    def generate(self, batch: Batch, shared: Shared) -> Terms:
        """G plays."""
        matched = mse_loss(self.D.features(shared["fake"]).mean(dim=0), self.D.features(batch["image"]).mean(dim=0))
        return {"features": matched}


def _real(logits: Tensor) -> Tensor:
    """The logit of being real, log Z."""
    return logits.logsumexp(dim=1)
