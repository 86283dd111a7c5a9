"""The segmentor of PHS-GAN: a U-Net with leaky ReLU and a residual connection around each stage (Appendix A)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.networks.blocks import LEAK, normed, rectifier
from pipeline.networks.unet import LESION_SHARE


class ResidualUNet(nn.Module):
    """Ronneberger et al.'s U-Net with padded convolutions, instance norm, leaky ReLU and residual stages.

    With `filters` F and an input of H×W:

    | stage | output |
    |---|---|
    | residual stage | F × H × W |
    | 2×2 maximum, residual stage | 2F × H/2 × W/2 |
    | 2×2 maximum, residual stage | 4F × H/4 × W/4 |
    | 2×2 maximum, residual stage | 8F × H/8 × W/8 |
    | 2×2 maximum, residual stage | 16F × H/16 × W/16 |
    | up-convolution 2×2, skip, residual stage | 8F × H/8 × W/8 |
    | up-convolution 2×2, skip, residual stage | 4F × H/4 × W/4 |
    | up-convolution 2×2, skip, residual stage | 2F × H/2 × W/2 |
    | up-convolution 2×2, skip, residual stage | F × H × W |
    | 1×1 convolution | 1 × H × W |

    Args:
        in_channels: of the image.
        filters: F; 64 in Ronneberger et al.
    """

    output_type = "segmentation"

    def __init__(self, in_channels: int = 1, filters: int = 32) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(5)]
        self.down = nn.ModuleList(
            ResidualStage(before, after) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in reversed(widths[:-1]))
        self.merge = nn.ModuleList(ResidualStage(2 * width, width) for width in reversed(widths[:-1]))
        self.last = nn.Conv2d(filters, 1, 1)
        nn.init.constant_(self.last.bias, math.log(LESION_SHARE / (1 - LESION_SHARE)))  # type: ignore[arg-type]

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 height width"]:
        """Lesion logits of shape (B, 1, H, W) for images (B, in_channels, H, W); H, W divisible by 16, at least 32."""
        features, skips = image, []
        for level, stage in enumerate(self.down):
            features = stage(self.pool(features) if level else features)
            skips.append(features)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = merge(torch.cat((skips.pop(), up(features)), dim=1))
        logits: Tensor = self.last(features)
        return logits


class ResidualStage(nn.Module):
    """Two normalised 3×3 convolutions; the input, projected by a 1×1 convolution, is added before the last rectifier.

    Args:
        in_channels: of the input.
        out_channels: of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *normed(nn.Conv2d(in_channels, out_channels, 3, padding=1), LEAK),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.InstanceNorm2d(out_channels, affine=True),
        )
        self.project = nn.Conv2d(in_channels, out_channels, 1)
        self.rectify = rectifier(LEAK)

    def forward(self, features: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch _ height width"]:
        """Shape (B, in_channels, H, W) to (B, out_channels, H, W)."""
        summed: Tensor = self.rectify(self.project(features) + self.body(features))
        return summed
