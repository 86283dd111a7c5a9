"""A residual network (He et al. 2016) with one number at its end."""

from jaxtyping import Float
from monai.networks.nets import ResNet
from torch import Tensor, nn


class ScoreResNet(ResNet):
    """MONAI's ResNet of basic blocks, whose output is scaled to the range of a target.

    Targets have shape (B, 1) for images (B, in_channels, H, W); H, W at least 32.

    Args:
        in_channels: of the image.
        filters: channels of the first stage, F; the four stages have F, 2F, 4F, 8F.
        blocks: residual blocks in each stage; 2 gives the depth of ResNet-18.
        mean: of the training targets, the answer to features of zero.
        deviation: of the training targets.
    """

    output_type = "regression"

    def __init__(
        self, in_channels: int = 1, filters: int = 64, blocks: int = 2, mean: float = 0.0, deviation: float = 1.0
    ) -> None:
        super().__init__(
            "basic",
            layers=[blocks] * 4,
            block_inplanes=[filters, 2 * filters, 4 * filters, 8 * filters],
            spatial_dims=2,
            n_input_channels=in_channels,
            num_classes=1,
        )
        self.fc = _ScaledLinear(8 * filters, mean, deviation)


class _ScaledLinear(nn.Linear):
    """A standardised score from features (B, F), in the target's units."""

    def __init__(self, features: int, mean: float, deviation: float) -> None:
        super().__init__(features, 1)
        nn.init.zeros_(self.bias)
        self.mean = float(mean)
        self.deviation = float(deviation)

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch 1"]:
        """Features of each image to its score, on the target's scale."""
        # type: (Tensor) -> Tensor
        return self.mean + self.deviation * nn.functional.linear(features, self.weight, self.bias)
