"""Image quality enhancement (survey, Section 5.3): paired translation of degraded images, by pixels or by perception.

x: degraded image, y: what it was before; G: generator, whose output is x and a difference; D: discriminator;
φ, ψ: encoder and decoder of an autoencoder of clean images.

    L1 alone                    ‖y − G(x)‖₁
    adversarial + L1            λ₁ · adversarial(x, G(x)) + λ₂ ‖y − G(x)‖₁         (Wolterink et al. 2017, low-dose CT)
    Wasserstein + perceptual    −λ₁ D(G(x)) + λ_φ ‖φ(y) − φ(G(x))‖²                 (Yang et al. 2018, low-dose CT)

φ of Yang et al. is VGG-19, trained on photographs. Here φ and ψ play first, for so many iterations, for ‖ψ(φ(y)) − y‖²
on the training images (as Li et al. 2020); then φ is left as it is, and the others play. All else is
`PairedTranslation`.
"""

from dataclasses import replace

from torch import nn
from torch.nn.functional import mse_loss

from pipeline import objectives
from pipeline.methods.base import Batch, Player, Shared, Terms
from pipeline.methods.paired_translation import PairedTranslation


class Restoration(PairedTranslation):
    """Paired translation whose perceptual term learns from the cohort what images look like.

    A batch has `image` x, shape (B, C, H, W), and `target_image` y, shape (B, 1, H, W), in [0, 1].

    Args:
        generator: G.
        discriminator: D, of pairs, or without `conditional` of images; None if λ₁ is 0.
        encoder: φ, from images (B, 1, H, W) to features; None if λ_φ is 0.
        decoder: ψ, from features to images; None if λ_φ is 0.
        objective: by name or as an object.
        lambda_gan: λ₁.
        lambda_l1: λ₂.
        lambda_features: λ_φ.
        conditional: whether D sees x beside y.
        critic_steps: steps of D for each step of G.
        feature_steps: iterations in which φ and ψ play alone, before the first of the others.

    Raises:
        ValueError: as `PairedTranslation`, or if only one of φ and ψ is given, or they have no step to learn.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        objective: objectives.Objective | str = "non_saturating",
        lambda_gan: float = 1.0,
        lambda_l1: float = 100.0,
        lambda_features: float = 0.0,
        conditional: bool = True,
        critic_steps: int = 1,
        feature_steps: int = 500,
    ) -> None:
        super().__init__(
            generator,
            discriminator,
            objective,
            lambda_gan,
            lambda_l1,
            features=encoder,
            lambda_features=lambda_features,
            conditional=conditional,
            critic_steps=critic_steps,
        )
        if (encoder is None) != (decoder is None):
            raise ValueError("an autoencoder has an encoder and a decoder, found one of them")
        if decoder is None:
            return
        if feature_steps < 1:
            raise ValueError(f"features are learned in at least 1 step, found {feature_steps}")
        self.networks["decoder"] = decoder
        learns = Player("features", ("features", "decoder"), self.perceive, lambda i: i < feature_steps)
        self.players = (learns, *(_after(player, feature_steps) for player in self.players))

    def perceive(self, batch: Batch, shared: Shared) -> Terms:
        """φ and ψ play."""
        del shared
        y = batch["target_image"]
        return {"autoencoder": mse_loss(self.networks["decoder"](self.networks["features"](y)), y)}


def _after(player: Player, steps: int) -> Player:
    """The player, who waits for so many iterations and then plays as if they had not been."""
    plays = player.plays
    return replace(player, plays=lambda iteration: iteration >= steps and plays(iteration - steps))
