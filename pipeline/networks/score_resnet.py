"""A residual network (He et al. 2016) with one number, or a score for each class, at its end."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from monai.networks.nets import ResNet
from torch import Tensor, nn


class ScoreResNet(ResNet):
    """MONAI's ResNet, whose output is scaled to the range of a target, or logits of classes.

    Targets have shape (B, 1), logits (B, K), for images (B, in_channels, H, W); H, W at least 32.

    Args:
        in_channels: of the image.
        filters: channels of the first stage, F; the four stages have F, 2F, 4F, 8F, of bottlenecks four times as many.
        blocks: residual blocks in each stage, or of all four; 2 gives the depth of ResNet-18, and (3, 4, 6, 3) of
            bottlenecks that of ResNet-50.
        mean: of the training targets, the answer to features of zero.
        deviation: of the training targets.
        block: `basic`, two 3×3 convolutions, or `bottleneck`, one between two of 1×1.
        first_stride: of the first convolution; 2 in He et al.
        classes: names of K classes to tell; None for a number.
    """

    output_type = "regression"

    def __init__(
        self,
        in_channels: int = 1,
        filters: int = 64,
        blocks: int | Sequence[int] = 2,
        mean: float = 0.0,
        deviation: float = 1.0,
        block: Literal["basic", "bottleneck"] = "basic",
        first_stride: int = 1,
        classes: Sequence[str] | None = None,
    ) -> None:
        layers = [blocks] * 4 if isinstance(blocks, int) else list(blocks)
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f"blocks is a number for each of four stages, or one for all, found {blocks!r}")
        self.fc: nn.Linear
        super().__init__(
            block,
            layers=layers,
            block_inplanes=[filters, 2 * filters, 4 * filters, 8 * filters],
            spatial_dims=2,
            n_input_channels=in_channels,
            conv1_t_stride=first_stride,
            num_classes=len(classes or ("number",)),
        )
        if not classes:
            self.fc = _ScaledLinear(self.fc.in_features, mean, deviation)

    def features(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch _"]:
        """What the last layer `fc` sees of images, (B, F)."""
        stem: Tensor = self.maxpool(self.act(self.bn1(self.conv1(image))))
        features: Tensor = self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(stem))))).flatten(1)
        return features


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
