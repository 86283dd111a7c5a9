"""A GAN (survey Section 2.1; Goodfellow et al. 2014): images from noise, with any objective of the survey's Table 1.

x: real image; z ~ N(0, I): noise; G: generator; D: discriminator; y: what both are told beside it, if anything.

    min_G max_D  E[log D(x)] + E[log(1 − D(G(z)))]                                       (Eq. 1; Eqs. 2 to 4 replace it)
    min_G max_D  E[log D(x|y)] + E[log(1 − D(G(z|y)|y))]                                                        (Eq. 5)

    D plays:  tell x from G(z)
    G plays:  make D take G(z) for real

y is a class, whether a lesion is present (Mirza and Osindero 2014), or the lesion's mask. Joint synthesis makes the
mask instead of being given one: x is then image and mask (Beers et al. 2018, survey Section 5.1).

Against mode collapse (survey Section 2.1): minibatch discrimination, a part of D (`MinibatchDiscrimination`), and the
unrolled discriminator (Metz et al. 2017): G plays against D as it will be after K steps of its own,

    θ_k+1 = θ_k − η ∂L_D(θ_k)/∂θ_k,   G minimises L_G(θ_K)                                         (Metz, Section 2.2)

with the gradient through all K steps, while D itself takes its usual step.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline import objectives
from pipeline.methods.adversarial import check_scores, discriminator_terms
from pipeline.methods.base import Batch, Player, Shared, Terms, every
from pipeline.networks.dcgan import CONDITIONS, Condition, class_of, with_class, with_maps


class GAN:
    """Generator of images from noise, and a discriminator.

    Args:
        generator: G, noise (B, latent), with `with_class` or a mask where it is conditioned, to images (B, C, H, W) in
            [0, 1]; C is 2 for joint synthesis, else 1.
        discriminator: D, images with what they are conditioned on as further channels, to linear scores (B, 1).
        latent: numbers of noise.
        objective: by name or as an object.
        critic_steps: steps of D for each step of G.
        condition: y of Eq. 5: `none`; `class`: whether a slice's lesion mask has a pixel; `mask`: the mask itself.
        joint: make image and lesion mask.
        unroll: K, steps of D that G looks ahead; 0 does not.
        unroll_rate: η, of these steps.

    Raises:
        ValueError: if a value is out of range, or two do not go together.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent: int,
        objective: objectives.Objective | str = "non_saturating",
        critic_steps: int = 1,
        condition: Condition = "none",
        joint: bool = False,
        unroll: int = 0,
        unroll_rate: float = 0.1,
    ) -> None:
        self.networks = {"generator": generator, "discriminator": discriminator}
        self.exports = {"generator": generator}
        self.objective = objectives.objective(objective)
        self.latent, self.condition, self.joint = latent, condition, joint
        self.unroll, self.unroll_rate = unroll, unroll_rate
        self._check()
        self.players = (
            Player(
                "discriminator",
                ("discriminator",),
                self.discriminate,
                after_step=lambda: self.objective.constrain(discriminator),
            ),
            Player("generator", ("generator",), self.generate, every(critic_steps)),
        )

    def _check(self) -> None:
        discriminator = self.networks["discriminator"]
        check_scores(self.objective, discriminator)
        if self.condition not in CONDITIONS:
            raise ValueError(f"condition is one of {', '.join(CONDITIONS)}, found {self.condition!r}")
        if self.joint and self.condition == "mask":
            raise ValueError("a mask is given or made, found the condition 'mask' with joint; take one of the two")
        if getattr(discriminator, "ties_samples", False) and isinstance(self.objective, objectives.WassersteinGP):
            raise ValueError(
                "a gradient penalty is one of each sample by itself, found a discriminator with batch norm or "
                "minibatch discrimination; set discriminator_norm to none or instance and minibatch_kernels to 0"
            )
        if self.unroll < 0 or not 0 < self.unroll_rate < math.inf:
            raise ValueError(f"unroll is 0 or more steps of a rate above 0, found {self.unroll} of {self.unroll_rate}")
        if self.unroll and isinstance(self.objective, objectives.Wasserstein):
            raise ValueError(
                "an unrolled discriminator has weights that nothing clips, found the objective wasserstein; take "
                "wasserstein_gp"
            )

    def draw(self, batch: Batch) -> Tensor:
        """Noise z ~ N(0, I), shape (B, latent), one for each image of the batch."""
        image = batch["image"]
        # Drawn on the CPU: one sequence on every device, and the one random state that every checkpoint restores.
        return torch.randn(len(image), self.latent).to(image)

    def make(self, noise: Tensor, batch: Batch) -> Tensor:
        """G(z|y), with y of the batch."""
        given = [noise]
        if self.condition == "class":
            given = [with_class(noise, class_of(batch["mask"]))]
        elif self.condition == "mask":
            given = [noise, batch["mask"]]
        made: Tensor = self.networks["generator"](*given)
        return made

    def real(self, batch: Batch) -> Tensor:
        """x: the images, with their masks behind them in joint synthesis."""
        return torch.cat((batch["image"], batch["mask"]), dim=1) if self.joint else batch["image"]

    def judged(self, x: Tensor, batch: Batch) -> Tensor:
        """What D sees of x given y of the batch."""
        if self.condition == "mask":
            return torch.cat((x, batch["mask"]), dim=1)
        return with_maps(x, class_of(batch["mask"])) if self.condition == "class" else x

    def forward(self, batch: Batch) -> Shared:
        """Noise z, and G(z|y), which both players need."""
        noise = self.draw(batch)
        return {"z": noise, "x_s": self.make(noise, batch)}

    def discriminate(self, batch: Batch, shared: Shared) -> Terms:
        """D plays."""
        D = self._of(batch, self.networks["discriminator"])
        return discriminator_terms(self.objective, D, self.real(batch), shared["x_s"], "gan", apart=True)

    def generate(self, batch: Batch, shared: Shared) -> Terms:
        """G plays."""
        D = self._unrolled(batch, shared["x_s"]) if self.unroll else self.networks["discriminator"]
        return {"gan": self.objective.generator(self._of(batch, D)(shared["x_s"]))}

    def _of(self, batch: Batch, D: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """D(·|y)."""
        return lambda x: D(self.judged(x, batch))

    def _unrolled(self, batch: Batch, x_s: Tensor) -> Callable[[Tensor], Tensor]:
        """D after K steps against these images; its weights depend on them, and so on G."""
        network, x = self.networks["discriminator"], self.real(batch)
        state: dict[str, Any] = {name: buffer.clone() for name, buffer in network.named_buffers()}
        weights = {name: weight.detach().clone().requires_grad_() for name, weight in network.named_parameters()}
        for _ in range(self.unroll):
            D = self._of(batch, _with(network, {**state, **weights}))
            loss = self.objective.discriminator(D(x), D(x_s))
            penalty = self.objective.penalty(D, x, x_s)
            gradients = torch.autograd.grad(
                loss if penalty is None else loss + penalty, list(weights.values()), create_graph=True
            )
            weights = {
                name: weight - self.unroll_rate * gradient
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            }
        return _with(network, {**state, **weights})


def _with(network: nn.Module, weights: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """A network with other weights."""
    return lambda x: functional_call(network, weights, (x,))
