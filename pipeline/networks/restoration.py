"""Networks of image restoration (survey, Section 5.3): one that predicts the difference, and one that perceives."""

from jaxtyping import Float
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from pipeline.networks.blocks import LEAK, as_output, rectifier, start_at_zero


class RestorationUNet(nn.Module):
    """A U-Net whose output is the difference image: what it puts out is added to the slice that is to be restored.

    MONAI's BasicUNet, four stages down with instance norm, so that a pixel sees all of the artefact that it is part of;
    its last layer starts at zero, and the network as the identity.

    Args:
        in_channels: sequences of the image, the one to restore first.
        neighbours: slices above and below that it sees with each, as further channels of each sequence.
        filters: channels of the first stage, F; the stages have F, 2F, 4F, 8F, 8F, and the last decoder stage F.
    """

    output_type = "image"

    def __init__(self, in_channels: int = 1, neighbours: int = 0, filters: int = 32) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.unet = BasicUNet(
            spatial_dims=2,
            in_channels=in_channels * (2 * neighbours + 1),
            out_channels=1,
            features=(filters, 2 * filters, 4 * filters, 8 * filters, 8 * filters, filters),
        )
        start_at_zero(self.unet.final_conv)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 height width"]:
        """The restored slices.

        Args:
            image: shape (B, in_channels · (2 · neighbours + 1), H, W) in [0, 1], H and W divisible by 16, at least 32:
                sequences outermost, then their slices from the lowest.

        Returns:
            Shape (B, 1, H, W): the middle slice of the first sequence with the difference added, not clipped.
        """
        # type: (Tensor) -> Tensor
        shown = image[:, self.neighbours : self.neighbours + 1]
        return as_output("residual", self.unet(image), shown)


class FeatureEncoder(nn.Module):
    """What a perceptual loss compares images by: the encoder of an autoencoder of the cohort's own slices.

    Yang et al. (2018) take VGG-19 for this, which was trained on photographs; Li et al. (2020) show that an
    autoencoder of scans can stand for it. Without normalisation, so that brightness is among what it perceives.

    Args:
        filters: channels of the first layer, F.
    """

    def __init__(self, filters: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, filters, 3, padding=1),
            rectifier(LEAK),
            nn.Conv2d(filters, 2 * filters, 4, stride=2, padding=1),
            rectifier(LEAK),
            nn.Conv2d(2 * filters, 2 * filters, 3, padding=1),
            rectifier(LEAK),
            nn.Conv2d(2 * filters, 4 * filters, 4, stride=2, padding=1),
        )

    def forward(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch _ _ _"]:
        """Features (B, 4F, H/4, W/4) of images (B, 1, H, W); H and W divisible by 4."""
        # type: (Tensor) -> Tensor
        features: Tensor = self.layers(image)
        return features


class FeatureDecoder(nn.Module):
    """The autoencoder's other half: from features, through a few channels, back to the image.

    Args:
        filters: F of the encoder.
        code: channels that the features are squeezed into, so that they must be about what images have in common.
    """

    def __init__(self, filters: int = 16, code: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4 * filters, code, 1),
            nn.Conv2d(code, 4 * filters, 3, padding=1),
            rectifier(LEAK),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(4 * filters, 2 * filters, 3, padding=1),
            rectifier(LEAK),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(2 * filters, filters, 3, padding=1),
            rectifier(LEAK),
            nn.Conv2d(filters, 1, 3, padding=1),
        )

    def forward(self, features: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 _ _"]:
        """Images (B, 1, 4h, 4w), about in [0, 1], of features (B, 4F, h, w)."""
        # type: (Tensor) -> Tensor
        image: Tensor = self.layers(features)
        return image
