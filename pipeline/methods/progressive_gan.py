"""Progressive growing of a GAN (Karras et al. 2018, Section 2; survey, Section 2.4).

Both networks start at a few pixels a side. Each next resolution is faded in and then held, and real images are shown as
detailed as the generated ones are. Half of the resolutions' steps fade, half hold; the coarsest only holds.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline import objectives
from pipeline.methods.base import Batch, Shared
from pipeline.methods.gan import GAN
from pipeline.networks.dcgan import Condition
from pipeline.networks.progressive import ProgressiveDiscriminator, ProgressiveGenerator


class Growth(nn.Module):
    """How far a training has come, kept with the networks in its checkpoint.

    Args:
        finest: index of the finest resolution, counted from 0.
        iterations: until it is held for the rest of the training; 2 · finest + 1 phases of the same length.
    """

    iteration: Tensor

    def __init__(self, finest: int, iterations: int) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}, expected at least 1")
        self.finest, self.iterations = finest, iterations
        self.register_buffer("iteration", torch.tensor(0))

    def advance(self) -> None:
        """One more iteration is done."""
        self.iteration += 1

    @property
    def grown(self) -> float:
        """g, from 0 to `finest`; between two whole numbers the higher one is faded in."""
        phase, into = divmod(int(self.iteration) * (2 * self.finest + 1) / self.iterations, 1)
        held = phase % 2 == 0
        return min(phase / 2 if held else (phase - 1) / 2 + into, float(self.finest))


class ProgressiveGAN(GAN):
    """A GAN whose networks grow.

    Args:
        generator: G.
        discriminator: D, of the same resolutions.
        latent: numbers of noise.
        iterations: of the whole training; they are spread evenly over fading and holding.
        objective: as of `GAN`; so are
        critic_steps,
        condition and
        joint.
    """

    def __init__(
        self,
        generator: ProgressiveGenerator,
        discriminator: ProgressiveDiscriminator,
        latent: int,
        iterations: int,
        objective: objectives.Objective | str = "non_saturating",
        critic_steps: int = 1,
        condition: Condition = "none",
        joint: bool = False,
    ) -> None:
        super().__init__(generator, discriminator, latent, objective, critic_steps, condition, joint)
        self.G, self.D = generator, discriminator
        self.growth = Growth(generator.finest, iterations)
        self.networks["growth"] = self.growth
        judge, make = self.players
        self.players = (replace(judge, after_step=self._then_advance(judge.after_step)), make)

    def _then_advance(self, after_step: Callable[[], None] | None) -> Callable[[], None]:
        def step() -> None:
            if after_step is not None:
                after_step()
            self.growth.advance()

        return step

    def real(self, batch: Batch) -> Tensor:
        """x, as detailed as the generated images are."""
        return self.D.shown(super().real(batch))

    def forward(self, batch: Batch) -> Shared:
        """Grow, then z and G(z)."""
        for network in (self.G, self.D):
            network.grow(self.growth.grown)
        return super().forward(batch)
