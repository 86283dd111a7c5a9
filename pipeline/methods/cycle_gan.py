"""CycleGAN (Zhu et al. 2017) between pathological and healthy images.

x_p, x_h: pathological and healthy images, of whatever patients; G: P → H, F: H → P; D_h, D_p: discriminators.

    x̃_h = G(x_p),  x̂_p = F(x̃_h);    x̃_p = F(x_h),  x̂_h = G(x̃_p)

    generators:      L_GAN(D_h, x̃_h) + L_GAN(D_p, x̃_p) + λ (‖x̂_p − x_p‖₁ + ‖x̂_h − x_h‖₁)
                     + ½ λ (‖G(x_h) − x_h‖₁ + ‖F(x_p) − x_p‖₁),   λ = 10
    discriminators:  D_h tells x_h, D_p tells x_p, from a pool of earlier translations

The generators play first. The discriminators' loss is halved, which the least-squares objective here does by itself;
its generator's loss is halved too, so `lambda_gan` is 2 to give the paper's (D − 1)².
"""

from torch import nn
from torch.nn.functional import l1_loss

from pipeline import objectives
from pipeline.methods.adversarial import discriminator_terms
from pipeline.methods.base import Batch, Player, Shared, Terms, every
from pipeline.methods.pool import ImagePool
from pipeline.networks import PlainCycle


class CycleGAN:
    """Two generators, two discriminators, cycle consistency, identity loss and image pools.

    The defaults are the paper's.

    Args:
        healthy_generator: G, pathological images (B, 1, H, W) in [0, 1] to healthy ones.
        pathological_generator: F, the other way.
        healthy_discriminator: D_h, images to scores.
        pathological_discriminator: D_p.
        healthy_pool: earlier x̃_h, from which D_h is shown.
        pathological_pool: earlier x̃_p.
        objective: by name or as an object.
        lambda_: λ of the cycle loss.
        identity: the identity loss has the weight `identity` · λ.
        lambda_gan: weight of the generators' adversarial losses.
        critic_steps: steps of the discriminators for each step of the generators.
    """

    def __init__(
        self,
        healthy_generator: nn.Module,
        pathological_generator: nn.Module,
        healthy_discriminator: nn.Module,
        pathological_discriminator: nn.Module,
        healthy_pool: ImagePool,
        pathological_pool: ImagePool,
        objective: objectives.Objective | str = "least_squares",
        lambda_: float = 10.0,
        identity: float = 0.5,
        lambda_gan: float = 2.0,
        critic_steps: int = 1,
    ) -> None:
        self.networks: dict[str, nn.Module] = {
            "healthy_generator": healthy_generator,
            "pathological_generator": pathological_generator,
            "healthy_discriminator": healthy_discriminator,
            "pathological_discriminator": pathological_discriminator,
            "healthy_pool": healthy_pool,
            "pathological_pool": pathological_pool,
        }
        self.exports = {"healthy": healthy_generator, "cycle": PlainCycle(pathological_generator)}
        self.objective = objectives.objective(objective)
        self.lambda_ = lambda_
        self.identity = identity
        self.lambda_gan = lambda_gan
        self.players = (
            Player(
                "generators",
                ("healthy_generator", "pathological_generator"),
                self.translate,
                every(critic_steps),
            ),
            Player(
                "discriminators",
                ("healthy_discriminator", "pathological_discriminator"),
                self.discriminate,
                after_step=self._constrain,
            ),
        )

    def forward(self, batch: Batch) -> Shared:
        """Both translations and both ways back."""
        G, F = self.networks["healthy_generator"], self.networks["pathological_generator"]
        healthy, pathological = G(batch["image"]), F(batch["healthy"])
        return {"x̃_h": healthy, "x̂_p": F(healthy), "x̃_p": pathological, "x̂_h": G(pathological)}

    def translate(self, batch: Batch, shared: Shared) -> Terms:
        """G and F play."""
        G, F = self.networks["healthy_generator"], self.networks["pathological_generator"]
        D_h, D_p = self.networks["healthy_discriminator"], self.networks["pathological_discriminator"]
        x_p, x_h = batch["image"], batch["healthy"]
        gan = self.objective.generator(D_h(shared["x̃_h"])) + self.objective.generator(D_p(shared["x̃_p"]))
        cycle = l1_loss(shared["x̂_p"], x_p) + l1_loss(shared["x̂_h"], x_h)
        terms = {"gan": self.lambda_gan * gan, "cycle": self.lambda_ * cycle}
        if self.identity:
            identity = l1_loss(G(x_h), x_h) + l1_loss(F(x_p), x_p)
            terms["identity"] = self.identity * self.lambda_ * identity
        return terms

    def discriminate(self, batch: Batch, shared: Shared) -> Terms:
        """D_h and D_p play, against the pools."""
        networks = self.networks
        healthy = networks["healthy_pool"](shared["x̃_h"])
        pathological = networks["pathological_pool"](shared["x̃_p"])
        return {
            **discriminator_terms(self.objective, networks["healthy_discriminator"], batch["healthy"], healthy, "h"),
            **discriminator_terms(
                self.objective, networks["pathological_discriminator"], batch["image"], pathological, "p"
            ),
        }

    def _constrain(self) -> None:
        self.objective.constrain(self.networks["healthy_discriminator"])
        self.objective.constrain(self.networks["pathological_discriminator"])
