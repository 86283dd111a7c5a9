"""Centrelines of vessels on a heart, with known parameters: curves, not voxels, so that they have no holes.

After the coronary arteries of Wolterink et al. 2018 (survey, Section 5.1), which came from scans: these are simulated,
left or right, short or long, more or less winding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

HEART_MM = 45.0
LENGTH_MM = (40.0, 120.0)
WINDING_MM = (0.3, 3.0)
WAVE_MM = (25.0, 35.0)
RADIUS_MM = (1.2, 2.2)
# What coordinates and radius are divided by, so that they lie about in [−1, 1].
SCALE = (60.0, 60.0, 60.0, 3.0)


@dataclass(frozen=True)
class Centreline:
    """What a curve is like, as it was drawn or as it is measured.

    Attributes:
        right: 1 on the right side, 0 on the left.
        length_mm: along the curve.
        winding_mm: root mean square of how far it swings to the sides of its smooth course.
        radius_mm: of the vessel, mean along the curve.
    """

    right: float
    length_mm: float
    winding_mm: float
    radius_mm: float


NAMES = tuple(field.name for field in fields(Centreline))


def centreline(seed: int | np.random.Generator, points: int = 32) -> tuple[NDArray[np.float32], Centreline]:
    """Draw one curve and the parameters that it was drawn with.

    It starts near the top of a heart of 45 mm radius, runs down its surface with a bend to the back, swings from side
    to side as it does so, and tapers to half its radius.

    Args:
        seed: an integer, or a generator that the drawing advances.
        points: along the curve, equally far from each other.

    Returns:
        x (to the right), y (to the front), z (up) and radius in mm, shape (4, points), and the parameters.

    Example:
        >>> curve, known = centreline(0, points=32)
        >>> curve.shape, abs(measured(curve).length_mm - known.length_mm) < 1
        ((4, 32), True)
    """
    rng = np.random.default_rng(seed)
    right, length, winding = int(rng.integers(2)), rng.uniform(*LENGTH_MM), rng.uniform(*WINDING_MM)
    radius, wave, phase = rng.uniform(*RADIUS_MM), rng.uniform(*WAVE_MM), rng.uniform(0, 2 * np.pi)
    start, bend = rng.uniform(0.30, 0.40), rng.uniform(0.2, 0.6)
    along = np.linspace(0, 1.5 * length, 1024)
    # A sine's root mean square is its amplitude by √2.
    swing = np.sqrt(2) * winding * np.sin(2 * np.pi * along / wave + phase)
    down = start + along / HEART_MM
    around = rng.uniform(0.5, 0.7) - bend * along / HEART_MM + swing / HEART_MM / np.maximum(np.sin(down), 0.3)
    side = 2 * right - 1
    course = HEART_MM * np.stack([side * np.sin(down) * np.cos(around), np.sin(down) * np.sin(around), np.cos(down)])
    at = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(course), axis=0))])
    wanted = np.linspace(0, length, points)
    taper = radius * np.linspace(4 / 3, 2 / 3, points)
    curve = np.stack([*(np.interp(wanted, at, axis) for axis in course), taper]).astype(np.float32)
    return curve, Centreline(right, length, winding, radius)


def parameters(curves: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """The parameters of any curves, as far as they show them, by the names of `Centreline`.

    Args:
        curves: as of `centreline`, shape (N, 4, points).

    Returns:
        Arrays of shape (N,).
    """
    course = curves[:, :3].astype(float)
    steps = np.linalg.norm(np.diff(course, axis=2), axis=1)
    # What a cubic leaves of the course is its winding.
    powers = np.vander(np.linspace(-1, 1, course.shape[2]), 4)
    away = course - course @ (powers @ np.linalg.pinv(powers)).T
    return {
        "right": (course[:, 0].mean(axis=1) > 0).astype(float),
        "length_mm": steps.sum(axis=1),
        "winding_mm": np.sqrt((away**2).sum(axis=1).mean(axis=1)),
        "radius_mm": curves[:, 3].mean(axis=1, dtype=float),
    }


def measured(curve: NDArray[np.floating]) -> Centreline:
    """The parameters of one curve (4, points), see `parameters`."""
    return Centreline(**{name: float(value) for name, (value,) in parameters(curve[None]).items()})


def off_surface_mm(curves: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far the points of curves (N, 4, points) lie from the heart's surface in the mean, in mm, shape (N,)."""
    distance: NDArray[np.float64] = np.abs(np.linalg.norm(curves[:, :3].astype(float), axis=1) - HEART_MM).mean(axis=1)
    return distance


def largest_gap(curve: NDArray[np.floating]) -> float:
    """The longest step between neighbouring points, in steps of the mean length: 1 of an even curve."""
    steps = np.linalg.norm(np.diff(curve[:3].astype(float)), axis=0)
    return float(steps.max() / max(steps.mean(), 1e-9))


def as_curves(values: Float[Tensor, "count 4 points"]) -> NDArray[np.float32]:
    """What a network puts out, in mm."""
    scaled: NDArray[np.float32] = values.cpu().numpy() * np.array(SCALE, np.float32)[:, None]
    return scaled


class CentrelineDataset(Dataset[dict[str, Tensor]]):
    """Simulated centrelines, of one vessel each.

    Args:
        seeds: of the vessels.
        points: along each.

    Attributes:
        curves: scaled by `SCALE`, shape (N, 4, points).
        known: the parameters of each.
    """

    def __init__(self, seeds: Sequence[int], points: int = 32) -> None:
        drawn = [centreline(seed, points) for seed in seeds]
        self.curves = torch.from_numpy(np.stack([curve for curve, _ in drawn]) / np.array(SCALE, np.float32)[:, None])
        self.known = [known for _, known in drawn]

    def __len__(self) -> int:
        return len(self.curves)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`image` (4, points), as methods call what they learn."""
        return {"image": self.curves[index]}
