"""DUIIT (Yang and Xie 2020): translation of source modalities into a target modality, guided by a prediction in it.

x: image of the target modality with its label r_t; y: image of a source modality with its label r_s, of whatever other
patient. G: source → target, F: target → source; D_t, D_s: discriminators of target and source; P: predictor.

    L_trans = L_adv(D_t, G) + L_adv(D_s, F) + λ_cyc (‖F(G(y)) − y‖₁ + ‖G(F(x)) − x‖₁),  λ_cyc = 10        (Eq. 1)
    L_pred = Σ l(P(G(y)), r_s) + Σ l(P(x), r_t)                                                            (Eq. 2)
    L = L_trans + λ L_pred,  λ = 0.001                                                                     (Eq. 3)

G, F and P play together for L, so that the predictor's gradient reaches G; D_t and D_s play against them, from a buffer
of earlier translations, L_adv being least squares. Unlike CycleGAN there is no identity loss. l is the squared error,
or the cross-entropy of classes.

With several sources Eq. 1 is summed over them, and the first sum of Eq. 2 is over all: each source has a G, an F and a
D_s of its own, and the one D_t, which the paper defines as that of the target modality, sees all their translations.
"""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, l1_loss, mse_loss

from pipeline import objectives
from pipeline.methods.adversarial import discriminator_terms
from pipeline.methods.base import Batch, Player, Shared, Terms, every
from pipeline.methods.pool import ImagePools
from pipeline.networks import SourceDiscriminators, SourceTranslators


class PredictionLoss:
    """l of Eq. 2, and its sum or mean over the images of one modality in a batch.

    With printed sums, λ depends on how many images there are, and on the labels' units. For means over B images, whose
    errors are divided by σ, λ · B · σ² is the same weight.

    Args:
        task: whether labels are numbers (squared error) or indices of classes (cross-entropy).
        reduction: over the images.
        deviation: σ, what errors of a regression are divided by, in the labels' units.

    Raises:
        ValueError: if one of them is none.
    """

    def __init__(
        self,
        task: Literal["regression", "classification"] = "regression",
        reduction: Literal["sum", "mean"] = "sum",
        deviation: float = 1.0,
    ) -> None:
        if task not in ("regression", "classification"):
            raise ValueError(f"task is 'regression' or 'classification', found {task!r}")
        if reduction not in ("sum", "mean"):
            raise ValueError(f"reduction is 'sum' or 'mean', found {reduction!r}")
        if not 0 < deviation < math.inf:
            raise ValueError(f"the deviation of the labels must be a number above 0, found {deviation}")
        self.task, self.reduction, self.deviation = task, reduction, deviation

    def __call__(self, answer: Tensor, label: Tensor) -> Tensor:
        """From answers (B, 1) or logits (B, K), and labels (B, 1), to a scalar."""
        if self.task == "classification":
            return cross_entropy(answer, label[:, 0].long(), reduction=self.reduction)
        return mse_loss(answer, label, reduction=self.reduction) / self.deviation**2


class DUIIT:
    """A CycleGAN for each source modality and a predictor of the target modality, trained jointly.

    The defaults are the paper's.

    Args:
        translators: G of each source, images (B, 1, H, W) in [0, 1] to those of the target modality.
        back_translators: F of each source, the other way.
        predictor: P, images of the target modality to labels (B, 1), or to logits (B, K) of K classes.
        target_discriminator: D_t, images to scores.
        source_discriminators: D_s of each source.
        target_pools: earlier G(y) of each source, from which D_t is shown.
        source_pools: earlier F(x) of each source, from which D_s is shown.
        objective: of L_adv, by name or as an object.
        prediction_loss: the sums of Eq. 2; None: as printed, for numbers.
        lambdas: λ of the prediction loss, λ_cyc of the cycle loss, and the weight of the translators' adversarial
            losses, which is 2, since least squares here halves them.
        guided: whether the gradient of the prediction reaches G; without it, the translation is CycleGAN's.
        critic_steps: steps of the discriminators for each step of the others.
    """

    def __init__(
        self,
        translators: SourceTranslators,
        back_translators: SourceTranslators,
        predictor: nn.Module,
        target_discriminator: nn.Module,
        source_discriminators: SourceDiscriminators,
        target_pools: ImagePools,
        source_pools: ImagePools,
        objective: objectives.Objective | str = "least_squares",
        prediction_loss: PredictionLoss | None = None,
        lambdas: tuple[float, float, float] = (0.001, 10.0, 2.0),
        guided: bool = True,
        critic_steps: int = 1,
    ) -> None:
        self.networks: dict[str, nn.Module] = {
            "translators": translators,
            "back_translators": back_translators,
            "predictor": predictor,
            "target_discriminator": target_discriminator,
            "source_discriminators": source_discriminators,
            "target_pools": target_pools,
            "source_pools": source_pools,
        }
        self.exports = {"predictor": predictor, "translators": translators}
        self.sources = tuple(translators)
        self.G, self.F, self.P = translators, back_translators, predictor
        self.D_t, self.D_s = target_discriminator, source_discriminators
        self.target_pools, self.source_pools = target_pools, source_pools
        self.objective = objectives.objective(objective)
        self.prediction_loss = prediction_loss or PredictionLoss()
        self.lambda_, self.lambda_cyc, self.lambda_gan = lambdas
        self.guided = guided
        self.players = (
            Player(
                "translators_and_predictor",
                ("translators", "back_translators", "predictor"),
                self.translate_and_predict,
                every(critic_steps),
            ),
            Player(
                "discriminators",
                ("target_discriminator", "source_discriminators"),
                self.discriminate,
                after_step=self._constrain,
            ),
        )

    def forward(self, batch: Batch) -> Shared:
        """All translations and all ways back."""
        x = batch["image"]
        shared: Shared = {}
        for s in self.sources:
            G, F = self.G[s], self.F[s]
            translated, back = G(batch[f"image_{s}"]), F(x)
            shared |= {
                f"G(y) {s}": translated,
                f"F(G(y)) {s}": F(translated),
                f"F(x) {s}": back,
                f"G(F(x)) {s}": G(back),
            }
        return shared

    def translate_and_predict(self, batch: Batch, shared: Shared) -> Terms:
        """G, F and P play for L (Eq. 3)."""
        x = batch["image"]
        adv, cyc = [], []
        for s in self.sources:
            y = batch[f"image_{s}"]
            adv.append(self.objective.generator(self.D_t(shared[f"G(y) {s}"])))
            adv.append(self.objective.generator(self.D_s[s](shared[f"F(x) {s}"])))
            cyc.append(l1_loss(shared[f"F(G(y)) {s}"], y) + l1_loss(shared[f"G(F(x)) {s}"], x))
        return {
            "adv": self.lambda_gan * torch.stack(adv).sum(),  # Eq. 1
            "cyc": self.lambda_cyc * torch.stack(cyc).sum(),
            "pred": self.lambda_ * torch.stack(list(self._prediction_losses(batch, shared))).sum(),  # Eq. 2
        }

    def _prediction_losses(self, batch: Batch, shared: Shared) -> Iterator[Tensor]:
        """Both sums of Eq. 2: of the real images, and of those translated from each source."""
        translated = [shared[f"G(y) {s}"] for s in self.sources]
        if not self.guided:
            translated = [image.detach() for image in translated]
        images = [batch["image"], *translated]
        labels = [batch["target"], *(batch[f"target_{s}"] for s in self.sources)]
        # One pass over the combined training set: P normalises by batch.
        answers = self.P(torch.cat(images)).split([len(image) for image in images])
        yield from map(self.prediction_loss, answers, labels)

    def discriminate(self, batch: Batch, shared: Shared) -> Terms:
        """D_t and D_s play, against the buffers."""
        terms: Terms = {}
        for s in self.sources:
            translated, back = self.target_pools[s](shared[f"G(y) {s}"]), self.source_pools[s](shared[f"F(x) {s}"])
            terms |= discriminator_terms(self.objective, self.D_t, batch["image"], translated, f"target_{s}")
            terms |= discriminator_terms(self.objective, self.D_s[s], batch[f"image_{s}"], back, f"source_{s}")
        return terms

    def _constrain(self) -> None:
        for discriminator in (self.D_t, *self.D_s.values()):
            self.objective.constrain(discriminator)
