"""The generator of pix2pix (Isola et al. 2017, Section 3.2.1 and Appendix 6.1.1): a U-Net down to a single pixel."""

from jaxtyping import Float
from torch import Tensor, cat, nn
from torch.nn import functional

from pipeline.networks.blocks import LEAK, as_output, check_output

# Channels of the levels, in multiples of the first; deeper ones have as many as the last of these.
WIDTHS = (1, 2, 4, 8)
DROPPED = 3  # levels with dropout, from the first up after the innermost


class Pix2PixUNet(nn.Module):
    """Image in, image of the same size out: strided 4×4 convolutions down, as many up, and a skip at each level.

    With `filters` F = 64 and 8 `levels`, images of 256×256 have a code of one pixel, by way of 64, 128, 256 and five
    times 512 channels down, and 512 four times, 256, 128 and 64 up, the first three with dropout, as the paper prints
    it. Convolutions have instance norm, which with its batch of one image is the paper's batch norm, and leaky ReLU on
    the way down, ReLU on the way up; the first and the innermost one have no norm.

    The paper's noise z is dropout, in use too. Here users get the same image each time: dropout is in training alone.

    Args:
        in_channels: of the image.
        out_channels: of the result.
        filters: F.
        levels: of the U-Net, at least 2. Sides are padded to a multiple of 2 ** `levels`, and cropped again: on small
            images, take fewer.
        dropout: probability, in [0, 1).
        output: `image` or `residual`, the difference to the image's first channels, see
            `pipeline.networks.blocks.as_output`.

    Raises:
        ValueError: if a value is out of range.
    """

    output_type = "image"

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        filters: int = 64,
        levels: int = 8,
        dropout: float = 0.5,
        output: str = "image",
    ) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels is at least 2, found {levels}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a probability in [0, 1), found {dropout}")
        check_output(output, ("image", "residual"))
        self.output = output
        self.stride = 2**levels
        widths = [filters * WIDTHS[min(level, len(WIDTHS) - 1)] for level in range(levels)]
        level: nn.Module = _Level(widths[-2], widths[-1], nn.Identity(), widths[-1], dropout, innermost=True)
        for depth in range(levels - 2, 0, -1):
            dropped = dropout if depth >= levels - DROPPED else 0.0
            level = _Level(widths[depth - 1], widths[depth], level, 2 * widths[depth], dropped)
        self.down = nn.Conv2d(in_channels, filters, 4, stride=2, padding=1)
        self.inner = level
        self.last = nn.ConvTranspose2d(2 * filters, out_channels, 4, stride=2, padding=1)
        if output == "residual":
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch _ height width"]:
        """Translate images of shape (B, in_channels, H, W) in [0, 1]."""
        # type: (Tensor) -> Tensor
        height, width = image.shape[2], image.shape[3]
        padded = functional.pad(image, [0, -width % self.stride, 0, -height % self.stride])
        raw = self.last(functional.relu(self.inner(self.down(padded))))
        raw = raw[:, :, :height, :width]
        return as_output(self.output, raw, image[:, : raw.shape[1]])


class _Level(nn.Module):
    """One level: down, what lies below, up; its input is joined to the result, twice the channels.

    Args:
        outer: channels in; as many come from below, beside them.
        width: channels of the level.
        inner: the level below.
        below: channels that it gives.
        dropout: after the way up.
        innermost: without norm on the way down.
    """

    def __init__(
        self, outer: int, width: int, inner: nn.Module, below: int, dropout: float, innermost: bool = False
    ) -> None:
        super().__init__()
        convolution = nn.Conv2d(outer, width, 4, stride=2, padding=1)
        norm = nn.Identity() if innermost else nn.InstanceNorm2d(width, affine=True)
        self.down = nn.Sequential(nn.LeakyReLU(LEAK), convolution, norm)
        self.inner = inner
        up = nn.ConvTranspose2d(below, outer, 4, stride=2, padding=1)
        self.up = nn.Sequential(nn.ReLU(), up, nn.InstanceNorm2d(outer, affine=True), nn.Dropout(dropout))

    def forward(self, features: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch _ height width"]:
        """Shape (B, outer, H, W) to (B, 2 · outer, H, W); H and W divisible by 2 to the number of levels."""
        # type: (Tensor) -> Tensor
        return cat((features, self.up(self.inner(self.down(features)))), dim=1)
