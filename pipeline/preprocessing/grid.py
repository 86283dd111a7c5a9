"""A network's in-plane grid: resampling of images and masks onto it, and of residuals back."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

# Beyond these no scanner's images lie, and a canvas takes minutes or all memory.
FINEST_MM, COARSEST_MM = 0.1, 20
LONGEST_SIDE = 2048
Corner = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """Pixels of `spacing_mm` on a canvas of exactly `size`, in training and in use.

    A network with instance norm makes something else of a slice when it sees more or less of the background: it is
    never shown another number of pixels than it was trained on. A smaller field of view is padded with background (0)
    around its centre. A larger one is cropped around its centre in training; in use, canvases that overlap cover
    the head or body where one does not hold it. Resampling keeps the edges of the field of view in place, so that the
    way back ends exactly on the scan's pixels.

    Args:
        spacing_mm: pixel size on the network's grid, isotropic.
        size: canvas (right, anterior) in pixels, each divisible by `stride`.
        stride: what the networks need a canvas's sides to be divisible by.
        halves: a canvas holds one half of a slice, left or right of the mid-sagittal line (`half_slices`).
    """

    spacing_mm: float
    size: tuple[int, int]
    stride: int = 16
    halves: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        sides = all(0 < side <= LONGEST_SIDE and side % self.stride == 0 for side in self.size)
        if not (FINEST_MM <= self.spacing_mm <= COARSEST_MM and sides):
            raise ValueError(
                f"a grid needs a positive spacing and sides divisible by {self.stride}, of {FINEST_MM} to "
                f"{COARSEST_MM} mm and {LONGEST_SIDE} pixels at most, found {self.spacing_mm} mm and {self.size}"
            )

    def resampled(self, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> tuple[int, int]:
        """Pixels that a field of view of `shape` pixels of `spacing_mm` has on this grid."""
        height, width = (
            max(1, round(pixels * spacing / self.spacing_mm)) for pixels, spacing in zip(shape, spacing_mm, strict=True)
        )
        return height, width

    def holds(self, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> bool:
        """Whether a whole field of view of `shape` pixels of `spacing_mm` fits on the canvas."""
        return all(pixels <= side for pixels, side in zip(self.resampled(shape, spacing_mm), self.size, strict=True))

    def enlarged(self, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> "Grid":
        """The same pixels on the smallest canvas that holds this one's and a field of view.

        >>> Grid(2.0, (128, 128)).enlarged((182, 218), (1.0, 1.0)).size
        (128, 128)
        >>> Grid(1.0, (240, 240)).enlarged((256, 250), (1.0, 1.0)).size
        (256, 256)
        """
        height, width = (
            max(side, math.ceil(pixels / self.stride) * self.stride)
            for side, pixels in zip(self.size, self.resampled(shape, spacing_mm), strict=True)
        )
        return Grid(self.spacing_mm, (height, width), self.stride)

    def middle(self, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> Corner:
        """Where the canvas begins around the centre of a field of view; negative where background is padded."""
        top, left = (
            _centred(pixels, side) for pixels, side in zip(self.resampled(shape, spacing_mm), self.size, strict=True)
        )
        return top, left

    def corners(self, tissue: Bool[np.ndarray, "slices height width"], spacing_mm: tuple[float, float]) -> list[Corner]:
        """Where canvases have to lie to cover a head or body; one around the field of view's centre if that does.

        Args:
            tissue: what to cover in all slices, shape (N, H, W).
            spacing_mm: pixel size along (H, W).
        """
        _, height, width = tissue.shape
        across, along = self.resampled((height, width), spacing_mm)
        rows = _starts(self.size[0], across, np.flatnonzero(tissue.any(axis=(0, 2))), across / height)
        columns = _starts(self.size[1], along, np.flatnonzero(tissue.any(axis=(0, 1))), along / width)
        return list(itertools.product(rows, columns))

    def images(
        self,
        slices: Float[Tensor, "slices channel height width"],
        spacing_mm: tuple[float, float],
    ) -> Float[Tensor, "slices channel {self.size[0]} {self.size[1]}"]:
        """Images onto the canvas around their centre, area-preserving when the grid is coarser (no aliasing).

        Args:
            slices: shape (N, C, H, W), values in [0, 1].
            spacing_mm: pixel size along (H, W).

        Returns:
            Shape (N, C, *size), values in [0, 1].
        """
        middle = self.middle((slices.shape[-2], slices.shape[-1]), spacing_mm)
        return self.canvases(slices, spacing_mm, [middle])[middle]

    def canvases(
        self,
        slices: Float[Tensor, "slices channel height width"],
        spacing_mm: tuple[float, float],
        corners: Sequence[Corner],
    ) -> dict[Corner, Float[Tensor, "slices channel {self.size[0]} {self.size[1]}"]]:
        """As `images`, onto canvases that begin at these pixels of the resampled slices."""
        resampled = self.interpolated(slices, spacing_mm)
        return {corner: placed(resampled, corner, self.size) for corner in corners}

    def masks(
        self, slices: Float[Tensor, "slices channel height width"], spacing_mm: tuple[float, float]
    ) -> Float[Tensor, "slices channel {self.size[0]} {self.size[1]}"]:
        """Binary masks onto the canvas: a pixel is lesion where at least half of it is. Shapes as in `images`."""
        return (self.images(slices, spacing_mm) >= 0.5).to(slices.dtype)

    def back(
        self,
        outputs: Mapping[Corner, Float[Tensor, "slices channel {self.size[0]} {self.size[1]}"]],
        shape: tuple[int, int],
        spacing_mm: tuple[float, float],
        beyond: float = 0.0,
    ) -> Float[Tensor, "slices channel {shape[0]} {shape[1]}"]:
        """What a network made of the canvases of `corners`, on a scan's pixels.

        Canvases that overlap fade into each other, so that no seam is seen.

        Args:
            outputs: shape (N, K, *size), by corner.
            shape: the scan's pixels (H, W).
            spacing_mm: their size.
            beyond: the value where no canvas lies.

        Returns:
            Shape (N, K, H, W).
        """
        pixels = self.resampled(shape, spacing_mm)
        if len(outputs) == 1:
            ((corner, output),) = outputs.items()
            resampled = placed(output, _opposite(corner), pixels, beyond)
        else:
            resampled = self._blended(outputs, pixels, beyond)
        return self.on_scan(resampled, shape)

    def on_scan(self, resampled: Tensor, shape: tuple[int, int]) -> Tensor:
        """What `interpolated` gives, or as many pixels (N, K, h, w) of something else, on a scan's pixels `shape`."""
        if tuple(resampled.shape[-2:]) == shape:
            return resampled
        return functional.interpolate(resampled, size=shape, mode="bilinear", align_corners=False)

    def _blended(self, outputs: Mapping[Corner, Tensor], pixels: tuple[int, int], beyond: float) -> Tensor:
        """Canvases on a field of view of `pixels`; one after another, since there may be hundreds."""
        first = next(iter(outputs.values()))
        fading = _fading(self.size).to(first)
        blended, total = first.new_zeros(*first.shape[:2], *pixels), first.new_zeros(pixels)
        for corner, output in outputs.items():
            blended += placed(output * fading, _opposite(corner), pixels)
            total += placed(fading, _opposite(corner), pixels)
        return torch.where(total > 0, blended / total.clamp(min=1e-6), beyond)

    def interpolated(self, slices: Tensor, spacing_mm: tuple[float, float]) -> Tensor:
        """Slices (N, C, H, W) with pixels of the grid and the field of view that they have, on no canvas."""
        height, width = slices.shape[-2:]
        target = self.resampled((height, width), spacing_mm)
        if target == (height, width):
            return slices
        return functional.interpolate(slices, size=target, mode="bilinear", align_corners=False, antialias=True)


def _centred(pixels: int, side: int) -> int:
    # Towards zero, so that padding and cropping undo each other.
    return int((pixels - side) / 2)


def _opposite(corner: Corner) -> Corner:
    return -corner[0], -corner[1]


def placed(slices: Tensor, corner: Corner, size: tuple[int, int], beyond: float = 0.0) -> Tensor:
    """The part of `slices` of `size` pixels that begins at `corner`; `beyond` where it reaches out of them.

    Doing it again from the opposite corner with the old size undoes a padding.
    """
    height, width = slices.shape[-2:]
    top, left = corner
    ends = (-left, left + size[1] - width, -top, top + size[0] - height)
    return functional.pad(slices, ends, value=beyond)


def _starts(side: int, pixels: int, tissue: NDArray[np.intp], scale: float) -> list[int]:
    """Where canvases of `side` begin along an axis of `pixels` to cover tissue, given as pixels of a scan's axis."""
    first, last = (int(tissue[0] * scale), math.ceil((tissue[-1] + 1) * scale)) if len(tissue) else (0, 0)
    centre = _centred(pixels, side)
    if pixels <= side or (centre <= first and last <= centre + side):
        return [centre]
    if last - first <= side:
        return [min(max((first + last - side) // 2, 0), pixels - side)]
    # Half of each canvas at least lies in the next.
    count = 1 + math.ceil(2 * (last - first - side) / side)
    return [round(start) for start in np.linspace(first, last - side, count)]


def _fading(size: tuple[int, int]) -> Tensor:
    """Weights of a canvas's pixels, 1 in its middle and falling towards its edges; shape (H, W)."""
    rows, columns = (1 - (2 * torch.arange(side) + 1 - side).abs() / side for side in size)
    return rows[:, None] * columns


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
        if self.spacing_mm is not None and not FINEST_MM <= self.spacing_mm <= COARSEST_MM:
            raise ValueError(
                f"a volume's grid needs a spacing of {FINEST_MM} to {COARSEST_MM} mm, found {self.spacing_mm}"
            )

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
