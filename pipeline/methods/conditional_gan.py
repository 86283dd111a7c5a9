"""The conditional GAN that PHS-GAN compares with (Xia et al. 2019, Section 4.1, after Mirza and Osindero 2014).

x_p: pathological image, x_h: healthy image of whatever patient; G: generator conditioned on an image, deterministic;
D: discriminator.

    D plays:  tell x_h from G(x_p)
    G plays:  make D take G(x_p) for healthy

Nothing else holds the output to its input: what is kept of the subject's identity is kept by chance.
"""

from torch import nn

from pipeline import objectives
from pipeline.methods.adversarial import check_scores, discriminator_terms
from pipeline.methods.base import Batch, Player, Shared, Terms, every


class ConditionalGAN:
    """Image-conditioned generator, unpaired, no cycle.

    Args:
        generator: G, images (B, 1, H, W) in [0, 1] to the same.
        discriminator: D, images to scores.
        objective: by name or as an object.
        critic_steps: steps of D for each step of G.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        objective: objectives.Objective | str = "least_squares",
        critic_steps: int = 1,
    ) -> None:
        self.networks = {"generator": generator, "discriminator": discriminator}
        self.exports = {"healthy": generator}
        self.objective = objectives.objective(objective)
        check_scores(self.objective, discriminator)
        self.players = (
            Player(
                "discriminator",
                ("discriminator",),
                self.discriminate,
                after_step=lambda: self.objective.constrain(discriminator),
            ),
            Player("generator", ("generator",), self.translate, every(critic_steps)),
        )

    def forward(self, batch: Batch) -> Shared:
        """G(x_p), which both players need."""
        return {"x_s": self.networks["generator"](batch["image"])}

    def discriminate(self, batch: Batch, shared: Shared) -> Terms:
        """D plays."""
        return discriminator_terms(
            self.objective, self.networks["discriminator"], batch["healthy"], shared["x_s"], "gan"
        )

    def translate(self, batch: Batch, shared: Shared) -> Terms:
        """G plays."""
        del batch
        return {"gan": self.objective.generator(self.networks["discriminator"](shared["x_s"]))}
