"""U-Net (Ronneberger et al. 2015) as segmentor: MONAI's, with one logit a pixel."""

import math
from typing import Literal

from jaxtyping import Float
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

# Lesions cover a few percent of a slice. Starting from their log-odds spares the hundreds of steps in which a segmentor
# with a rate of 1e-3 would learn nothing but that most pixels are healthy (the prior of Lin et al. 2017, Section 4.1).
LESION_SHARE = 0.02
# Of the five stages down and the last one up, in multiples of the first.
WIDTHS = {"basic": (1, 1, 2, 4, 8, 1), "doubling": (1, 2, 4, 8, 16, 1)}

# MONAI's names of the stages: the first, four down, four up.
LAYERS = ("conv_0", "down_1", "down_2", "down_3", "down_4", "upcat_4", "upcat_3", "upcat_2", "upcat_1")


class UNetSegmentor(nn.Module):
    """MONAI's BasicUNet with a single lesion logit: four stages down, two 3×3 convolutions a stage, skips.

    Args:
        in_channels: sequences of the image.
        neighbours: slices above and below that it sees with each, as further channels of each sequence.
        filters: channels of the first stage, F.
        widths: of the stages: `basic`, F, F, 2F, 4F, 8F as MONAI has them by default, or `doubling`, F, 2F, 4F, 8F, 16F
            as Ronneberger et al. (their F is 64); the last decoder stage has F.

    Attributes:
        channels: of the activations of each of `LAYERS`.
    """

    output_type = "segmentation"

    def __init__(
        self,
        in_channels: int = 1,
        filters: int = 32,
        widths: Literal["basic", "doubling"] = "basic",
        neighbours: int = 0,
    ) -> None:
        super().__init__()
        if widths not in WIDTHS:
            raise ValueError(f"widths is {' or '.join(map(repr, WIDTHS))}, found {widths!r}")
        self.unet = BasicUNet(
            spatial_dims=2,
            in_channels=in_channels * (2 * neighbours + 1),
            out_channels=1,
            features=tuple(filters * times for times in WIDTHS[widths]),
        )
        nn.init.constant_(self.unet.final_conv.bias, math.log(LESION_SHARE / (1 - LESION_SHARE)))
        first, *down, last = (filters * times for times in WIDTHS[widths])
        self.channels = dict(zip(LAYERS, (first, *down, *reversed([first, *down][1:-1]), last), strict=True))

    def features(self, image: Float[Tensor, "batch channel height width"]) -> dict[str, Float[Tensor, "batch _ _ _"]]:
        """Activations of each of `LAYERS` by its name, in the order in which they are computed.

        `logits` of the last of them are what `forward` gives.
        """
        unet = self.unet
        x0 = unet.conv_0(image)
        x1 = unet.down_1(x0)
        x2 = unet.down_2(x1)
        x3 = unet.down_3(x2)
        x4 = unet.down_4(x3)
        u4 = unet.upcat_4(x4, x3)
        u3 = unet.upcat_3(u4, x2)
        u2 = unet.upcat_2(u3, x1)
        u1 = unet.upcat_1(u2, x0)
        return dict(zip(LAYERS, (x0, x1, x2, x3, x4, u4, u3, u2, u1), strict=True))

    def logits(self, features: dict[str, Float[Tensor, "batch _ _ _"]]) -> Float[Tensor, "batch 1 height width"]:
        """Lesion logits from the activations."""
        answer: Tensor = self.unet.final_conv(features[LAYERS[-1]])
        return answer

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 height width"]:
        """Lesion logits of shape (B, 1, H, W) for images (B, C, H, W); H, W divisible by 16, at least 32."""
        # type: (Tensor) -> Tensor
        logits: Tensor = self.unet(image)
        return logits
