"""The critic of adversarial segmentation: it looks at an image together with a segmentation of it."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.networks.blocks import halving_stages

# What it is shown of images of C channels, as channels.
CHANNELS = {"product": lambda C: 2 * C, "masked": lambda C: C, "pair": lambda C: C + 1}


class SegmentationCritic(nn.Module):
    """Four convolutions that halve the sides, with leaky ReLU, then a score of the whole image.

    A drawn mask is 0 or 1 and a predicted one anything between, by which alone a critic can tell them; how much of that
    it is shown is up to `sees` (survey, Section 5.4).

    Args:
        in_channels: of the image, C.
        filters: channels of the first stage, F; the stages have F, 2F, 4F, 8F.
        sees: `product`: x·y and x·(1 − y), the image times the map of each class (Luc et al. 2016); `masked`: x·y
            (SegAN, Xue et al. 2018); `pair`: x beside y.
        norm: `none`, so that the amount of lesion counts, or `instance` in all stages but the first, which bounds the
            features.
        halving: `strided`, or `pooled`: 3×3 convolutions and 2×2 means, so that what it tells a segmentor has no
            raster.
    """

    def __init__(
        self,
        in_channels: int = 1,
        filters: int = 32,
        sees: Literal["product", "masked", "pair"] = "product",
        norm: Literal["none", "instance"] = "none",
        halving: Literal["strided", "pooled"] = "strided",
    ) -> None:
        super().__init__()
        if sees not in CHANNELS:
            raise ValueError(f"sees is one of {', '.join(CHANNELS)}, found {sees!r}")
        if norm not in ("none", "instance"):
            raise ValueError(f"norm is 'none' or 'instance', found {norm!r}")
        if halving not in ("strided", "pooled"):
            raise ValueError(f"halving is 'strided' or 'pooled', found {halving!r}")
        self.sees = sees
        self.stages = halving_stages(
            CHANNELS[sees](in_channels), filters, norm=norm == "instance", pooled=halving == "pooled"
        )
        self.last = nn.Conv2d(8 * filters, 1, 1)

    def shown(
        self, image: Float[Tensor, "batch channel height width"], mask: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch _ height width"]:
        """What the critic is shown of images (B, C, H, W) and masks or probabilities (B, 1, H, W) in [0, 1]."""
        if self.sees == "pair":
            return torch.cat((image, mask), dim=1)
        inside = image * mask
        return inside if self.sees == "masked" else torch.cat((inside, image - inside), dim=1)

    def features(self, shown: Float[Tensor, "batch channel height width"]) -> list[Tensor]:
        """What it is shown, and what each stage makes of it: (B, F, H/2, W/2), (B, 2F, H/4, W/4) and so on."""
        features = [shown]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features

    def forward(self, shown: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1"]:
        """One linear score an image, shape (B, 1), of what `shown` gives; H, W divisible by 16, at least 32."""
        scores: Tensor = self.last(self.features(shown)[-1]).mean(dim=(2, 3))
        return scores
