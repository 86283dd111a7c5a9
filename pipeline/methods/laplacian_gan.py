"""A Laplacian pyramid of GANs (Denton et al. 2015; survey, Section 2.4).

I_k: real image at level k, I_0 the finest, I_K the coarsest; l_k = u(I_{k+1}), its enlargement; h_k = I_k − l_k.

    D_K plays:  tell I_K from G_K(z_K)
    G_K plays:  make D_K take G_K(z_K) for real
    D_k plays:  tell h_k from G_k(z_k, l_k), both beside l_k                                              (Section 3.2)
    G_k plays:  make D_k take G_k(z_k, l_k) for real

Each level learns from real images, whatever the others make: the losses have no term in common, and the players of all
levels take their steps together.
"""

from collections.abc import Callable

from torch import Tensor, nn

from pipeline import objectives
from pipeline.methods.adversarial import discriminator_terms
from pipeline.methods.base import Batch, Shared, Terms
from pipeline.methods.gan import GAN
from pipeline.networks.laplacian import LaplacianDiscriminator, LaplacianGenerator, taken_apart


class LaplacianGAN(GAN):
    """A GAN for each level of a Laplacian pyramid, unconditional but for the level below.

    Args:
        generator: all G_k.
        discriminator: all D_k.
        latent: numbers of noise of all levels together.
        objective: as of `GAN`; so is
        critic_steps.

    Raises:
        ValueError: if the latent is another than the generator's.
    """

    def __init__(
        self,
        generator: LaplacianGenerator,
        discriminator: LaplacianDiscriminator,
        latent: int,
        objective: objectives.Objective | str = "non_saturating",
        critic_steps: int = 1,
    ) -> None:
        super().__init__(generator, discriminator, latent, objective, critic_steps)
        if latent != sum(generator.parts):
            raise ValueError(f"latent is {latent}, expected the {sum(generator.parts)} of the generator")
        self.G, self.D = generator, discriminator

    def forward(self, batch: Batch) -> Shared:
        """What each level makes of noise and, but for the coarsest, of a real image's enlargement."""
        first, *rest = self.draw(batch).split(self.G.parts, dim=1)
        _, pairs = taken_apart(batch["image"], len(self.G.levels))
        made = [G(enlarged, part) for G, (_, enlarged), part in zip(self.G.levels, pairs, rest, strict=True)]
        return {"coarsest": self.G.coarsest(first), **{f"level {n}": h for n, h in enumerate(made)}}

    def discriminate(self, batch: Batch, shared: Shared) -> Terms:
        """All D_k play."""
        coarsest, pairs = taken_apart(batch["image"], len(self.D.levels))
        terms = discriminator_terms(self.objective, self.D.coarsest, coarsest, shared["coarsest"], "coarsest")
        for number, (D, (difference, enlarged)) in enumerate(zip(self.D.levels, pairs, strict=True)):
            terms |= discriminator_terms(
                self.objective,
                _beside(enlarged, D),
                difference,
                shared[f"level {number}"],
                f"level {number}",
            )
        return terms

    def generate(self, batch: Batch, shared: Shared) -> Terms:
        """All G_k play."""
        _, pairs = taken_apart(batch["image"], len(self.D.levels))
        terms = {"coarsest": self.objective.generator(self.D.coarsest(shared["coarsest"]))}
        for number, (D, (_, enlarged)) in enumerate(zip(self.D.levels, pairs, strict=True)):
            terms[f"level {number}"] = self.objective.generator(D(shared[f"level {number}"], enlarged))
        return terms


def _beside(enlarged: Tensor, D: nn.Module) -> Callable[[Tensor], Tensor]:
    """D_k(·, l_k): real and made ones come in one pass, and a penalty's alone, so l_k as often as there are h_k."""
    return lambda h: D(h, enlarged.repeat(len(h) // len(enlarged), 1, 1, 1))
