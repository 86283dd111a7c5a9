"""CycleGAN's discriminator (Zhu et al. 2017) and way back; its generator is `JohnsonGenerator`."""

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.networks.blocks import LEAK, normed, rectifier, spectrally_normed


class PatchGANDiscriminator(nn.Module):
    """The 70×70 PatchGAN of Isola et al. (2017): each score sees 70×70 pixels.

    With `filters` F = 64 and images of 256×256:

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
    """

    def __init__(self, filters: int = 64, spectral_norm: bool = False) -> None:
        super().__init__()
        F = filters
        self.layers = nn.Sequential(
            nn.Conv2d(1, F, 4, stride=2, padding=1),
            rectifier(LEAK),
            *normed(nn.Conv2d(F, 2 * F, 4, stride=2, padding=1), LEAK),
            *normed(nn.Conv2d(2 * F, 4 * F, 4, stride=2, padding=1), LEAK),
            *normed(nn.Conv2d(4 * F, 8 * F, 4, padding=1), LEAK),
            nn.Conv2d(8 * F, 1, 4, padding=1),
        )
        if spectral_norm:
            spectrally_normed(self)

    def forward(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 _ _"]:
        """Scores (B, 1, H/8 − 2, W/8 − 2) for images (B, 1, H, W); H and W divisible by 8, at least 32."""
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
