"""Multi-task learning (DUIIT, Section 4.3): one network predicts in the target modality and in source modalities.

x: image of the target modality with its label r_t; y: image of a source modality with its label r_s; φ: the features of
P; H_s: a head for a source.

    L = l(P(x), r_t) + Σ_s l(H_s(φ(y)), r_s)

With P's own head in place of H_s the modalities are pooled: for images that were translated before, this is DUIIT's
baseline CycleGAN; for images as they are, a control. Without sources P learns from the target modality alone.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from pipeline.methods.base import Batch, Player, Shared, Terms
from pipeline.methods.duiit import PredictionLoss
from pipeline.networks import ScoreResNet


class MultiTask:
    """Prediction in several modalities by shared features.

    Args:
        predictor: P.
        sources: names of the source modalities, whose images and labels are `image_<s>` and `target_<s>` of a batch.
        loss: l.
        own_heads: whether each source has a head of its own, which starts as that of P.
    """

    def __init__(
        self,
        predictor: ScoreResNet,
        sources: Sequence[str] = (),
        loss: PredictionLoss | None = None,
        own_heads: bool = True,
    ) -> None:
        self.sources = tuple(sources)
        self.loss = loss or PredictionLoss(reduction="mean")
        heads = {s: copy.deepcopy(predictor.fc) if own_heads else predictor.fc for s in sources}
        self.networks: dict[str, nn.Module] = {"predictor": predictor}
        if heads and own_heads:
            self.networks["heads"] = nn.ModuleDict(heads)
        self.exports = {"predictor": predictor}
        self.P, self.H = predictor, heads
        self.players = (Player("predictor", tuple(self.networks), self.predict),)

    def forward(self, batch: Batch) -> Shared:
        """Nothing is shared: there is one player."""
        del batch
        return {}

    def predict(self, batch: Batch, shared: Shared) -> Terms:
        """P and the heads play for L."""
        del shared
        images = [batch["image"], *(batch[f"image_{s}"] for s in self.sources)]
        # One pass over all: P normalises by batch.
        features = self.P.features(torch.cat(images)).split([len(image) for image in images])
        terms = {"target": self.loss(self.P.fc(features[0]), batch["target"])}
        for s, of_source in zip(self.sources, features[1:], strict=True):
            terms[f"source_{s}"] = self.loss(self.H[s](of_source), batch[f"target_{s}"])
        return terms
