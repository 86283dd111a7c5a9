"""GenSeg (Vorontsov et al. 2019): segmentation from few labels, through translation between presence and absence.

x_P: image with the target, y its mask, known for some; x_A: image without, of whatever patient. f: encoder, g_com and
g_res: common and residual decoder, g_seg: the residual decoder when it segments; D_A, D_P: discriminators.

    [c_A, u_A] = f(x_A),  [c_P, u_P] = f(x_P)                                                      (Eq. 1)
    x_AA = g_com(c_A),    x_PA = g_com(c_P)                                                        (Eq. 2)
    x_PP = x_PA + Δ_PA,   Δ_PA = g_res(c_P, u_P)                                                   (Eq. 3)
    ŷ = g_seg(c_P, u_P),  normalised by p_norm = MLP(c_P, u_P)                                     (Eqs. 4, 5)
    x_AP = g_com(c_A) + g_res(c_A, u),  u ~ N(0, I);   [c_AP, u_AP] = f(x_AP),  x_APA = g_com(c_AP)    (Eq. 6)

    L_total = λ_seg L_seg + λ_rec L_rec + λ_lat L_lat + λ_cyc L_cyc + λ_adv L_adv                  (Eq. 7)
    L_seg = Dice(y, ŷ)                                                                             (Eq. 8)
    L_rec = ‖x_P − x_PP‖₁ + ‖x_A − x_AA‖₁                                                          (Eq. 9)
    L_lat = ‖c_P − c_PA‖₁ + ‖c_A − c_AP‖₁ + ‖c_A − c_AA‖₁ + ‖c_P − c_PP‖₁
            + ‖u_P − u_PP‖₁ + ‖u − u_AP‖₁                                                          (Eq. 10)
    L_cyc = ‖x_A − x_APA‖₁                                                                         (Eq. 11)
    L_adv: hinge; D_A tells x_A from x_PA, D_P tells x_P from x_AP                                 (Eq. 12)

λ = 0.01, 50, 1, 50, 3, of which λ_seg is missing in the paper's Eq. 7. In Eq. 10 c_AA, of f(x_AA), is used and not
defined. Eq. 12 mixes the players up, what is built is the hinge of each; which images they judge is not said.
"""

import math
from collections.abc import Callable, Sequence

import torch
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn.functional import l1_loss

from pipeline import objectives
from pipeline.methods.adversarial import check_scores, discriminator_terms
from pipeline.methods.base import Batch, Player, Shared, Terms, every, is_labelled
from pipeline.networks import (
    AbsenceToPresence,
    GenSegDecoder,
    GenSegDiscriminator,
    GenSegDiscriminators,
    GenSegResidualDecoder,
    GenSegResidualDecoders,
    GenSegSegmentor,
    PresenceToAbsence,
)
from pipeline.networks.genseg import drawn_like


class GenSeg:
    """Segmentation and translation between presence and absence with one encoder and two decoders.

    The defaults are the paper's.

    Args:
        segmentor: f and the decoder that segments: the residual decoder, or one of its own (the paper's ablation).
        common_decoder: g_com.
        residual_decoder: g_res.
        absence_discriminator: D_A, images to scores.
        presence_discriminator: D_P.
        objective: of L_adv, by name or as an object.
        lambdas: λ_seg, λ_rec, λ_lat, λ_cyc, λ_adv.
        judge_x_AA: D_A sees x_AA, too.
        critic_steps: steps of the discriminators for each step of the others.
    """

    def __init__(
        self,
        segmentor: GenSegSegmentor,
        common_decoder: GenSegDecoder,
        residual_decoder: GenSegResidualDecoder | GenSegResidualDecoders,
        absence_discriminator: GenSegDiscriminator,
        presence_discriminator: GenSegDiscriminator | GenSegDiscriminators,
        objective: objectives.Objective | str = "hinge",
        lambdas: tuple[float, float, float, float, float] = (0.01, 50.0, 1.0, 50.0, 3.0),
        judge_x_AA: bool = False,
        critic_steps: int = 1,
    ) -> None:
        _check(lambdas, 5)
        self.encoder, self.segmentor = segmentor.encoder, segmentor
        self.common_decoder, self.residual_decoder = common_decoder, residual_decoder
        self.D_A, self.D_P = absence_discriminator, presence_discriminator
        shared = residual_decoder is segmentor.decoder
        translators = {
            "segmentor": segmentor,
            "common_decoder": common_decoder,
            **({} if shared else {"residual_decoder": residual_decoder}),
        }
        discriminators = {
            "absence_discriminator": absence_discriminator,
            "presence_discriminator": presence_discriminator,
        }
        self.networks = {**translators, **discriminators}
        self.exports = {
            "segmentor": segmentor,
            "absence": PresenceToAbsence(segmentor.encoder, common_decoder),
            "presence": AbsenceToPresence(segmentor.encoder, common_decoder, residual_decoder),
        }
        self.objective = objectives.objective(objective)
        check_scores(self.objective, *discriminators.values())
        self.lambda_seg, self.lambda_rec, self.lambda_lat, self.lambda_cyc, self.lambda_adv = lambdas
        self.judge_x_AA = judge_x_AA
        self.dice_loss = DiceLoss(sigmoid=True)
        self.players = (
            Player("discriminators", tuple(discriminators), self.discriminate, after_step=self._constrain),
            Player("translators", tuple(translators), self.translate, every(critic_steps)),
        )

    def forward(self, batch: Batch) -> Shared:
        """Both translations, both reconstructions, and the segmentation of what is labelled (Eqs. 1 to 6)."""
        f, g_com, g_res = self.encoder, self.common_decoder, self.residual_decoder
        x_P, x_A = batch["image"], batch["healthy"]
        present = self._present(batch)
        c_A, u_A, skips_A = f(x_A)
        c_P, u_P, skips_P = f(x_P)  # Eq. 1
        x_AA, x_PA = g_com(c_A, skips_A), g_com(c_P, skips_P)  # Eq. 2
        x_PP = x_PA + g_res(torch.cat((c_P, u_P), dim=1), skips_P, *present)  # Eq. 3
        u = drawn_like(u_A)
        x_AP = x_AA + g_res(torch.cat((c_A, u), dim=1), skips_A, *present)  # Eq. 6
        shared = {"c_A": c_A, "c_P": c_P, "u_P": u_P, "u": u, "x_AA": x_AA, "x_PA": x_PA, "x_PP": x_PP, "x_AP": x_AP}
        labelled = is_labelled(batch)
        if labelled.any():
            code = torch.cat((c_P, u_P), dim=1)[labelled]
            # Eqs. 4 and 5.
            shared["ŷ logits"] = self.segmentor.decoder.segment(code, [skip[labelled] for skip in skips_P])
        return shared

    def discriminate(self, batch: Batch, shared: Shared) -> Terms:
        """D_A and D_P play (Eq. 12)."""
        x_P, x_A = batch["image"], batch["healthy"]
        terms = {
            **discriminator_terms(self.objective, self.D_A, x_A, shared["x_PA"], "absence"),
            **discriminator_terms(self.objective, self._D_P(batch), x_P, shared["x_AP"], "presence"),
        }
        if self.judge_x_AA:
            terms |= discriminator_terms(self.objective, self.D_A, x_A, shared["x_AA"], "reconstruction")
        return terms

    def translate(self, batch: Batch, shared: Shared) -> Terms:
        """The encoder and all decoders play: L_total (Eq. 7)."""
        f, g_com = self.encoder, self.common_decoder
        x_P, x_A = batch["image"], batch["healthy"]
        x_AA, x_PA, x_PP, x_AP = (shared[name] for name in ("x_AA", "x_PA", "x_PP", "x_AP"))
        c_A, c_P, u_P, u = (shared[name] for name in ("c_A", "c_P", "u_P", "u"))
        c_AP, u_AP, skips_AP = f(x_AP)
        x_APA = g_com(c_AP, skips_AP)  # Eq. 6
        (c_PA, _, _), (c_AA, _, _), (c_PP, u_PP, _) = f(x_PA), f(x_AA), f(x_PP)

        seg = self._segmentation_loss(batch, shared)  # Eq. 8
        rec = l1_loss(x_PP, x_P) + l1_loss(x_AA, x_A)  # Eq. 9
        lat = (
            l1_loss(c_PA, c_P)
            + l1_loss(c_AP, c_A)
            + l1_loss(c_AA, c_A)
            + l1_loss(c_PP, c_P)
            + self._unique_loss(u_PP, u_P, batch)
            + self._unique_loss(u_AP, u, batch)
        )  # Eq. 10
        cyc = l1_loss(x_APA, x_A)  # Eq. 11
        adv = self.objective.generator(self.D_A(x_PA)) + self.objective.generator(self._D_P(batch)(x_AP))  # Eq. 12
        if self.judge_x_AA:
            adv = adv + self.objective.generator(self.D_A(x_AA))
        return {
            "seg": self.lambda_seg * seg,
            "rec": self.lambda_rec * rec,
            "lat": self.lambda_lat * lat,
            "cyc": self.lambda_cyc * cyc,
            "adv": self.lambda_adv * adv,
        }

    def _segmentation_loss(self, batch: Batch, shared: Shared) -> Tensor:
        """The mean over labelled images; 0 where none is."""
        if "ŷ logits" not in shared:
            return shared["c_P"].new_zeros(())
        loss: Tensor = self.dice_loss(shared["ŷ logits"], self._drawn(batch)[is_labelled(batch)])
        return loss

    # What is otherwise where there are several pathologies.

    def _present(self, batch: Batch) -> tuple[Tensor, ...]:
        """Which pathologies the images of presence show, shape (B, pathologies); nothing where there is but one."""
        del batch
        return ()

    def _drawn(self, batch: Batch) -> Tensor:
        """y, shape (B, pathologies, H, W)."""
        return batch["mask"]

    def _unique_loss(self, found: Tensor, u: Tensor, batch: Batch) -> Tensor:
        """‖û − u‖₁."""
        del batch
        return l1_loss(found, u)

    def _D_P(self, batch: Batch) -> Callable[[Tensor], Tensor]:  # noqa: N802 (the paper's symbol)
        """D_P of the batch's pathologies, for as many images or a multiple of them."""
        present = self._present(batch)
        return lambda images: self.D_P(images, *(each.repeat(len(images) // len(each), 1) for each in present))

    def _constrain(self) -> None:
        self.objective.constrain(self.D_A)
        self.objective.constrain(self.D_P)


class Autoencoding:
    """The baselines (Section 3.3): segmentation and autoencoding, or segmentation only.

        L = λ_seg Dice(y, ŷ) + λ_rec (‖x_P − x̂_P‖₁ + ‖x_A − x̂_A‖₁)

    Both decoders are like the common one of GenSeg and see the whole code. The one that reconstructs has no long skips,
    which would make its work trivial.

    Args:
        segmentor: f and the decoder that segments.
        reconstruction_decoder: codes to images, without skips; None: segmentation only.
        lambdas: λ_seg, λ_rec.
    """

    def __init__(
        self,
        segmentor: GenSegSegmentor,
        reconstruction_decoder: GenSegDecoder | None = None,
        lambdas: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        _check(lambdas, 2)
        if reconstruction_decoder is not None and any(block.skips != "none" for block in reconstruction_decoder.blocks):
            raise ValueError(
                f"a decoder that reconstructs has skips 'none', since others make autoencoding trivial (GenSeg, "
                f"Section 3.4), found {reconstruction_decoder.blocks[0].skips!r}"
            )
        self.segmentor, self.reconstruction_decoder = segmentor, reconstruction_decoder
        self.networks = {
            "segmentor": segmentor,
            **({} if reconstruction_decoder is None else {"reconstruction_decoder": reconstruction_decoder}),
        }
        self.exports = {"segmentor": segmentor}
        self.lambda_seg, self.lambda_rec = lambdas
        self.dice_loss = DiceLoss(sigmoid=True)
        self.players = (Player("segmentor", tuple(self.networks), self.learn),)

    def forward(self, batch: Batch) -> Shared:
        """Nothing is shared: there is one player."""
        del batch
        return {}

    def learn(self, batch: Batch, shared: Shared) -> Terms:
        """Segment what is labelled, and reconstruct everything."""
        del shared
        x_P, labelled = batch["image"], is_labelled(batch)
        code_P, skips_P = self._coded(x_P)
        logits = self.segmentor.decoder.segment(code_P, skips_P)
        # Without a label, zero and no gradient, but of all that the optimiser holds.
        seg = self.dice_loss(logits[labelled], batch["mask"][labelled]) if labelled.any() else 0 * logits.sum()
        terms = {"seg": self.lambda_seg * seg}
        if self.reconstruction_decoder is not None:
            g_rec, x_A = self.reconstruction_decoder, batch["healthy"]
            rec = l1_loss(g_rec(code_P, skips_P), x_P) + l1_loss(g_rec(*self._coded(x_A)), x_A)
            terms["rec"] = self.lambda_rec * rec
        return terms

    def _coded(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        common, unique, skips = self.segmentor.encoder(image)
        return torch.cat((common, unique), dim=1), skips


def _check(lambdas: Sequence[float], count: int) -> None:
    if len(lambdas) != count or not all(0 <= weight < math.inf for weight in lambdas):
        raise ValueError(f"lambdas are {count} numbers of 0 or more, found {lambdas}")
