"""Parts that several architectures share."""

import itertools

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

LEAK = 0.2  # slope of leaky ReLU; the papers name the function without it, 0.2 is usual among discriminators


def as_output(kind: str, raw: Float[Tensor, "*shape"], image: Float[Tensor, "..."]) -> Float[Tensor, "*shape"]:
    """How a generator's last layer and its input in [0, 1] become its output.

    Plain ifs on plain tensors, so that TorchScript compiles it.

    Args:
        kind: `image`: tanh, scaled to [0, 1].
            `sigmoid`: in [0, 1]; the same functions as `image`, parametrised otherwise.
            `residual`: tanh of the last layer added to the input. Training starts from the identity if that layer
            starts at zero. The sum is not clipped: a player that looks at it would see no gradient where it is.
            `shortcut`: tanh(f(x) + x) on images scaled to [−1, 1] (VA-GAN, ANT-GAN), then back to [0, 1]; f = 0 is not
            the identity, since tanh squeezes the ends of the range.
        raw: what the last layer puts out, any shape.
        image: the network's input, same shape where it is looked at.
    """
    # type: (str, Tensor, Tensor) -> Tensor
    if kind == "image":
        return (raw.tanh() + 1) / 2
    if kind == "sigmoid":
        return raw.sigmoid()
    if kind == "residual":
        return image + raw.tanh()
    return ((raw + 2 * image - 1).tanh() + 1) / 2


def check_output(output: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `output` is one of those that a network allows."""
    if output not in allowed:
        raise ValueError(f"output is one of {', '.join(allowed)}, found {output!r}")


def start_at_zero(layer: nn.Conv2d) -> None:
    """Let a last layer put out zero before its first step."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def normed(convolution: nn.Conv2d | nn.ConvTranspose2d, slope: float = 0.0) -> tuple[nn.Module, ...]:
    """Convolution, instance norm with learned scale and shift, ReLU (slope 0) or leaky ReLU."""
    return convolution, nn.InstanceNorm2d(convolution.out_channels, affine=True), rectifier(slope)


def halving_stages(
    in_channels: int, filters: int, stages: int = 4, norm: bool = False, pooled: bool = False
) -> nn.ModuleList:
    """Convolutions that halve the sides, with leaky ReLU, of F, 2F, 4F, … channels, as a discriminator begins.

    Args:
        in_channels: of the image.
        filters: F.
        stages: how many.
        norm: instance norm, in all but the first.
        pooled: 3×3 convolutions and 2×2 means, whose gradients have no raster, instead of 4×4 ones of stride 2.
    """
    channels = (in_channels, *(filters * 2**number for number in range(stages)))
    made = []
    for number, (before, after) in enumerate(itertools.pairwise(channels)):
        kernel, stride = (3, 1) if pooled else (4, 2)
        convolution = nn.Conv2d(before, after, kernel, stride=stride, padding=1)
        layers = normed(convolution, LEAK) if norm and number else (convolution, rectifier(LEAK))
        made.append(nn.Sequential(*layers, *([nn.AvgPool2d(2)] if pooled else [])))
    return nn.ModuleList(made)


def rectifier(slope: float) -> nn.Module:
    """ReLU for slope 0, else leaky ReLU."""
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions whose result is added to the input; nothing after the sum (Johnson et al. 2016).

    Args:
        channels: in and out.
        slope: of the rectifier between the convolutions.
    """

    def __init__(self, channels: int, slope: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *normed(nn.Conv2d(channels, channels, 3, padding=1), slope),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(
        self, features: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Shape (B, channels, H, W) to the same."""
        # type: (Tensor) -> Tensor
        body: Tensor = self.body(features)
        return features + body


class SamePadConv(nn.Conv2d):
    """4×4 convolution of stride 1 that keeps the size: one row and column before, two after, as Keras pads it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4)

    def forward(self, features: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch _ height width"]:
        """Shape (B, in_channels, H, W) to (B, out_channels, H, W)."""
        return super().forward(functional.pad(features, (1, 2, 1, 2)))


def spectrally_normed(network: nn.Module) -> None:
    """Divide the weights of all convolutions by their largest singular value (Miyato et al. 2018), in place."""
    for layer in list(network.modules()):
        if isinstance(layer, nn.Conv2d):
            spectral_norm(layer)
