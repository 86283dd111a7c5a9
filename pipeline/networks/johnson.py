"""The encoder–decoder of Johnson et al. (2016): the generator of GVS (Section V-B), of CycleGAN and of ANT-GAN."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.networks.blocks import ResidualBlock, as_output, check_output, normed, start_at_zero


class JohnsonGenerator(nn.Module):
    """Image in, image of the same size out: one wide layer, two strided stages down, residual blocks, two stages up.

    With `filters` F, a `kernel` of 7 and an input of H×W (both divisible by 4):

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
        out_channels: of the result; a residual is added to as many of the image's channels, from the first.
        filters: F; 32 in Johnson et al., 64 in CycleGAN.
        residual_blocks: 5 in Johnson et al., 9 in CycleGAN.
        upsampling: `transposed` convolution as in the paper, or `bilinear` upsampling followed by a convolution, which
            leaves no chequerboard for the players to agree on as a code.
        output: `image`, as Johnson et al. scale theirs to the image range; `residual`, where the last layer starts at
            zero; or `shortcut`: see `pipeline.networks.blocks.as_output`.
        kernel: side of the first and the last convolution, odd; 9 in Johnson et al., 7 in CycleGAN.
    """

    output_type = "image"

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        filters: int = 32,
        residual_blocks: int = 5,
        upsampling: Literal["transposed", "bilinear"] = "transposed",
        output: Literal["image", "residual", "shortcut"] = "image",
        kernel: int = 7,
    ) -> None:
        super().__init__()
        if upsampling not in ("transposed", "bilinear"):
            raise ValueError(f"upsampling is 'transposed' or 'bilinear', found {upsampling!r}")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel is an odd number of pixels, found {kernel}")
        check_output(output, ("image", "residual", "shortcut"))
        self.output = output
        self.encoder = nn.Sequential(
            *normed(nn.Conv2d(in_channels, filters, kernel, padding=kernel // 2, padding_mode="reflect")),
            *normed(nn.Conv2d(filters, 2 * filters, 3, stride=2, padding=1)),
            *normed(nn.Conv2d(2 * filters, 4 * filters, 3, stride=2, padding=1)),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * filters) for _ in range(residual_blocks)))
        self.decoder = nn.Sequential(
            *_up(4 * filters, 2 * filters, upsampling),
            *_up(2 * filters, filters, upsampling),
        )
        self.last = nn.Conv2d(filters, out_channels, kernel, padding=kernel // 2, padding_mode="reflect")
        if output == "residual":
            start_at_zero(self.last)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch _ height width"]:
        """Translate images of shape (B, in_channels, H, W) in [0, 1]; H and W divisible by 4, at least 8."""
        # type: (Tensor) -> Tensor
        raw = self.last(self.decoder(self.blocks(self.encoder(image))))
        return as_output(self.output, raw, image[:, : raw.shape[1]])


def _up(channels: int, out_channels: int, upsampling: str) -> tuple[nn.Module, ...]:
    if upsampling == "transposed":
        return normed(nn.ConvTranspose2d(channels, out_channels, 3, stride=2, padding=1, output_padding=1))
    return (
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        *normed(nn.Conv2d(channels, out_channels, 3, padding=1)),
    )
