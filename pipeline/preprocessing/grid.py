"""A network's in-plane grid: resampling of images and masks onto it, and of residuals back."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Grid:
    """Pixels of `spacing_mm` on a canvas of at least `size`, as a bundle was trained on.

    Resampling keeps the edges of the field of view in place, so that the way back ends exactly on the scan's pixels.
    Background (0) is padded around the centre: a network with instance norm should see as much of it as in training.

    Args:
        spacing_mm: pixel size on the network's grid, isotropic.
        size: canvas (right, anterior) in pixels, each divisible by `stride`.
        stride: what the networks need a canvas's sides to be divisible by.

    >>> Grid(2.0, (128, 128)).canvas((91, 109))
    (128, 128)
    >>> Grid(1.0, (240, 240)).canvas((256, 250))
    (256, 256)
    """

    spacing_mm: float
    size: tuple[int, int]
    stride: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        if self.spacing_mm <= 0 or any(side < 1 or side % self.stride for side in self.size):
            raise ValueError(
                f"a grid needs a positive spacing and sides divisible by {self.stride}, found {self.spacing_mm} mm and "
                f"{self.size}"
            )

    def resampled(self, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> tuple[int, int]:
        """Pixels that a field of view of `shape` pixels of `spacing_mm` has on this grid."""
        height, width = (
            max(1, round(pixels * spacing / self.spacing_mm)) for pixels, spacing in zip(shape, spacing_mm, strict=True)
        )
        return height, width

    def canvas(self, resampled: tuple[int, int]) -> tuple[int, int]:
        """The canvas for a resampled field of view: `size`, or larger if it does not fit."""
        height, width = (
            max(side, math.ceil(pixels / self.stride) * self.stride)
            for side, pixels in zip(self.size, resampled, strict=True)
        )
        return height, width

    def images(
        self, slices: Float[Tensor, "slices channel height width"], spacing_mm: tuple[float, float], fit: bool = False
    ) -> Float[Tensor, "slices channel _ _"]:
        """Images onto the grid, area-preserving when it is coarser (no aliasing).

        Args:
            slices: shape (N, 1, H, W), values in [0, 1].
            spacing_mm: pixel size along (H, W).
            fit: crop to exactly `size` (training batches need one size) instead of growing the canvas.

        Returns:
            Shape (N, 1, *canvas), values in [0, 1].
        """
        resampled = self._interpolate(slices, spacing_mm)
        height, width = resampled.shape[-2:]
        return pad_or_crop(resampled, self.size if fit else self.canvas((height, width)))

    def masks(
        self, slices: Float[Tensor, "slices channel height width"], spacing_mm: tuple[float, float], fit: bool = False
    ) -> Float[Tensor, "slices channel _ _"]:
        """Binary masks onto the grid: a pixel is lesion where at least half of it is. Shapes as in `images`."""
        return (self.images(slices, spacing_mm, fit) >= 0.5).to(slices.dtype)

    def residuals_back(
        self,
        residuals: Float[Tensor, "slices channel height width"],
        shape: tuple[int, int],
        spacing_mm: tuple[float, float],
    ) -> Float[Tensor, "slices channel {shape[0]} {shape[1]}"]:
        """Residuals from the grid's canvas back onto a scan's pixels.

        Args:
            residuals: shape (N, 1, *canvas) as `images` gave it for this scan.
            shape: the scan's pixels (H, W).
            spacing_mm: their size.

        Returns:
            Shape (N, 1, H, W).
        """
        resampled = pad_or_crop(residuals, self.resampled(shape, spacing_mm))
        if tuple(resampled.shape[-2:]) == shape:
            return resampled
        return functional.interpolate(resampled, size=shape, mode="bilinear", align_corners=False)

    def _interpolate(self, slices: Tensor, spacing_mm: tuple[float, float]) -> Tensor:
        height, width = slices.shape[-2:]
        target = self.resampled((height, width), spacing_mm)
        if target == (height, width):
            return slices
        return functional.interpolate(slices, size=target, mode="bilinear", align_corners=False, antialias=True)


def pad_or_crop(
    slices: Float[Tensor, "*stack height width"], size: tuple[int, int]
) -> Float[Tensor, "*stack {size[0]} {size[1]}"]:
    """Pad with zeros or crop around the centre to `size`; doing it again with the old size undoes a padding."""
    (top, bottom), (left, right) = (
        _two_ends(side - pixels) for side, pixels in zip(size, slices.shape[-2:], strict=True)
    )
    return functional.pad(slices, (left, right, top, bottom))


def _two_ends(change: int) -> tuple[int, int]:
    # The smaller half first, whether pixels are added or (negative) taken away, so that one undoes the other.
    first = int(math.copysign(abs(change) // 2, change))
    return first, change - first


@dataclass(frozen=True)
class VolumeGrid:
    """Voxels of `spacing_mm` along all three axes, for networks that take volumes.

    Resampling keeps the ends of the field of view in place; how large a part the network sees at once is its inferer's
    business (MONAI's `SlidingWindowInferer`).

    Args:
        spacing_mm: voxel size on the network's grid, isotropic; None keeps the scan's own voxels.
    """

    spacing_mm: float | None = None

    def __post_init__(self) -> None:
        if self.spacing_mm is not None and not 0.1 <= self.spacing_mm <= 20:
            raise ValueError(f"a volume's grid needs a spacing of 0.1 to 20 mm, found {self.spacing_mm}")

    def images(
        self, volumes: Float[Tensor, "batch channel depth height width"], spacing_mm: tuple[float, float, float]
    ) -> Float[Tensor, "batch channel _ _ _"]:
        """Volumes (N, C, D, H, W) of voxels of `spacing_mm` onto the grid; averaged where the grid is coarser."""
        if self.spacing_mm is None:
            return volumes
        size = [
            max(1, round(voxels * mm / self.spacing_mm))
            for voxels, mm in zip(volumes.shape[2:], spacing_mm, strict=True)
        ]
        coarser = all(new <= old for new, old in zip(size, volumes.shape[2:], strict=True))
        return functional.interpolate(volumes, size=size, mode="area" if coarser else "trilinear")

    def back(
        self,
        volumes: Float[Tensor, "batch channel depth height width"],
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
    ) -> Float[Tensor, "batch channel {shape[0]} {shape[1]} {shape[2]}"]:
        """Volumes on the grid back onto a scan's voxels, shape (N, C, *shape)."""
        del spacing_mm
        if tuple(volumes.shape[2:]) == shape:
            return volumes
        return functional.interpolate(volumes, size=shape, mode="trilinear", align_corners=False)
