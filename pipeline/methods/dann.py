"""Domain-adversarial training (Ganin and Lempitsky 2015), DUIIT's baseline *domain adaptation* (Section 4.3).

x: image of the target modality with its label r_t; y: image of a source modality with its label r_s; φ: the features of
P; D: tells modalities apart; R: leaves its input as it is and reverses the gradient.

    L = Σ_s l(P(y), r_s) + l(P(x), r_t) + CE(D(R(φ)), modality)
    ∂R/∂φ = −λ_p,  λ_p = 2 / (1 + exp(−10 p)) − 1,  p: share of the training that is over

Ganin and Lempitsky know no r_t. DUIIT does not say whether its baseline uses them; it has them, and here they are used
unless that is switched off.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.methods.base import Batch, Player, Shared, Terms
from pipeline.methods.duiit import PredictionLoss
from pipeline.networks import ScoreResNet

STEEPNESS = 10.0


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


class GradientReversal(nn.Module):
    """R: the identity, whose gradient is −λ_p times what it should be.

    How many times it was trained is a buffer, so that a resumed training goes on with its λ_p.

    Args:
        steps: of the whole training.
        weight: what λ_p rises to; 1 in Ganin and Lempitsky.
    """

    step: Tensor

    def __init__(self, steps: int, weight: float = 1.0) -> None:
        super().__init__()
        self.steps = steps
        self.weight = weight
        self.register_buffer("step", torch.tensor(0))

    @property
    def strength(self) -> float:
        """λ_p."""
        return self.weight * (2 / (1 + math.exp(-STEEPNESS * min(1.0, int(self.step) / self.steps))) - 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features of any shape, as they are."""
        reversed_: Tensor = _Reversed.apply(features, self.strength)  # type: ignore[no-untyped-call]
        if self.training:
            self.step += 1
        return reversed_


def domain_loss(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Cross-entropy of a domain classifier; of two domains with as many images, half of the survey's Eq. 9.

    Args:
        logits: shape (B, domains), or (B, domains, H, W) of a classifier that answers at each place.
        sizes: how many images of each domain the batch has, in the order in which they lie in it.

    Returns:
        A scalar: the mean over images and places.
    """
    domain = torch.arange(len(sizes), device=logits.device).repeat_interleave(torch.tensor(sizes, device=logits.device))
    places = logits.shape[2:]
    return cross_entropy(logits, domain.reshape(-1, *[1] * len(places)).expand(-1, *places))


class DANN:
    """Prediction from features by which modalities cannot be told apart.

    Args:
        predictor: P.
        sources: names of the source modalities, whose images and labels are `image_<s>` and `target_<s>` of a batch.
        steps: of the whole training, over which λ_p rises.
        loss: l.
        target_labels: whether l(P(x), r_t) is part of L.
        hidden: features of D between its two layers.
    """

    def __init__(
        self,
        predictor: ScoreResNet,
        sources: Sequence[str],
        steps: int,
        loss: PredictionLoss | None = None,
        target_labels: bool = True,
        hidden: int = 100,
    ) -> None:
        self.sources = tuple(sources)
        self.loss = loss or PredictionLoss(reduction="mean")
        self.target_labels = target_labels
        classifier = nn.Sequential(
            GradientReversal(steps),
            nn.Linear(predictor.fc.in_features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1 + len(self.sources)),
        )
        self.networks: dict[str, nn.Module] = {"predictor": predictor, "domain_classifier": classifier}
        self.exports = {"predictor": predictor}
        self.P, self.D = predictor, classifier
        self.players = (Player("predictor", ("predictor", "domain_classifier"), self.adapt),)

    def forward(self, batch: Batch) -> Shared:
        """Nothing is shared: the reversed gradient makes one player of two."""
        del batch
        return {}

    def adapt(self, batch: Batch, shared: Shared) -> Terms:
        """P and D play for L, against each other by the reversal."""
        del shared
        images = [batch["image"], *(batch[f"image_{s}"] for s in self.sources)]
        sizes = [len(image) for image in images]
        features = self.P.features(torch.cat(images))
        answers = self.P.fc(features).split(sizes)
        terms = {
            f"source_{s}": self.loss(answer, batch[f"target_{s}"])
            for s, answer in zip(self.sources, answers[1:], strict=True)
        }
        if self.target_labels:
            terms["target"] = self.loss(answers[0], batch["target"])
        terms["domain"] = domain_loss(self.D(features), sizes)
        return terms
