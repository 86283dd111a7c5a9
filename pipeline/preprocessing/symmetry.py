"""The mid-sagittal line of axial slices, and slices mirrored about it: the other side stands for what a hole hides."""

import math

import torch
from torch import Tensor
from torch.nn import functional

DEGREE = math.pi / 180
# Sides in pixels at which a tilt is looked for, and the tilts there in degrees, around the best of the side before.
SEARCH = ((64, range(-15, 16, 3)), (128, range(-3, 4)))


def mid_sagittal_line(tissue: Tensor, lesion: Tensor) -> tuple[Tensor, Tensor]:
    """The line about which each slice is most symmetric.

    Right and left lie along H; the line may lie anywhere and be tilted by up to 18°. It is found to half a pixel and
    about a degree, pixels taken as square.

    Args:
        tissue: slices (N, 1, H, W), 0 where there is none.
        lesion: where `tissue` says nothing, above 0 there, same shape.

    Returns:
        Tilt of the line's normal against the axis H in radians, and its distance from the image's centre in pixels,
        each of shape (N,).
    """
    tilt = torch.zeros(len(tissue)).to(tissue)
    for side, degrees in SEARCH:
        step = max(1, round(max(tissue.shape[-2:]) / side))
        small = functional.avg_pool2d(tissue, step), functional.max_pool2d(lesion, step)
        tilts = torch.stack([tilt + degree * DEGREE for degree in degrees])
        best = torch.stack([_symmetry(*small, tilt).amax(dim=1) for tilt in tilts]).argmax(dim=0)
        tilt = tilts[best, torch.arange(len(tissue))]
    # Pixels h and h' mirror each other about the middle of their sum.
    return tilt, (_symmetry(tissue, lesion, tilt).argmax(dim=1) - (tissue.shape[-2] - 1)) / 2


def line_of(volume: Tensor) -> tuple[float, float]:
    """Tilt and position of the mid-sagittal line of slices (slices, H, W) as a whole."""
    projection = volume.mean(dim=0)[None, None]
    tilt, position = mid_sagittal_line(projection, torch.zeros_like(projection))
    return float(tilt), float(position)


def mirrored_about(slices: Tensor, tilt: float, position: float) -> Tensor:
    """Slices mirrored about one line, linearly interpolated; what lies beyond the image is 0.

    Args:
        slices: shape (N, C, H, W).
        tilt: of the line's normal, and
        position: its distance from the centre, as `mid_sagittal_line` gives them.
    """
    height, width = slices.shape[-2:]
    h = (torch.arange(height).to(slices) - (height - 1) / 2)[:, None]
    w = (torch.arange(width).to(slices) - (width - 1) / 2)[None, :]
    normal_h, normal_w = math.cos(tilt), math.sin(tilt)
    twice = 2 * (h * normal_h + w * normal_w - position)
    grid = torch.stack([(w - twice * normal_w) * (2 / width), (h - twice * normal_h) * (2 / height)], dim=-1)
    return functional.grid_sample(slices, grid.expand(len(slices), -1, -1, -1), align_corners=False)


def _symmetry(tissue: Tensor, lesion: Tensor, tilt: Tensor) -> Tensor:
    """How much a tilted image y is like its mirror image, for each sum of two mirrored rows h + h'.

    Σ y y' / Σ (y² + y'²)/2 over the pixel pairs without lesion: 1 for a perfectly symmetric image. Beyond the image
    there is air.

    Returns:
        Shape (N, 2H).
    """
    height, width = tissue.shape[-2:]
    h = (torch.arange(height).to(tissue) - (height - 1) / 2)[:, None]
    w = (torch.arange(width).to(tissue) - (width - 1) / 2)[None, :]
    cos, sin = tilt.cos()[:, None, None], tilt.sin()[:, None, None]
    grid = torch.stack([(h * sin + w * cos) * (2 / width), (h * cos - w * sin) * (2 / height)], dim=-1)
    y, hidden = (functional.grid_sample(image, grid, align_corners=False)[:, 0] for image in (tissue, lesion))
    # Half a lesion pixel is no tissue to compare with.
    hidden = (hidden > 0).to(y)
    y = y * (1 - hidden)

    spectrum, of_squares, of_hidden = (torch.fft.rfft(image, 2 * height, dim=1) for image in (y, y * y, hidden))
    products = torch.fft.irfft((spectrum * spectrum).sum(dim=2), 2 * height, dim=1)
    squares_on_lesion = torch.fft.irfft((of_squares * of_hidden).sum(dim=2), 2 * height, dim=1)
    squares = (y * y).sum(dim=(1, 2))[:, None] - squares_on_lesion
    symmetry: Tensor = products / squares.clamp_min(torch.finfo(squares.dtype).eps)
    return symmetry
