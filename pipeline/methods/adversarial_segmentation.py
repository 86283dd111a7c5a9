"""Adversarial segmentation (survey, Sections 5.4 and 5.6): a segmentor against a critic of its segmentations.

x: image, y: its mask, S: segmentor, ŷ = σ(S(x)), D: critic of what it is shown of an image and a segmentation.

    S: l(ŷ, y) + λ a(x, ŷ)        l: cross-entropy, Dice loss, both or neither; over images with a mask
    D: tells (x, y) from (x, ŷ)

| | l | what D tells | a |
|---|---|---|---|
| Luc et al. (2016) | cross-entropy | drawn from predicted, x·y, x·(1 − y) | generator's objective of D(x, ŷ) |
| Kohl et al. (2017) | none | drawn from predicted, x beside y | the same |
| SegAN (Xue et al. 2018) | none | drawn from predicted, x·y | Σ ‖f(x·y) − f(x·ŷ)‖₁, which D maximises |
| Zhang et al. (2017) | cross-entropy | (x, ŷ) with a mask from (x, ŷ) without | generator's objective of D without |

f: features of all of D's stages and what it is shown, each by its mean absolute difference, mean over the stages. D has
no bound there, but for its clipped weights.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from pipeline import objectives
from pipeline.methods.adversarial import discriminator_terms
from pipeline.methods.base import Batch, Player, Shared, Terms, every, is_labelled
from pipeline.methods.segmentation import MaskLoss
from pipeline.networks import SegmentationCritic

NO_LOSS = "none"


class AdversarialSegmentation:
    """A segmentor whose critic looks at images together with their segmentations.

    The defaults are Luc's.

    Args:
        segmentor: S, images (B, C, H, W) in [0, 1] to lesion logits (B, 1, H, W).
        critic: D.
        loss: l, as of `MaskLoss`, or `none`.
        tells: what D tells apart: `drawn` masks from predicted ones of the same images, or segmentations of `labelled`
            images from those of others.
        feedback: what S is told: `scores`, or D's `features`, which need drawn and predicted masks of the same images.
        objective: of D and S, by name or as an object; with `features` it only holds D's weights, and is Wasserstein's.
        lambda_adv: λ.
        critic_steps: steps of D for each step of S.

    Raises:
        ValueError: if the options do not go together.
    """

    def __init__(
        self,
        segmentor: nn.Module,
        critic: SegmentationCritic,
        loss: str = "ce",
        tells: Literal["drawn", "labelled"] = "drawn",
        feedback: Literal["scores", "features"] = "scores",
        objective: objectives.Objective | str = "non_saturating",
        lambda_adv: float = 0.1,
        critic_steps: int = 1,
    ) -> None:
        self.objective = objectives.objective(objective)
        _check(tells, feedback, self.objective, lambda_adv)
        self.S, self.D = segmentor, critic
        self.networks: dict[str, nn.Module] = {"segmentor": segmentor, "critic": critic}
        self.exports = {"segmentor": segmentor}
        self.loss = None if loss == NO_LOSS else MaskLoss(loss)
        self.tells, self.feedback, self.lambda_adv = tells, feedback, lambda_adv
        self.players = (
            Player("critic", ("critic",), self.criticise, after_step=lambda: self.objective.constrain(critic)),
            Player("segmentor", ("segmentor",), self.segment, every(critic_steps)),
        )

    def forward(self, batch: Batch) -> Shared:
        """S(x) of all images."""
        return {"logits": self.S(batch["image"])}

    def criticise(self, batch: Batch, shared: Shared) -> Terms:
        """D plays."""
        # Zhang's real segmentations are S's own, too.
        real, fake = (shown.detach() for shown in self._shown(batch, shared))
        if len(real) == 0:
            return {"critic": self._nothing("critic")}
        if self.feedback == "features":
            return {"critic": -self._distance(real, fake)}
        return discriminator_terms(self.objective, self.D, real, fake, "critic")

    def segment(self, batch: Batch, shared: Shared) -> Terms:
        """S plays."""
        known = is_labelled(batch)
        terms: Terms = {}
        if self.loss is not None and known.any():
            terms = self.loss(shared["logits"][known], batch["mask"][known])
        real, fake = self._shown(batch, shared)
        if len(fake):
            told = self._distance(real, fake) if self.feedback == "features" else self.objective.generator(self.D(fake))
            terms["adversarial"] = self.lambda_adv * told
        return terms or {"adversarial": self._nothing("segmentor")}

    def _shown(self, batch: Batch, shared: Shared) -> tuple[Tensor, Tensor]:
        """What D is to take for real, and what S wants to pass for it; as many of both."""
        x, found, known = batch["image"], shared["logits"].sigmoid(), is_labelled(batch)
        if self.tells == "drawn":
            x, found = x[known], found[known]
            return self.D.shown(x, batch["mask"][known].to(found)), self.D.shown(x, found)
        # As many, so that chance does not tell D which kind is the more frequent.
        count = min(int(known.sum()), int((~known).sum()))
        real, fake = (self.D.shown(x[which][:count], found[which][:count]) for which in (known, ~known))
        return real, fake

    def _distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """Mean over the stages of the mean absolute difference of features."""
        pairs = zip(self.D.features(real), self.D.features(fake), strict=True)
        return torch.stack([l1_loss(of_fake, of_real) for of_real, of_fake in pairs]).mean()

    def _nothing(self, network: str) -> Tensor:
        """0, of a batch that says nothing to a player, with a gradient of 0 for all that its optimiser holds."""
        return torch.stack([0 * parameter.sum() for parameter in self.networks[network].parameters()]).sum()


def _check(tells: str, feedback: str, objective: objectives.Objective, lambda_adv: float) -> None:
    for name, found, known in (
        ("tells", tells, ("drawn", "labelled")),
        ("feedback", feedback, ("scores", "features")),
    ):
        if found not in known:
            raise ValueError(f"{name} is {' or '.join(map(repr, known))}, found {found!r}")
    if not 0 < lambda_adv < math.inf:
        raise ValueError(f"lambda_adv must be a number above 0, found {lambda_adv}")
    if feedback == "features" and tells != "drawn":
        raise ValueError("features are compared between drawn and predicted masks of one image; set tells to 'drawn'")
    if feedback == "features" and not isinstance(objective, objectives.Wasserstein):
        raise ValueError(
            f"a critic that maximises a distance of features needs clipped weights, the objective wasserstein, found "
            f"{type(objective).__name__}"
        )
