"""The adversarial objectives of the survey's Table 1 (Wolterink et al. 2018), and GenSeg's hinge: each one object.

x: real image, x̂: fake image, D(·): a score, the linear output of the discriminator. Objectives that need a probability
apply the sigmoid σ themselves. Scores may have any shape, one number a sample or a map of patches; E is the mean over
all of them. Each loss is minimised by its player.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, relu


def _at_least_float32(values: Tensor) -> Tensor:
    # Under autocast scores and images come in half precision, where the square of a score of 300 overflows.
    return values.to(torch.promote_types(values.dtype, torch.float32))


class Objective(ABC):
    """What discriminator and generator play for: one row of Table 1.

    A row is three functions of a score: what a real one and a fake one cost the discriminator, and what a fake one
    costs the generator. Losses are computed in float32 at least, whatever the scores come in.
    """

    @abstractmethod
    def _real_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]: ...

    @abstractmethod
    def _fake_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]: ...

    @abstractmethod
    def _generator_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]: ...

    def discriminator(self, real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """The discriminator's loss, without the penalty.

        Args:
            real: D(x), any shape.
            fake: D(x̂) of images detached from the generator, any shape.

        Returns:
            A scalar: the mean over the real scores plus the mean over the fake ones.
        """
        return self._real_cost(_at_least_float32(real)).mean() + self._fake_cost(_at_least_float32(fake)).mean()

    def generator(self, fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
        """The generator's loss.

        Args:
            fake: D(x̂), any shape.

        Returns:
            A scalar: the mean over the scores.
        """
        return self._generator_cost(_at_least_float32(fake)).mean()

    def penalty(
        self,
        discriminator: nn.Module | Callable[[Tensor], Tensor],
        real: Float[Tensor, "..."],
        fake: Float[Tensor, "..."],
    ) -> Float[Tensor, ""] | None:
        """A weighted scalar to add to the discriminator's loss, or None where the objective has none.

        Args:
            discriminator: D, from images to scores.
            real: x, images, shape (B, ...).
            fake: x̂, images, same shape.
        """
        del discriminator, real, fake
        return None

    def constrain(self, discriminator: nn.Module) -> None:
        """Hold the discriminator's weights where the objective needs them; called after each of its steps.

        Args:
            discriminator: D, changed in place.
        """
        del discriminator


class GAN(Objective):
    """The original minimax game (survey Table 1, GAN, and Eq. 1; Goodfellow et al. 2014).

        D: −E[log σ(D(x))] − E[log(1 − σ(D(x̂)))]
        G: E[log(1 − σ(D(x̂)))]

    Both players have one value function: against the best discriminator the generator minimises the Jensen-Shannon
    divergence. But its gradient with respect to a score is −σ(D(x̂)), which vanishes when the discriminator recognises
    fakes (survey Fig. 2). Choose it as the reference that the others improve on.
    """

    def _real_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return -logsigmoid(score)

    def _fake_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        # 1 − σ(s) = σ(−s), which loses no digits where σ(s) is close to 1.
        return -logsigmoid(-score)

    def _generator_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return logsigmoid(-score)


class NonSaturating(GAN):
    """GAN-MA: the generator maximises log σ(D(x̂)) (survey Table 1, GAN-MA, and Eq. 2; Goodfellow et al. 2014).

        D: −E[log σ(D(x))] − E[log(1 − σ(D(x̂)))]
        G: −E[log σ(D(x̂))]

    The discriminator of GAN, and a generator whose gradient with respect to a score, −(1 − σ(D(x̂))), is largest when
    the discriminator recognises fakes. Choose it over GAN wherever images are made.
    """

    def _generator_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return -logsigmoid(score)


class LeastSquares(Objective):
    """Least squares (survey Table 1, LSGAN; Mao et al. 2017; the adversarial terms of PHS-GAN).

        D: ½ E[(D(x) − 1)²] + ½ E[D(x̂)²]
        G: ½ E[(D(x̂) − 1)²]

    Both players carry the ½, as in PHS-GAN and in Mao et al.; in the survey neither does, so its losses are twice
    these. Every fake is pulled to a score of 1, the more the further away it is. Choose it for image translation
    (PHS-GAN, CycleGAN, ANT-GAN): stable with one step of each player and without a penalty.
    """

    def _real_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return (score - 1).square() / 2

    def _fake_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return score.square() / 2

    def _generator_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return (score - 1).square() / 2


class Hinge(Objective):
    """Hinge (GenSeg Eq. 12, whose printed signs are mended here; Lim and Ye 2017).

        D: E[max(0, 1 − D(x))] + E[max(0, 1 + D(x̂))]
        G: −E[D(x̂)]

    A score that is right by a margin of 1 no longer moves the discriminator, so it works on the images it still
    mistakes. Choose it together with spectral normalisation of the discriminator, as GenSeg does.
    """

    def _real_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return relu(1 - score)

    def _fake_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return relu(1 + score)

    def _generator_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return -score


class Wasserstein(Objective):
    """Wasserstein distance with clipped weights (survey Table 1, WGAN, and Eq. 3; Arjovsky et al. 2017).

        D: −E[D(x)] + E[D(x̂)], each weight held in [−c, c]
        G: −E[D(x̂)]

    The critic's loss estimates, up to a factor and its sign, the earth mover's distance between real and fake images.
    It has a gradient where the two are disjoint and falls as images improve. The critic takes several steps for each of
    the generator's. Choose it to reproduce WGAN; otherwise `WassersteinGP`, since clipping wastes most of the critic.

    Args:
        clip: c.

    Raises:
        ValueError: if `clip` is not a number above 0.
    """

    def __init__(self, clip: float = 0.01) -> None:
        if not 0 < clip < math.inf:
            raise ValueError(f"clip must be a number above 0 (Arjovsky et al. 2017: 0.01), found {clip}")
        self.clip = clip

    def _real_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return -score

    def _fake_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return score

    def _generator_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return -score

    def constrain(self, discriminator: nn.Module) -> None:
        """Clip each weight of the critic to [−c, c], in place."""
        with torch.no_grad():
            for weight in discriminator.parameters():
                weight.clamp_(-self.clip, self.clip)


class WassersteinGP(Objective):
    """Wasserstein distance with gradient penalty (survey Table 1, WGAN-GP, and Eq. 4; Gulrajani et al. 2017).

        D: −E[D(x)] + E[D(x̂)] + λ E[(‖∇D(x̃)‖₂ − 1)²]
        G: −E[D(x̂)]

    x̃ lies at a random place on the line between a real and a fake image. The critic takes several steps for each of the
    generator's, and must not normalise over the batch, since the penalty is one of each sample by itself. Choose it
    where the fakes are far from the real images or their diversity matters (VA-GAN), and the time for the penalty's
    second backward pass is there.

    Args:
        weight: λ.

    Raises:
        ValueError: if `weight` is not a number above 0.
    """

    def __init__(self, weight: float = 10.0) -> None:
        if not 0 < weight < math.inf:
            raise ValueError(f"weight must be a number above 0 (Gulrajani et al. 2017: 10), found {weight}")
        self.weight = weight

    def _real_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return -score

    def _fake_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return score

    def _generator_cost(self, score: Float[Tensor, "*scores"]) -> Float[Tensor, "*scores"]:
        return -score

    def penalty(
        self,
        discriminator: nn.Module | Callable[[Tensor], Tensor],
        real: Float[Tensor, "..."],
        fake: Float[Tensor, "..."],
    ) -> Float[Tensor, ""]:
        """λ E[(‖∇D(x̃)‖₂ − 1)²], x̃ = ε x + (1 − ε) x̂, with one ε ~ U[0, 1] for each sample.

        Two-sided, the norm over all pixels of a sample. Where D gives a map of scores, their mean is the sample's
        score, as it is in the losses. Only D receives gradients; autocast is off within, since half precision is
        too coarse for the derivative of a derivative.

        Args:
            discriminator: D, from images to scores, shape (B, ...).
            real: x, images, shape (B, ...).
            fake: x̂, images, same shape.

        Raises:
            ValueError: if the shapes differ.
        """
        if real.shape != fake.shape:
            raise ValueError(
                f"the gradient penalty pairs each real image with a fake one, so both need the same shape, found "
                f"{tuple(real.shape)} and {tuple(fake.shape)}"
            )
        x, x_fake = _at_least_float32(real.detach()), _at_least_float32(fake.detach())
        # Drawn on the CPU: one sequence on every device, and the one random state that every checkpoint restores.
        epsilon = torch.rand(len(x), *[1] * (x.ndim - 1)).to(x)
        between = torch.lerp(x_fake, x, epsilon).requires_grad_()
        with torch.autocast(x.device.type, enabled=False):
            scores = discriminator(between).reshape(len(x), -1).mean(1)
            (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
            norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
            penalty: Tensor = self.weight * (norm - 1).square().mean()
            return penalty


OBJECTIVES: dict[str, type[Objective]] = {
    "gan": GAN,
    "non_saturating": NonSaturating,
    "least_squares": LeastSquares,
    "hinge": Hinge,
    "wasserstein": Wasserstein,
    "wasserstein_gp": WassersteinGP,
}


def objective(name_or_object: str | Objective) -> Objective:
    """The objective of that name with its paper's settings, or the given one itself.

    Args:
        name_or_object: a key of `OBJECTIVES`, or an objective.

    Raises:
        ValueError: if there is no objective of that name.
    """
    if isinstance(name_or_object, Objective):
        return name_or_object
    if name_or_object not in OBJECTIVES:
        raise ValueError(f"objective is one of {', '.join(OBJECTIVES)}, found {name_or_object!r}")
    return OBJECTIVES[name_or_object]()
