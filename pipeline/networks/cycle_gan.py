"""The patch discriminator of pix2pix and CycleGAN, and CycleGAN's way back; its generator is `JohnsonGenerator`."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.networks.blocks import LEAK, normed, rectifier, spectrally_normed

STRIDED = (1, 2, 3)


class PatchGANDiscriminator(nn.Module):
    """The PatchGAN of Isola et al. (2017): each score sees 70×70 pixels, or fewer, or the whole image.

    With `filters` F = 64, the three strided layers of the 70×70 PatchGAN, and images of 256×256:

    | layer | kernel, stride | output |
    |---|---|---|
    | convolution, leaky ReLU | 4×4, 2 | F × 128 × 128 |
    | convolution, instance norm, leaky ReLU | 4×4, 2 | 2F × 64 × 64 |
    | convolution, instance norm, leaky ReLU | 4×4, 2 | 4F × 32 × 32 |
    | convolution, instance norm, leaky ReLU | 4×4, 1 | 8F × 31 × 31 |
    | convolution | 4×4, 1 | 1 × 30 × 30 |

    Args:
        filters: F.
        spectral_norm: bound each layer's gain (Miyato et al. 2018).
        in_channels: of the image; of a pair, those of both.
        strided: layers of stride 2, which set the field that a score sees: 1, 2, 3 for 16, 34, 70 pixels a side.
        whole_image: one score for the image: what the last layer sees is averaged to 4×4 before it, so that the layout
            of the image is kept, and images may have any size.

    Raises:
        ValueError: if `strided` is not 1, 2 or 3.
    """

    def __init__(
        self,
        filters: int = 64,
        spectral_norm: bool = False,
        in_channels: int = 1,
        strided: int = 3,
        whole_image: bool = False,
    ) -> None:
        super().__init__()
        if strided not in STRIDED:
            raise ValueError(f"strided is a number of layers, one of {', '.join(map(str, STRIDED))}, found {strided}")
        widths = [filters * 2**level for level in range(strided + 1)]
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, filters, 4, stride=2, padding=1),
            rectifier(LEAK),
            *(
                layer
                for before, after in pairwise(widths[:-1])
                for layer in normed(nn.Conv2d(before, after, 4, stride=2, padding=1), LEAK)
            ),
            *normed(nn.Conv2d(widths[-2], widths[-1], 4, padding=1), LEAK),
            *([nn.AdaptiveAvgPool2d(4)] if whole_image else []),
            nn.Conv2d(widths[-1], 1, 4, padding=0 if whole_image else 1),
        )
        if spectral_norm:
            spectrally_normed(self)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 _ _"]:
        """Scores (B, 1, H/8 − 2, W/8 − 2) for images (B, C, H, W); H and W divisible by 8, at least 32.

        With fewer strided layers 2 or 4 stands for 8; of the whole image, scores are (B, 1, 1, 1).
        """
        scores: Tensor = self.layers(image)
        return scores


class PlainCycle(nn.Module):
    """The way back of CycleGAN: the other generator, which knows nothing but the image it is given.

    Args:
        generator: healthy to pathological.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self,
        pseudo_healthy: Float[Tensor, "batch channel height width"],
        image: Float[Tensor, "batch channel height width"],
    ) -> Float[Tensor, "batch channel height width"]:
        """The reconstruction from the first alone; the second, the image it was made from, is not looked at."""
        del image
        reconstructed: Tensor = self.generator(pseudo_healthy)
        return reconstructed
