"""The generator, reconstructor and discriminators of PHS-GAN (Xia et al. 2019, Appendix A, Tables 2 to 4)."""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.networks.blocks import (
    LEAK,
    ResidualBlock,
    SamePadConv,
    as_output,
    check_output,
    normed,
    spectrally_normed,
    start_at_zero,
)


class PHSGenerator(nn.Module):
    """G (Table 2), and with `in_channels` 2 the reconstructor R (Table 3).

    With `filters` F = 32 and the paper's slices of 208×160:

    | layer | kernel, stride | output |
    |---|---|---|
    | convolution, instance norm, ReLU | 7×7, 1 | F × 208 × 160 |
    | convolution, instance norm, ReLU | 3×3, 2 | 2F × 104 × 80 |
    | convolution, instance norm, ReLU | 3×3, 2 | 4F × 52 × 40 |
    | 6 residual blocks with leaky ReLU | 3×3, 1 | 4F × 52 × 40 |
    | upsampling (nearest neighbour) | | 4F × 104 × 80 |
    | convolution, instance norm, ReLU | 3×3, 1 | 2F × 104 × 80 |
    | upsampling (nearest neighbour) | | 2F × 208 × 160 |
    | convolution, instance norm, ReLU | 3×3, 1 | F × 208 × 160 |
    | convolution, sigmoid | 3×3, 1 | 1 × 208 × 160 |

    Table 3 prints two output channels for R; its output is compared with an image, so there is one.

    Args:
        in_channels: 1 for G; 2 for R, the image and the pathology mask.
        filters: F.
        residual_blocks: 6 in the paper.
        output: `sigmoid` as printed, or `residual` on the first channel, where the last layer starts at zero: see
            `pipeline.networks.blocks.as_output`.
    """

    output_type = "image"

    def __init__(
        self,
        in_channels: int = 1,
        filters: int = 32,
        residual_blocks: int = 6,
        output: Literal["sigmoid", "residual"] = "sigmoid",
    ) -> None:
        super().__init__()
        check_output(output, ("sigmoid", "residual"))
        self.output = output
        F = filters
        self.encoder = nn.Sequential(
            *normed(nn.Conv2d(in_channels, F, 7, padding=3)),
            *normed(nn.Conv2d(F, 2 * F, 3, stride=2, padding=1)),
            *normed(nn.Conv2d(2 * F, 4 * F, 3, stride=2, padding=1)),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * F, LEAK) for _ in range(residual_blocks)))
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2),
            *normed(nn.Conv2d(4 * F, 2 * F, 3, padding=1)),
            nn.Upsample(scale_factor=2),
            *normed(nn.Conv2d(2 * F, F, 3, padding=1)),
        )
        self.last = nn.Conv2d(F, 1, 3, padding=1)
        if output == "residual":
            start_at_zero(self.last)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 height width"]:
        """Shape (B, in_channels, H, W) in [0, 1] to (B, 1, H, W); H and W divisible by 4, at least 8."""
        # type: (Tensor) -> Tensor
        raw = self.last(self.decoder(self.blocks(self.encoder(image))))
        return as_output(self.output, raw, image[:, :1])


class PHSDiscriminator(nn.Module):
    """D_x and D_m (Table 4).

    With the paper's slices of 208×160:

    | layer | kernel, stride | output |
    |---|---|---|
    | convolution, instance norm, leaky ReLU | 4×4, 2 | 32 × 104 × 80 |
    | convolution, instance norm, leaky ReLU | 4×4, 2 | 128 × 52 × 40 |
    | convolution, instance norm, leaky ReLU | 4×4, 2 | 256 × 26 × 20 |
    | convolution, instance norm, leaky ReLU | 4×4, 2 | 512 × 13 × 10 |
    | convolution | 4×4, 1 | 1 × 13 × 10 |

    Table 4 prints two input channels; what is judged, an image or a mask, has one.

    Args:
        filters: of the four strided layers; the jump from 32 to 128 is printed so.
        sigmoid: end in a sigmoid as printed; without it scores are linear, as all objectives but least squares need
            (`pipeline.methods.adversarial.check_scores`).
        spectral_norm: bound each layer's gain (Miyato et al. 2018).
    """

    def __init__(
        self,
        filters: Sequence[int] = (32, 128, 256, 512),
        sigmoid: bool = False,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        channels = (1, *filters)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            layers += normed(nn.Conv2d(before, after, 4, stride=2, padding=1), LEAK)
        layers.append(SamePadConv(channels[-1], 1))
        if sigmoid:
            layers.append(nn.Sigmoid())
        self.layers = nn.Sequential(*layers)
        if spectral_norm:
            spectrally_normed(self)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 _ _"]:
        """Scores of overlapping patches, (B, 1, H/16, W/16), for (B, 1, H, W); H, W divisible by 16, at least 32."""
        scores: Tensor = self.layers(image)
        return scores


class FactorisedCycle(nn.Module):
    """The way back of cycle P-H: x̂_p = R(x̃_h, S(x_p)), from the healthy image and the pathology map (Section 3.3).

    Args:
        reconstructor: R, image and mask (B, 2, H, W) to an image.
        segmentor: S, image to lesion logits.
    """

    def __init__(self, reconstructor: nn.Module, segmentor: nn.Module) -> None:
        super().__init__()
        self.reconstructor = reconstructor
        self.segmentor = segmentor

    def forward(
        self, pseudo_healthy: Float[Tensor, "batch 1 height width"], image: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """Both of shape (B, 1, H, W) in [0, 1] to the reconstructed pathological image."""
        mask = torch.sigmoid(self.segmentor(image))
        reconstructed: Tensor = self.reconstructor(torch.cat((pseudo_healthy, mask), dim=1))
        return reconstructed
