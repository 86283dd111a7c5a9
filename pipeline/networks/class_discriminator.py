"""A discriminator that tells classes, for semi-supervised learning (Salimans et al. 2016)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.networks.blocks import halving_stages


class ClassDiscriminator(nn.Module):
    """Four 4×4 convolutions of stride 2 with leaky ReLU, their mean over the pixels, and a logit of each class.

    Without normalisation: statistics over a batch would mix real and fake images, and those over an image are what its
    mean over the pixels is to keep.

    Args:
        classes: names of the K classes.
        in_channels: of the image.
        filters: channels of the first stage, F; the stages have F, 2F, 4F, 8F.
        dropout: share of the features that are dropped before the logits while it trains.

    Raises:
        ValueError: if there are fewer than two classes.
    """

    output_type = "classification"

    def __init__(self, classes: Sequence[str], in_channels: int = 1, filters: int = 32, dropout: float = 0.5) -> None:
        super().__init__()
        if len(classes) < 2:
            raise ValueError(f"classes are at least two names, found {list(classes)}")
        self.stages = halving_stages(in_channels, filters)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(8 * filters, len(classes))

    def features(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch features"]:
        """What the last layer sees of images (B, C, H, W), (B, 8F); H, W divisible by 16."""
        # type: (Tensor) -> Tensor
        found = 2 * image - 1
        for stage in self.stages:
            found = stage(found)
        return torch.mean(found, dim=(2, 3))

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch classes"]:
        """Logits (B, K) of images (B, C, H, W) in [0, 1]."""
        # type: (Tensor) -> Tensor
        logits: Tensor = self.last(self.dropout(self.features(image)))
        return logits
