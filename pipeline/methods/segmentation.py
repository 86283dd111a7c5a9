"""Supervised lesion segmentation: one player, no game. Also how the segmentor that judges healthiness is trained."""

from monai.losses import DiceLoss
from torch import Tensor, nn

from pipeline.losses import weighted_cross_entropy
from pipeline.methods.base import Batch, Player, Shared, Terms

TERMS = ("ce", "dice")


class MaskLoss:
    """Cross-entropy, Dice loss, or both, of logits against lesion masks.

    Args:
        terms: `ce`, `dice`, or `ce+dice`.

    Raises:
        ValueError: if it is none of these.
    """

    def __init__(self, terms: str) -> None:
        self.terms = terms.split("+")
        if not set(self.terms) <= set(TERMS):
            raise ValueError(f"loss is some of {', '.join(TERMS)}, joined by +, found {terms!r}")
        # Over the whole batch: a healthy slice by itself has no lesion to overlap with, so that its Dice loss is 1
        # whatever is predicted; in the batch each false alarm on it counts.
        self.dice_loss = DiceLoss(sigmoid=True, batch=True)

    def __call__(self, logits: Tensor, mask: Tensor) -> Terms:
        """Each term by name, of shapes (B, 1, H, W)."""
        losses = {"ce": weighted_cross_entropy, "dice": self.dice_loss}
        return {name: losses[name](logits, mask) for name in self.terms}


class Segmentation:
    """Two-class cross-entropy + Dice loss against the lesion mask.

    PHS-GAN (Section 4.2) scores healthiness with a segmentor f_pre that is trained before and apart from the method
    under test; this is how it is trained.

    Args:
        segmentor: images (B, C, H, W) in [0, 1] to lesion logits (B, 1, H, W).
        loss: as of `MaskLoss`.
    """

    def __init__(self, segmentor: nn.Module, loss: str = "ce+dice") -> None:
        self.networks = {"segmentor": segmentor}
        self.exports = {"segmentor": segmentor}
        self.players = (Player("segmentor", ("segmentor",), self.supervise),)
        self.loss = MaskLoss(loss)

    def forward(self, batch: Batch) -> Shared:
        """Nothing is shared: there is one player."""
        del batch
        return {}

    def supervise(self, batch: Batch, shared: Shared) -> Terms:
        """Find the lesion in the real image."""
        del shared
        return self.loss(self.networks["segmentor"](batch["image"]), batch["mask"])
