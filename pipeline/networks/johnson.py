"""The encoder–decoder of Johnson et al. (2016), the generator of GVS (Section V-B)."""

from typing import Literal

import torch
from torch import Tensor, nn


class JohnsonGenerator(nn.Module):
    """Image in, image of the same size out: one wide layer, two strided stages down, residual blocks, two stages up.

    With `filters` F and an input of H×W (both divisible by 4):

    | layer | kernel, stride | output |
    |---|---|---|
    | convolution, instance norm, ReLU | 7×7, 1 (reflected border) | F × H × W |
    | convolution, instance norm, ReLU | 3×3, 2 | 2F × H/2 × W/2 |
    | convolution, instance norm, ReLU | 3×3, 2 | 4F × H/4 × W/4 |
    | residual blocks: (convolution, norm, ReLU, convolution, norm) + identity | 3×3, 1 | 4F × H/4 × W/4 |
    | up, instance norm, ReLU | 3×3, ½ | 2F × H/2 × W/2 |
    | up, instance norm, ReLU | 3×3, ½ | F × H × W |
    | convolution | 7×7, 1 (reflected border) | 1 × H × W |

    Args:
        in_channels: of the image.
        out_channels: of the image.
        filters: F; 32 as in Johnson et al.
        residual_blocks: 5 as in Johnson et al.
        upsampling: `transposed` convolution as in the paper, or `bilinear` upsampling followed by a convolution, which
            leaves no chequerboard for the players to agree on as a code.
        output: `image`: a scaled tanh gives values in [0, 1], as Johnson et al. scale theirs to the image range;
            `residual`: tanh of the last layer is added to the input, and that layer starts at zero, so that training
            starts from the identity. The sum is not clipped: the segmentor would see no gradient where it is.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        filters: int = 32,
        residual_blocks: int = 5,
        upsampling: Literal["transposed", "bilinear"] = "transposed",
        output: Literal["image", "residual"] = "image",
    ) -> None:
        super().__init__()
        if upsampling not in ("transposed", "bilinear"):
            raise ValueError(f"upsampling is 'transposed' or 'bilinear', found {upsampling!r}")
        if output not in ("image", "residual"):
            raise ValueError(f"output is 'image' or 'residual', found {output!r}")
        self.output = output
        self.encoder = nn.Sequential(
            *_normed(nn.Conv2d(in_channels, filters, 7, padding=3, padding_mode="reflect")),
            *_normed(nn.Conv2d(filters, 2 * filters, 3, stride=2, padding=1)),
            *_normed(nn.Conv2d(2 * filters, 4 * filters, 3, stride=2, padding=1)),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * filters) for _ in range(residual_blocks)))
        self.decoder = nn.Sequential(
            *_up(4 * filters, 2 * filters, upsampling),
            *_up(2 * filters, filters, upsampling),
        )
        self.last = nn.Conv2d(filters, out_channels, 7, padding=3, padding_mode="reflect")
        if output == "residual":
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Translate images of shape (B, in_channels, H, W) in [0, 1]; H and W divisible by 4, at least 8."""
        raw = torch.tanh(self.last(self.decoder(self.blocks(self.encoder(image)))))
        return image + raw if self.output == "residual" else (raw + 1) / 2


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions whose result is added to the input; no ReLU after the sum (Johnson et al.)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_normed(nn.Conv2d(channels, channels, 3, padding=1)),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, channels, H, W) to the same."""
        return features + self.body(features)


def _normed(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
    return convolution, nn.InstanceNorm2d(convolution.out_channels, affine=True), nn.ReLU(inplace=True)


def _up(channels: int, out_channels: int, upsampling: str) -> tuple[nn.Module, ...]:
    if upsampling == "transposed":
        return _normed(nn.ConvTranspose2d(channels, out_channels, 3, stride=2, padding=1, output_padding=1))
    return (
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        *_normed(nn.Conv2d(channels, out_channels, 3, padding=1)),
    )
