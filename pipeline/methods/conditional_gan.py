"""Image-conditioned, unpaired translation by one generator against one discriminator, self-regularised or not.

Without regularisation it is the conditional GAN that PHS-GAN compares with (Xia et al. 2019, Section 4.1, after Mirza
and Osindero 2014), and the survey's Eq. 7; with it, the survey's Eq. 8 (Shrivastava et al. 2017).

x_p: pathological image, x_h: healthy image of whatever patient; G: generator conditioned on an image, deterministic;
D: discriminator.

    D plays:  tell x_h from G(x_p)
    G plays:  make D take G(x_p) for healthy  + λ ‖G(x_p) − x_p‖₁

With λ = 0 nothing else holds the output to its input: what is kept of the subject's identity is kept by chance. With a
λ above, input and output must look alike: fit for noise or artefacts, not for modalities of different contrast.
"""

from torch import nn
from torch.nn.functional import l1_loss

from pipeline import objectives
from pipeline.methods.adversarial import check_scores, discriminator_terms
from pipeline.methods.base import Batch, Player, Shared, Terms, every


class ConditionalGAN:
    """Image-conditioned generator, unpaired, no cycle, optionally self-regularised.

    Args:
        generator: G, images (B, 1, H, W) in [0, 1] to the same.
        discriminator: D, images to scores.
        objective: by name or as an object.
        critic_steps: steps of D for each step of G.
        lambda_self: λ of the self-regularisation (survey Eq. 8).
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        objective: objectives.Objective | str = "least_squares",
        critic_steps: int = 1,
        lambda_self: float = 0.0,
    ) -> None:
        self.lambda_self = lambda_self
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
        terms = {"gan": self.objective.generator(self.networks["discriminator"](shared["x_s"]))}
        if self.lambda_self:
            terms["self"] = self.lambda_self * l1_loss(shared["x_s"], batch["image"])
        return terms
