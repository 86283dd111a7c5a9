"""Slices moved, bent and brightened at random with their masks, as GenSeg does (Vorontsov et al. 2019, Appendix A)."""

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from pipeline.errors import UsageError

CONTROL_POINTS = 3  # along each side


class Augmentation:
    """Random rotation, zoom, spline warp, flips and intensity of a slice; the defaults are the paper's.

    Image and mask are moved by one field and resampled once. What comes from beyond the image's edges is reflected
    where there is tissue at the edge; where there is background, 0 in the first sequence, no second head comes into
    view.
    Everything is drawn from torch's global random state, which checkpoints keep.

    Args:
        rotation_degrees: at most, either way.
        zoom: at most, in or out, as a share.
        warp_px: standard deviation of the shift of each of 3×3 control points, which span the slice, along each axis;
            a cubic spline goes through them. The paper's 5 ("variance σ = 5") are pixels of 1 mm.
        intensity: at most, brighter or darker, as a share, of each sequence by itself. Background stays as it is.
        flips: along each axis, of every second slice.

    Raises:
        UsageError: if a value is out of range.
    """

    def __init__(
        self,
        rotation_degrees: float = 3.0,
        zoom: float = 0.1,
        warp_px: float = 5.0,
        intensity: float = 0.1,
        flips: bool = True,
    ) -> None:
        ranges = {"rotation_degrees": (rotation_degrees, 180), "zoom": (zoom, 0.5), "intensity": (intensity, 0.5)}
        for name, (value, most) in {**ranges, "warp_px": (warp_px, 100)}.items():
            if not 0 <= value <= most:
                raise UsageError(f"{name}: found {value!r}, expected a number from 0 to {most:g}")
        self.rotation_degrees, self.zoom, self.warp_px = rotation_degrees, zoom, warp_px
        self.intensity, self.flips = intensity, flips

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """One slice and its mask, otherwise.

        Args:
            image: in [0, 1], shape (C, H, W).
            mask: in {0, 1}, shape (K, H, W).

        Returns:
            The same shapes and ranges; a pixel of a mask is inside where at least half of what came there is.
        """
        both = torch.cat([image, mask])[None]
        height, width = image.shape[1:]
        source = self._source(height, width)
        # Of pixels' centres to the sides of the image, −1 to 1.
        grid = torch.stack([(2 * source[1] + 1) / width - 1, (2 * source[0] + 1) / height - 1], dim=-1)
        moved = functional.grid_sample(both, grid[None], padding_mode="reflection", align_corners=False)[0]
        inside = (image[None, :1] > 0).float()
        nearest = functional.grid_sample(inside, grid[None], padding_mode="border", align_corners=False)[0] >= 0.5
        moved = moved * (nearest | (grid.abs() <= 1).all(dim=-1))
        if self.flips:
            moved = moved.flip([axis for axis in (1, 2) if torch.rand(()) < 0.5])
        gain = 1 + self.intensity * _even(len(image), 1, 1)
        return (moved[: len(image)] * gain).clamp(0, 1), (moved[len(image) :] >= 0.5).to(mask)

    def _source(self, height: int, width: int) -> Tensor:
        """Where each pixel comes from, as row and column, shape (2, H, W)."""
        angle = math.radians(self.rotation_degrees) * float(_even())
        scale = 1 / (1 + self.zoom * float(_even()))
        shifts = self.warp_px * torch.randn(2, CONTROL_POINTS, CONTROL_POINTS)
        h = (torch.arange(height) - (height - 1) / 2)[:, None]
        w = (torch.arange(width) - (width - 1) / 2)[None, :]
        rows = scale * (h * math.cos(angle) - w * math.sin(angle)) + (height - 1) / 2
        columns = scale * (h * math.sin(angle) + w * math.cos(angle)) + (width - 1) / 2
        return torch.stack([rows, columns]) + spline_field(shifts, height, width)


def spline_field(shifts: Tensor, height: int, width: int) -> Tensor:
    """The cubic spline through shifts at points that are spread evenly over a slice, from corner to corner.

    Args:
        shifts: shape (2, rows, columns), in pixels.
        height: of the slice, and
        width: in pixels.

    Returns:
        Shape (2, height, width).
    """
    rows, columns = shifts.shape[1:]
    at = np.meshgrid(np.linspace(0, rows - 1, height), np.linspace(0, columns - 1, width), indexing="ij")
    fields = [ndimage.map_coordinates(axis, at, order=3, mode="mirror") for axis in shifts.double().numpy()]
    return torch.from_numpy(np.stack(fields).astype(np.float32))


def _even(*shape: int) -> Tensor:
    """Drawn evenly from −1 to 1."""
    return 2 * torch.rand(shape) - 1
