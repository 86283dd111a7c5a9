"""InfoGAN: codes whose mutual information with the image is part of the game (Chen et al. 2016; survey, Section 2.2).

c: codes, some of the noise; Q(c | x): a network that reads them from an image; L_I ≤ I(c; G(z, c)).

    L_I(G, Q) = E_c,x~G(z,c)[log Q(c | x)] + H(c)                                                               (Eq. 5)
    min_G,Q max_D  V(D, G) − λ L_I(G, Q)                                                                        (Eq. 6)

    D plays:      as in a GAN
    G, Q play:    make D take G(z, c) for real, and Q read c
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from pipeline import objectives
from pipeline.methods.base import Batch, Player, Shared, Terms, every
from pipeline.methods.gan import GAN
from pipeline.networks.codes import CodedGenerator, CodeReader


class InfoGAN(GAN):
    """A GAN, unconditional, with codes that can be read from its images.

    Q's own part is a head on the discriminator's features. log Q is that of a categorical distribution and of Gaussians
    of unit variance; H(c) is constant.

    Args:
        generator: G, with the number of its categories.
        discriminator: D, with `features` and `score` of them.
        reader: Q's head, for as many categories.
        latent: numbers of noise, the codes included.
        numbers: codes that are numbers, which follow the category in the noise.
        weight: λ.
        objective: as of `GAN`; so is
        critic_steps.

    Raises:
        ValueError: if there is no code, or less noise than codes.
    """

    def __init__(
        self,
        generator: CodedGenerator,
        discriminator: nn.Module,
        reader: CodeReader,
        latent: int,
        numbers: int = 2,
        weight: float = 1.0,
        objective: objectives.Objective | str = "non_saturating",
        critic_steps: int = 1,
    ) -> None:
        super().__init__(generator, discriminator, latent, objective, critic_steps)
        self.categories, self.numbers, self.weight = generator.categories, numbers, weight
        if not 0 < self.categories + numbers <= latent:
            raise ValueError(
                f"found {self.categories} categories and {numbers} further codes in a latent of {latent}, expected at "
                "least one code and no more than the latent holds"
            )
        self.networks["reader"] = reader
        of_discriminator, _ = self.players
        self.players = (
            of_discriminator,
            Player("generator", ("generator", "reader"), self.generate, every(critic_steps)),
        )

    def generate(self, batch: Batch, shared: Shared) -> Terms:
        """G and Q play."""
        D: Any = self.networks["discriminator"]
        features = D.features(self.judged(shared["x_s"], batch))
        return {"gan": self.objective.generator(D.score(features)), **self._read(features, shared["z"])}

    def _read(self, features: Tensor, noise: Tensor) -> Terms:
        """−λ log Q(c | x), but for a constant."""
        logits, means = self.networks["reader"](features)
        terms: Terms = {}
        if self.categories:
            category = noise[:, : self.categories].argmax(dim=1)
            terms["category"] = self.weight * functional.cross_entropy(logits, category)
        if self.numbers:
            numbers = noise[:, self.categories : self.categories + self.numbers]
            terms["numbers"] = self.weight * (means - numbers).square().sum(dim=1).mean() / 2
        return terms
