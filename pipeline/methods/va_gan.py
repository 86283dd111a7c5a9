"""VA-GAN (Baumgartner et al. 2018): an additive map that turns pathological images into healthy-looking ones.

x_p, x_h: pathological and healthy images, of whatever patients; M: map generator, D: critic.

    y = tanh(x_p + M(x_p))      on images in [−1, 1]             (a property of the generator's network)
    critic:     D(y) − D(x_h) + 10 (‖∇D‖₂ − 1)²                  Wasserstein with gradient penalty
    generator:  −D(y) + λ ‖M(x_p)‖₁,  λ = 100

The critic takes 5 steps for each step of M; 100 before each of the first 25, and before every 100th.
"""

from collections.abc import Callable

from torch import nn

from pipeline import objectives
from pipeline.methods.adversarial import discriminator_terms
from pipeline.methods.base import Batch, Player, Shared, Terms
from pipeline.networks import MapGenerator


class VAGAN:
    """Visual attribution GAN.

    The defaults are the paper's.

    Args:
        generator: M and the image it leads to.
        critic: D, images (B, 1, H, W) to scores.
        objective: by name or as an object.
        lambda_: λ, weight of the mean absolute map.
        critic_steps: steps of D for each step of M.
        thorough_steps: steps of D where it is to come close to its optimum,
        thorough_first: which is before each of so many first steps of M,
        thorough_every: and before every so many-th step.
    """

    def __init__(
        self,
        generator: MapGenerator,
        critic: nn.Module,
        objective: objectives.Objective | str = "wasserstein_gp",
        lambda_: float = 100.0,
        critic_steps: int = 5,
        thorough_steps: int = 100,
        thorough_first: int = 25,
        thorough_every: int = 100,
    ) -> None:
        self.generator = generator
        self.networks: dict[str, nn.Module] = {"generator": generator, "critic": critic}
        self.exports = {"healthy": generator}
        self.objective = objectives.objective(objective)
        self.lambda_ = lambda_
        self.players = (
            Player("critic", ("critic",), self.discriminate, after_step=lambda: self.objective.constrain(critic)),
            Player(
                "generator",
                ("generator",),
                self.translate,
                critic_schedule(critic_steps, thorough_steps, thorough_first, thorough_every),
            ),
        )

    def forward(self, batch: Batch) -> Shared:
        """The map and the image it leads to."""
        effect = self.generator.map(batch["image"])
        return {"map": effect, "y": self.generator.apply_map(batch["image"], effect)}

    def discriminate(self, batch: Batch, shared: Shared) -> Terms:
        """D plays."""
        return discriminator_terms(self.objective, self.networks["critic"], batch["healthy"], shared["y"], "critic")

    def translate(self, batch: Batch, shared: Shared) -> Terms:
        """M plays."""
        del batch
        return {
            "gan": self.objective.generator(self.networks["critic"](shared["y"])),
            "map": self.lambda_ * shared["map"].abs().mean(),
        }


def critic_schedule(steps: int, thorough: int, first: int, every: int) -> Callable[[int], bool]:
    """When the generator plays, if the critic plays at each iteration (counted from 0).

    Args:
        steps: of the critic before an ordinary step of the generator.
        thorough: before a thorough one.
        first: how many steps of the generator are thorough at the start.
        every: after those, which are: the generator's steps are counted from 0, and its multiples of this are.

    Example:
        >>> plays = critic_schedule(steps=2, thorough=4, first=2, every=3)
        >>> [iteration for iteration in range(20) if plays(iteration)]
        [3, 7, 9, 13, 15, 17]
    """
    if min(steps, thorough, every) < 1 or first < 0:
        raise ValueError(
            f"the critic takes at least 1 step for each of the generator, found {steps}, {thorough}, {first}, {every}"
        )
    last, played = -1, set[int]()

    def plays(iteration: int) -> bool:
        nonlocal last
        while last < iteration:
            step = len(played)
            last += thorough if step < first or step % every == 0 else steps
            played.add(last)
        return iteration in played

    return plays
