"""The map generator and the critic of VA-GAN (Baumgartner et al. 2018), in two dimensions."""

import itertools
from typing import Literal

from jaxtyping import Float
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from pipeline.networks.blocks import as_output, check_output, rectifier, spectrally_normed, start_at_zero


class MapGenerator(nn.Module):
    """A U-Net M that puts out an additive map, and the image that the map leads to.

    Args:
        filters: F; the stages have F, F, 2F, 4F, 8F channels.
        output: `shortcut`: y = tanh(x + M(x)) on images scaled to [−1, 1], as in VA-GAN; `residual`:
            y = x + M(x) in [0, 1], where the map starts at zero; or `image`: M(x) alone, squashed, for an image of
            another contrast. tanh changes an image even where the map is zero.
        in_channels: of the image; the map is added to the first.
    """

    output_type = "image"

    def __init__(
        self, filters: int = 32, output: Literal["shortcut", "residual", "image"] = "shortcut", in_channels: int = 1
    ) -> None:
        super().__init__()
        check_output(output, ("shortcut", "residual", "image"))
        self.output = output
        self.unet = BasicUNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=1,
            features=(filters, filters, 2 * filters, 4 * filters, 8 * filters, filters),
        )
        if output == "residual":
            start_at_zero(self.unet.final_conv)

    def map(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 height width"]:
        """M(x), unbounded, (B, 1, H, W), of images (B, C, H, W) in [0, 1]; H, W divisible by 16, at least 32."""
        # type: (Tensor) -> Tensor
        effect: Tensor = self.unet(2 * image - 1)
        return effect

    def apply_map(
        self, image: Float[Tensor, "batch channel height width"], effect: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """The image that a map leads to: y, on the image's scale."""
        # type: (Tensor, Tensor) -> Tensor
        if self.output == "residual":
            return image[:, :1] + effect
        return as_output(self.output, effect, image[:, :1])

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 height width"]:
        """The image that M's map leads to, such as the pseudo-healthy one, shape (B, 1, H, W)."""
        # type: (Tensor) -> Tensor
        return self.apply_map(image, self.map(image))


class MapCritic(nn.Module):
    """A fully convolutional critic: the stages of C3D (Tran et al. 2015) with 3×3 kernels, without normalisation.

    Batch or instance statistics would tie samples or pixels together that the gradient penalty treats by themselves.
    With `filters` F = 16 and images of 240×240:

    | layer | output |
    |---|---|
    | convolution, ReLU, 2×2 maximum | F × 120 × 120 |
    | convolution, ReLU, 2×2 maximum | 2F × 60 × 60 |
    | 2 × (convolution, ReLU), 2×2 maximum | 4F × 30 × 30 |
    | 2 × (convolution, ReLU), 2×2 maximum | 8F × 15 × 15 |
    | 2 × (convolution, ReLU) | 8F × 15 × 15 |
    | 1×1 convolution, mean over pixels | 1 |

    Args:
        filters: F.
        spectral_norm: bound each layer's gain (Miyato et al. 2018).
    """

    def __init__(self, filters: int = 16, spectral_norm: bool = False) -> None:
        super().__init__()
        F = filters
        stages = ((1, F), (F, 2 * F), (2 * F, 4 * F, 4 * F), (4 * F, 8 * F, 8 * F), (8 * F, 8 * F, 8 * F))
        layers: list[nn.Module] = []
        for number, channels in enumerate(stages, start=1):
            for before, after in itertools.pairwise(channels):
                layers += [nn.Conv2d(before, after, 3, padding=1), rectifier(0)]
            if number < len(stages):
                layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * F, 1, 1))
        if spectral_norm:
            spectrally_normed(self)

    def forward(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1"]:
        """One score a sample, shape (B, 1), for images (B, 1, H, W); H and W at least 16."""
        scores: Tensor = self.layers(image).mean(dim=(2, 3))
        return scores
