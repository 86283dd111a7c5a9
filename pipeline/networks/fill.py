"""A network that fills holes by what it adds to a fill that is there already."""

import torch
from jaxtyping import Float
from monai.networks.nets import BasicUNet
from torch import Tensor, nn


class FillNetwork(nn.Module):
    """A U-Net whose output is added to the harmonic fill, inside the hole alone.

    It starts as the harmonic fill: its last layer is zero. Before the U-Net, tissue is normalised to mean 0 and
    deviation 1 of what lies near the hole, and air is 0, so that neither brightness nor contrast nor how much of the
    head is shown around the hole matters; what comes out is scaled by the same deviation. In use, the mean over four
    versions of the input is taken, as it is, mirrored, inverted, and both: an inverted scan has the inverted fill.

    Args:
        neighbours: slices above and below that it sees with each.
        filters: channels of the first stage, F; the stages have F, 2F, 4F, 8F, 8F, and the last decoder stage F.
        air: largest intensity of air.
        near: pixels around the hole, in each direction, whose tissue is taken for its surroundings.
    """

    def __init__(self, neighbours: int = 1, filters: int = 32, air: float = 0.04, near: int = 16) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.air = air
        self.near = near
        unet = BasicUNet(
            spatial_dims=2,
            in_channels=5 * (2 * neighbours + 1),
            out_channels=1,
            features=(filters, 2 * filters, 4 * filters, 8 * filters, 8 * filters, filters),
            # With instance norm, the size of the canvas would matter.
            norm="batch",
        )
        nn.init.zeros_(unet.final_conv.weight)
        nn.init.zeros_(unet.final_conv.bias)
        self.unet = unet.to(memory_format=torch.channels_last)

    def forward(self, shown: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 height width"]:
        """The filled slices.

        Args:
            shown: shape (B, 4 · (2 · neighbours + 1), H, W), H and W divisible by 16: harmonically filled slices in
                [0, 1] from the lowest, their holes in {0, 1}, and both mirrored to the other side.

        Returns:
            Shape (B, 1, H, W), in use in [0, 1]: the middle slice as it was shown, with something added inside its
            hole.
        """
        # type: (Tensor) -> Tensor
        seen = 2 * self.neighbours + 1
        filled, hole, other, other_hole = shown.split(seen, dim=1)
        tissue = ((filled > self.air) & (hole < 0.5)).to(filled.dtype) * self._near(hole)
        count = tissue.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1.0)
        mean = (filled * tissue).sum(dim=(1, 2, 3), keepdim=True) / count
        deviation = (((filled - mean).square() * tissue).sum(dim=(1, 2, 3), keepdim=True) / count).sqrt()
        scale = deviation.clamp_min(1e-3)
        head = ((filled > self.air) | (hole > 0.5)).to(filled.dtype)
        other_head = ((other > self.air) | (other_hole > 0.5)).to(filled.dtype)
        normal = (filled - mean) / scale * head
        other_normal = (other - mean) / scale * other_head
        if self.training:
            added = self._added(normal, other_normal, head, hole, other_hole)
        else:
            added = torch.zeros_like(filled[:, :1])
            for sign in (1.0, -1.0):
                added = added + sign * self._added(sign * normal, sign * other_normal, head, hole, other_hole)
                mirrored = self._added(
                    sign * normal.flip(2), sign * other_normal.flip(2), head.flip(2), hole.flip(2), other_hole.flip(2)
                )
                added = added + sign * mirrored.flip(2)
            added = added / 4.0
        middle = slice(self.neighbours, self.neighbours + 1)
        made: Tensor = filled[:, middle] + hole[:, middle] * scale * added
        # Not in training, where what is clamped would have no gradient.
        return made if self.training else made.clamp(0.0, 1.0)

    def _near(self, hole: Tensor) -> Tensor:
        """1 up to `near` pixels from the hole, 0 elsewhere; of the same shape."""
        columns = self._near_in_rows(hole.transpose(2, 3)).transpose(2, 3)
        return self._near_in_rows(columns).contiguous()

    def _near_in_rows(self, hole: Tensor) -> Tensor:
        # A window is two half as wide, so that it takes a few steps, not one for each of its pixels.
        seen = nn.functional.pad(hole, [self.near, self.near])
        width, side = 1, 2 * self.near + 1
        while width < side:
            step = min(width, side - width)
            seen = torch.maximum(seen[:, :, :, :-step], seen[:, :, :, step:])
            width += step
        return seen

    def _added(self, normal: Tensor, other: Tensor, head: Tensor, hole: Tensor, other_hole: Tensor) -> Tensor:
        features = torch.cat([normal, hole, head, other, other_hole], dim=1)
        added: Tensor = self.unet(features.contiguous(memory_format=torch.channels_last))
        return added.to(normal.dtype)
