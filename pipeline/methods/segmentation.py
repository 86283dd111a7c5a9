"""Supervised lesion segmentation: one player, no game. Also how the segmentor that judges healthiness is trained."""

from monai.losses import DiceLoss
from torch import nn

from pipeline.losses import weighted_cross_entropy
from pipeline.methods.base import Batch, Player, Shared, Terms


class Segmentation:
    """Two-class cross-entropy + Dice loss against the lesion mask.

    PHS-GAN (Section 4.2) scores healthiness with a segmentor f_pre that is trained before and apart from the method
    under test; this is how it is trained.

    Args:
        segmentor: images (B, C, H, W) in [0, 1] to lesion logits (B, 1, H, W).
    """

    def __init__(self, segmentor: nn.Module) -> None:
        self.networks = {"segmentor": segmentor}
        self.exports = {"segmentor": segmentor}
        self.players = (Player("segmentor", ("segmentor",), self.supervise),)
        # Over the whole batch: a healthy slice by itself has no lesion to overlap with, so that its Dice loss is 1
        # whatever is predicted; in the batch each false alarm on it counts.
        self.dice_loss = DiceLoss(sigmoid=True, batch=True)

    def forward(self, batch: Batch) -> Shared:
        """Nothing is shared: there is one player."""
        del batch
        return {}

    def supervise(self, batch: Batch, shared: Shared) -> Terms:
        """Find the lesion in the real image."""
        del shared
        logits, mask = self.networks["segmentor"](batch["image"]), batch["mask"]
        return {"ce": weighted_cross_entropy(logits, mask), "dice": self.dice_loss(logits, mask)}
