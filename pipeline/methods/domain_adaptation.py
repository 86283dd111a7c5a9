"""Unsupervised domain adaptation of a segmentor (survey, Section 4, Eq. 9 and Fig. 7; Section 5.5 and Fig. 10).

x_S: source image with its lesion mask; x_T: target image, of which no mask is used; H: all layers of the segmentor but
the last, C: the last; h: activations of one or several layers of H; D: domain discriminator; R: leaves its input as it
is and reverses the gradient.

    L = L_c(C(H(x_S)), mask) + L_d(D(R(h))),    ∂R/∂h = −λ_p
    L_d = −½ E[log D(h(x_S))] − ½ E[log(1 − D(h(x_T)))]                                    (Eq. 9, halved)

One player minimises L: D learns to tell the domains apart, and by the reversal H learns that it cannot, which is the
survey's "while L_d is maximised"; λ_p rises with the training (Ganin and Lempitsky 2015; `dann`). With the activations
of the last layer alone this is domain-adversarial training (Ganin et al. 2016); with those of several depths and scales
it is the multi-connected network of Kamnitsas et al. (2017).
"""

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.methods.base import Batch, Player, Shared, Terms
from pipeline.methods.dann import GradientReversal, domain_loss
from pipeline.methods.segmentation import MaskLoss
from pipeline.networks import DomainDiscriminator, UNetSegmentor
from pipeline.networks.domain import merged

LAST = ("upcat_1",)
# D sees a quarter of the image's pixels a side: activations of all depths are brought there.
COARSER = 4


class DomainAdaptation:
    """A segmentor that learns from masks of the source domain, by activations that do not tell the domain.

    Args:
        segmentor: C ∘ H, images (B, 1, H, W) in [0, 1] to lesion logits.
        source: name of the source domain, whose images and masks are `image_<source>` and `mask_<source>` of a batch;
            `image` is of the target domain.
        steps: of the whole training, over which λ_p rises.
        layers: whose activations D sees, by their names in `pipeline.networks.unet.LAYERS`.
        weight: what λ_p rises to.
        hidden: channels of D.

    Raises:
        ValueError: if a layer is none of the segmentor's.
    """

    def __init__(
        self,
        segmentor: UNetSegmentor,
        source: str,
        steps: int,
        layers: Sequence[str] = LAST,
        weight: float = 1.0,
        hidden: int = 32,
    ) -> None:
        if isinstance(layers, str) or not layers or not set(layers) <= set(segmentor.channels):
            raise ValueError(f"layers are some of {', '.join(segmentor.channels)}, found {layers!r}")
        self.source, self.layers = source, tuple(layers)
        self.loss = MaskLoss("ce+dice")  # L_c
        channels = sum(segmentor.channels[layer] for layer in self.layers)
        discriminator = nn.Sequential(GradientReversal(steps, weight), DomainDiscriminator(channels, hidden))
        self.networks: dict[str, nn.Module] = {"segmentor": segmentor, "domain_discriminator": discriminator}
        self.exports = {"segmentor": segmentor}
        self.segmentor, self.D = segmentor, discriminator
        self.players = (Player("segmentor", tuple(self.networks), self.adapt),)

    def forward(self, batch: Batch) -> Shared:
        """Nothing is shared: the reversed gradient makes one player of two."""
        del batch
        return {}

    def adapt(self, batch: Batch, shared: Shared) -> Terms:
        """Segmentor and D play for L, against each other by the reversal."""
        del shared
        x_S, x_T, mask = batch[f"image_{self.source}"], batch["image"], batch[f"mask_{self.source}"]
        features = self.segmentor.features(torch.cat([x_S, x_T]))
        logits = self.segmentor.logits(features)[: len(x_S)]
        size = (x_S.shape[-2] // COARSER, x_S.shape[-1] // COARSER)
        h = merged([features[layer] for layer in self.layers], size)
        return {**self.loss(logits, mask), "domain": domain_loss(self.D(h), (len(x_S), len(x_T)))}
