"""Paired translation (survey Eq. 6; pix2pix, Isola et al. 2017): regression whose result must convince, too.

x: image of the source domain, y: the image of the target domain that belongs to it, pixel by pixel; G: generator,
D: discriminator of pairs; φ: features of an image, of a fixed network.

    D plays:  tell (x, y) from (x, G(x))
    G plays:  λ₁ · (make D take (x, G(x)) for a real pair)  +  λ₂ ‖y − G(x)‖₁  [ +  λ_φ ‖φ(y) − φ(G(x))‖² ]

The survey's three cases: λ₁ = 0 is regression, without a discriminator; λ₂ = 0 leaves the discriminator alone; with
both, it sharpens what the L1 term, which is least at the median of all that is possible, would blur. The survey calls
the source y and the reference x′; the letters here are those of the other methods.

Where D sees the image alone and the objective is Wasserstein's, the pair of losses with λ_φ is that of Yang et al.
(2018) for low-dose CT. Isola et al. halve the loss of D, which Adam does not see; here it is whole.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from pipeline import objectives
from pipeline.methods.adversarial import check_scores, discriminator_terms
from pipeline.methods.base import Batch, Player, Shared, Terms, every


class PairedTranslation:
    """A generator held to the target image, by a discriminator, or by both.

    A batch has `image` x, shape (B, C, H, W), and `target_image` y, shape (B, 1, H, W), in [0, 1].

    Args:
        generator: G, from x to images like y. It predicts the difference to x if its output is `residual`.
        discriminator: D, from pairs (B, C + 1, H, W) to scores, or without `conditional` from images (B, 1, H, W); None
            if λ₁ is 0.
        objective: by name or as an object; the paper's generator maximises log D.
        lambda_gan: λ₁.
        lambda_l1: λ₂; 100 in the paper.
        features: φ, from images (B, 1, H, W) to features or several of them; trained by nobody here.
        lambda_features: λ_φ.
        conditional: whether D sees x beside y.
        critic_steps: steps of D for each step of G.

    Raises:
        ValueError: if a weight is negative, all are 0, or a network and its weight do not go together.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None = None,
        objective: objectives.Objective | str = "non_saturating",
        lambda_gan: float = 1.0,
        lambda_l1: float = 100.0,
        features: nn.Module | None = None,
        lambda_features: float = 0.0,
        conditional: bool = True,
        critic_steps: int = 1,
    ) -> None:
        weights = {"lambda_gan": lambda_gan, "lambda_l1": lambda_l1, "lambda_features": lambda_features}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(f"weights are 0 or more and not all 0, found {weights}")
        for name, network in (("lambda_gan", discriminator), ("lambda_features", features)):
            if (weights[name] > 0) != (network is not None):
                other = "discriminator" if name == "lambda_gan" else "features"
                raise ValueError(
                    f"{name} is {weights[name]} {'with' if network else 'without'} {other}, expected both or neither"
                )
        self.networks: dict[str, nn.Module] = {"generator": generator}
        self.exports = {"translator": generator}
        self.objective = objectives.objective(objective)
        self.lambda_gan, self.lambda_l1, self.lambda_features = lambda_gan, lambda_l1, lambda_features
        self.conditional = conditional
        players = [Player("generator", ("generator",), self.translate, every(critic_steps if discriminator else 1))]
        if discriminator is not None:
            check_scores(self.objective, discriminator)
            self.networks["discriminator"] = discriminator
            players.insert(0, self._critic(discriminator))
        if features is not None:
            self.networks["features"] = features
        self.players = tuple(players)

    def _critic(self, discriminator: nn.Module) -> Player:
        return Player(
            "discriminator",
            ("discriminator",),
            self.discriminate,
            after_step=lambda: self.objective.constrain(discriminator),
        )

    def forward(self, batch: Batch) -> Shared:
        """G(x), which both players need."""
        return {"G(x)": self.networks["generator"](batch["image"])}

    def _pair(self, batch: Batch, image: Tensor) -> Tensor:
        """What D is shown of an image of the target domain."""
        return torch.cat((batch["image"], image), dim=1) if self.conditional else image

    def discriminate(self, batch: Batch, shared: Shared) -> Terms:
        """D plays."""
        real, fake = self._pair(batch, batch["target_image"]), self._pair(batch, shared["G(x)"])
        return discriminator_terms(self.objective, self.networks["discriminator"], real, fake, "gan")

    def translate(self, batch: Batch, shared: Shared) -> Terms:
        """G plays; a term whose weight is 0 is not computed."""
        made, y = shared["G(x)"], batch["target_image"]
        terms: Terms = {}
        if self.lambda_gan:
            scores = self.networks["discriminator"](self._pair(batch, made))
            terms["gan"] = self.lambda_gan * self.objective.generator(scores)
        if self.lambda_l1:
            terms["l1"] = self.lambda_l1 * l1_loss(made, y)
        if self.lambda_features:
            terms["features"] = self.lambda_features * self._feature_distance(made, y)
        return terms

    def _feature_distance(self, made: Tensor, y: Tensor) -> Tensor:
        """Mean squared difference of φ, each of its layers alike."""
        phi = self.networks["features"].eval()  # the engine sets all networks to training
        distances = [mse_loss(a, b.detach()) for a, b in zip(_listed(phi(made)), _listed(phi(y)), strict=True)]
        return torch.stack(distances).mean()


def _listed(features: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [features] if isinstance(features, Tensor) else features
