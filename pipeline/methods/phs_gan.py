"""PHS-GAN (Xia et al. 2019): pseudo-healthy synthesis by factorising pathology.

x_p: pathological image, m_p: its lesion mask; x_h: healthy image, m_h: all zero. G: generator, R: reconstructor, S:
segmentor, D_x and D_m: discriminators of images and of masks.

    cycle P-H:  x̃_h = G(x_p),  m̃_p = S(x_p),  x̂_p = R(x̃_h, m̃_p)
    cycle H-H:  x̃'_h = R(x_h, m_h),  m̂_h = S(x̃'_h),  x̂_h = G(x̃'_h)

    L_CC = ‖x̂_p − x_p‖₁ + ‖x̂_h − x_h‖₁ + ‖m̂_h − m_h‖₁
    L_GAN1: D_x tells x_h from x̃_h, and x_h from x̃'_h
    L_Seg = Dice loss of m̃_p against m_p                              (paired)
    L_GAN2: D_m tells the masks of other patients from m̃_p            (unpaired)

    paired:    λ1 L_CC + λ2 L_GAN1 + λ3 L_Seg,    λ = 10, 1, 10
    unpaired:  λ1 L_CC + λ2 L_GAN1 + λ3 L_GAN2,   λ = 10, 2, 10

The least-squares terms are printed with the labels reversed and maximised over D; what is built is the form that is
minimised (Mao et al. 2017).
"""

import torch
from monai.losses import DiceLoss
from torch import nn
from torch.nn.functional import l1_loss

from pipeline import objectives
from pipeline.methods.adversarial import check_scores, discriminator_terms
from pipeline.methods.base import Batch, Player, Shared, Terms, every
from pipeline.networks import FactorisedCycle


class _PHSGAN:
    """What the two settings share: both cycles, L_CC and L_GAN1."""

    def __init__(
        self,
        generator: nn.Module,
        reconstructor: nn.Module,
        segmentor: nn.Module,
        image_discriminator: nn.Module,
        objective: objectives.Objective | str,
        lambdas: tuple[float, float, float],
        critic_steps: int,
    ) -> None:
        self.networks = {
            "generator": generator,
            "reconstructor": reconstructor,
            "segmentor": segmentor,
            "image_discriminator": image_discriminator,
        }
        self.exports = {"healthy": generator, "cycle": FactorisedCycle(reconstructor, segmentor)}
        self.objective = objectives.objective(objective)
        check_scores(self.objective, image_discriminator)
        self.lambda1, self.lambda2, self.lambda3 = lambdas
        self.players: tuple[Player, ...] = (
            Player(
                "image_discriminator",
                ("image_discriminator",),
                self.discriminate_images,
                after_step=lambda: self.objective.constrain(image_discriminator),
            ),
            Player("translators", ("generator", "reconstructor", "segmentor"), self.translate, every(critic_steps)),
        )

    def forward(self, batch: Batch) -> Shared:
        """Both cycles (Section 3.3, Figure 3). S puts out logits; masks are their sigmoid."""
        G, R, S = (self.networks[name] for name in ("generator", "reconstructor", "segmentor"))
        x_p, x_h = batch["image"], batch["healthy"]
        m_h = torch.zeros_like(x_h)

        healthy = G(x_p)
        mask_logits = S(x_p)
        reconstructed = R(torch.cat((healthy, mask_logits.sigmoid()), dim=1))

        fake_healthy = R(torch.cat((x_h, m_h), dim=1))
        return {
            "x̃_h": healthy,
            "m̃_p logits": mask_logits,
            "x̂_p": reconstructed,
            "x̃'_h": fake_healthy,
            "m̂_h": S(fake_healthy).sigmoid(),
            "x̂_h": G(fake_healthy),
        }

    def discriminate_images(self, batch: Batch, shared: Shared) -> Terms:
        """D_x plays: L_GAN1 of both cycles."""
        D_x, x_h = self.networks["image_discriminator"], batch["healthy"]
        return {
            **discriminator_terms(self.objective, D_x, x_h, shared["x̃_h"], "ph"),
            **discriminator_terms(self.objective, D_x, x_h, shared["x̃'_h"], "hh"),
        }

    def translate(self, batch: Batch, shared: Shared) -> Terms:
        """G, R and S play: λ1 L_CC + λ2 L_GAN1."""
        D_x = self.networks["image_discriminator"]
        m_h = torch.zeros_like(shared["m̂_h"])
        cycle_consistency = (
            l1_loss(shared["x̂_p"], batch["image"])
            + l1_loss(shared["x̂_h"], batch["healthy"])
            + l1_loss(shared["m̂_h"], m_h)
        )
        gan1 = self.objective.generator(D_x(shared["x̃_h"])) + self.objective.generator(D_x(shared["x̃'_h"]))
        return {"cycle": self.lambda1 * cycle_consistency, "gan1": self.lambda2 * gan1}


class PairedPHSGAN(_PHSGAN):
    """PHS-GAN where each pathological image comes with its lesion mask.

    The defaults are the paper's.

    Args:
        generator: G, images (B, 1, H, W) in [0, 1] to the same.
        reconstructor: R, image and mask (B, 2, H, W) to an image.
        segmentor: S, images to lesion logits.
        image_discriminator: D_x, images to scores.
        objective: of L_GAN1, by name or as an object.
        lambdas: λ1, λ2, λ3 (Section 4.1).
        critic_steps: steps of D_x for each step of G, R and S.
    """

    def __init__(
        self,
        generator: nn.Module,
        reconstructor: nn.Module,
        segmentor: nn.Module,
        image_discriminator: nn.Module,
        objective: objectives.Objective | str = "least_squares",
        lambdas: tuple[float, float, float] = (10.0, 1.0, 10.0),
        critic_steps: int = 1,
    ) -> None:
        super().__init__(generator, reconstructor, segmentor, image_discriminator, objective, lambdas, critic_steps)
        self.dice_loss = DiceLoss(sigmoid=True)

    def translate(self, batch: Batch, shared: Shared) -> Terms:
        """… + λ3 L_Seg."""
        seg = self.dice_loss(shared["m̃_p logits"], batch["mask"])
        return {**super().translate(batch, shared), "seg": self.lambda3 * seg}


class UnpairedPHSGAN(_PHSGAN):
    """PHS-GAN where masks exist, but of other patients: D_m takes the place of supervision.

    The defaults are the paper's.

    Args:
        generator: G, images (B, 1, H, W) in [0, 1] to the same.
        reconstructor: R, image and mask (B, 2, H, W) to an image.
        segmentor: S, images to lesion logits.
        image_discriminator: D_x, images to scores.
        mask_discriminator: D_m, masks to scores.
        objective: of L_GAN1 and L_GAN2, by name or as an object.
        lambdas: λ1, λ2, λ3 (Section 4.1).
        critic_steps: steps of D_x and D_m for each step of G, R and S.
    """

    def __init__(
        self,
        generator: nn.Module,
        reconstructor: nn.Module,
        segmentor: nn.Module,
        image_discriminator: nn.Module,
        mask_discriminator: nn.Module,
        objective: objectives.Objective | str = "least_squares",
        lambdas: tuple[float, float, float] = (10.0, 2.0, 10.0),
        critic_steps: int = 1,
    ) -> None:
        super().__init__(generator, reconstructor, segmentor, image_discriminator, objective, lambdas, critic_steps)
        check_scores(self.objective, mask_discriminator)
        self.networks["mask_discriminator"] = mask_discriminator
        mask_player = Player(
            "mask_discriminator",
            ("mask_discriminator",),
            self.discriminate_masks,
            after_step=lambda: self.objective.constrain(mask_discriminator),
        )
        image_player, translators = self.players
        self.players = (image_player, mask_player, translators)

    def discriminate_masks(self, batch: Batch, shared: Shared) -> Terms:
        """D_m plays: L_GAN2."""
        D_m, m_p = self.networks["mask_discriminator"], batch["other_mask"]
        return discriminator_terms(self.objective, D_m, m_p, shared["m̃_p logits"].sigmoid(), "gan2")

    def translate(self, batch: Batch, shared: Shared) -> Terms:
        """… + λ3 L_GAN2."""
        D_m = self.networks["mask_discriminator"]
        gan2 = self.objective.generator(D_m(shared["m̃_p logits"].sigmoid()))
        return {**super().translate(batch, shared), "gan2": self.lambda3 * gan2}
