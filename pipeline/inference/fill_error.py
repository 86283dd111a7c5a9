"""How far a fill may be from what was there, as planted truth showed it, and fills that are as plausible.

The error of a fill, in units of the deviation of the tissue around the lesion, grows with the depth in the hole and
with the lesion's size, and is alike in neighbouring voxels. A script fits both on holes with known truth
(`scripts/calibrate_fill.py`); a bundle's inference config holds the numbers. What is drawn is plausible in scale and
smoothness, and is not anatomy: no gyrus, vessel or ventricle is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import UsageError
from pipeline.preprocessing.box import wider

# Around a lesion, the tissue whose deviation its error is measured in.
AROUND_MM = 10.0
LAGS = (1, 2, 4, 8)  # pixels
LEAST_PAIRS = 30
INTERVAL = 0.90
Z = 1.6449  # of a normal distribution, half the width of that interval in deviations
# Waves that a random field is the sum of, and voxels at once.
WAVES, BLOCK = 400, 50_000


@dataclass(frozen=True)
class Place:
    """Where voxels of a hole lie, each of shape (N,), in the order of `array[hole]`.

    Attributes:
        depth_mm: distance to the nearest tissue.
        ml: volume of the connected lesion that the voxel is of.
        deviation: of the tissue around that lesion from itself at a distance of the depth, in the units of the image:
            by how much two of its pixels that lie so far apart differ, root mean square, divided by √2. At a depth of
            one pixel it is noise for the most part, further in what the tissue is made of.
    """

    depth_mm: NDArray[np.float32]
    ml: NDArray[np.float32]
    deviation: NDArray[np.float32]


def place_in(
    axial: NDArray[np.float32],
    hole: NDArray[np.bool_],
    tissue: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> Place:
    """Where the voxels of a hole lie.

    Args:
        axial: intensities, shape (slices, right, anterior); those of the hole are not looked at.
        hole: same shape.
        tissue: head or body outside the hole, same shape.
        spacing_mm: voxel size along the same axes.
    """
    labels, _ = ndimage.label(hole, structure=np.ones((3, 3, 3)))
    everywhere = float(axial[tissue].std()) if tissue.any() else 0.0
    depth_mm, ml, deviation = (np.zeros(hole.shape, np.float32) for _ in range(3))
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        around = wider(box, AROUND_MM, spacing_mm)
        lesion, near = labels[around] == number, tissue[around]
        reach_mm = ndimage.distance_transform_edt(~lesion, sampling=spacing_mm)
        # Without any tissue near it the distance has no end.
        inner_mm = ndimage.distance_transform_edt(~near, sampling=spacing_mm) if near.any() else np.inf * lesion
        depth_mm[around][lesion] = inner_mm[lesion]
        ml[around][lesion] = lesion.sum() * np.prod(spacing_mm) / 1000
        deviations = _deviations(axial[around], near & (reach_mm <= AROUND_MM), everywhere)
        deviation[around][lesion] = np.interp(inner_mm[lesion], np.array(LAGS) * spacing_mm[1], deviations)
    return Place(depth_mm[hole], ml[hole], deviation[hole])


def _deviations(axial: NDArray[np.float32], ring: NDArray[np.bool_], otherwise: float) -> list[float]:
    """Of pixels of the ring from others in the slice, for each of `LAGS`."""
    found: list[float] = []
    for lag in LAGS:
        squares, pairs = 0.0, 0
        for axis in (1, 2):
            values, inside = np.moveaxis(axial, axis, 0), np.moveaxis(ring, axis, 0)
            both = inside[lag:] & inside[:-lag]
            squares += float(((values[lag:] - values[:-lag])[both] ** 2).sum())
            pairs += int(both.sum())
        found.append((squares / (2 * pairs)) ** 0.5 if pairs >= LEAST_PAIRS else found[-1] if found else otherwise)
    return found


@dataclass(frozen=True)
class FillError:
    """The calibrated error of a filler.

    Args:
        sizes_ml: lesion volumes of the table's rows, rising; between them it is interpolated on a logarithmic scale.
        depths_mm: distances to the nearest tissue of its columns, rising; between them it is interpolated.
        deviations: standard deviation of the error, in deviations of the tissue around the lesion: such that intervals
            of ± 1.645 of it hold the truth in 90 % of the voxels.
        lengths_mm: over which errors are alike: their correlation at a distance r is a sum of exp(−r² / 2 length²),
            weighed by the shares.
        shares: of the variance, as many as lengths; they sum to 1.

    Raises:
        UsageError: if a table does not fit its rows and columns, or a number is out of range.
    """

    sizes_ml: Sequence[float]
    depths_mm: Sequence[float]
    deviations: Sequence[Sequence[float]]
    lengths_mm: Sequence[float]
    shares: Sequence[float]

    def __post_init__(self) -> None:
        table = [list(row) for row in self.deviations]
        if not table or len(table) != len(self.sizes_ml) or any(len(row) != len(self.depths_mm) for row in table):
            raise UsageError(
                f"deviations: found rows of {', '.join(str(len(row)) for row in table) or 'nothing'}, expected "
                f"{len(self.sizes_ml)} of {len(self.depths_mm)}; run scripts/calibrate_fill.py"
            )
        rising = all(np.all(np.diff(axis) > 0) and axis[0] > 0 for axis in (self.sizes_ml, self.depths_mm))
        positive = np.min(table) > 0 and min(self.lengths_mm, default=0) > 0 and min(self.shares, default=-1) >= 0
        if not (rising and positive and len(self.shares) == len(self.lengths_mm) and abs(sum(self.shares) - 1) < 0.01):
            raise UsageError(
                "error of the fill: found numbers out of range, expected rising sizes and depths, positive deviations "
                "and lengths, and a share for each length that sum to 1; run scripts/calibrate_fill.py"
            )

    def deviation(self, place: Place) -> NDArray[np.float32]:
        """Standard deviation of the error in each voxel, in the units of the image, shape (N,)."""
        table = np.asarray(self.deviations, dtype=np.float64)
        rows = np.stack([np.interp(place.depth_mm, self.depths_mm, row) for row in table])
        row = np.interp(np.log(np.maximum(place.ml, 1e-6)), np.log(self.sizes_ml), np.arange(len(table)))
        below = np.minimum(row.astype(int), len(table) - 1)
        above, part = np.minimum(below + 1, len(table) - 1), row - below
        voxels = np.arange(len(row))
        units = (1 - part) * rows[below, voxels] + part * rows[above, voxels]
        deviation: NDArray[np.float32] = (units * place.deviation).astype(np.float32)
        return deviation

    def correlation(self, distance_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the errors of two voxels at a distance; same shape."""
        total = np.zeros_like(distance_mm)
        for length, share in zip(self.lengths_mm, self.shares, strict=True):
            total += share * np.exp(-(distance_mm**2) / (2 * length**2))
        return total

    def field(self, points_mm: Float[np.ndarray, "n 3"], seed: int | tuple[int, int]) -> Float[np.ndarray, " n"]:
        """A random field of mean 0, deviation 1 and this correlation, at some points.

        It is a sum of waves in space, so that the same seed gives the same field on any grid, in all contrasts of a
        person (Rahimi and Recht, Random Features for Large-Scale Kernel Machines, NeurIPS 2007).

        Args:
            points_mm: where.
            seed: of the waves.
        """
        rng = np.random.default_rng(seed)
        share = np.asarray(self.shares, np.float64)
        length = rng.choice(np.asarray(self.lengths_mm, np.float64), WAVES, p=share / share.sum())
        waves = (rng.standard_normal((WAVES, 3)) / length[:, None]).astype(np.float32)
        phases = rng.uniform(0, 2 * np.pi, WAVES).astype(np.float32)
        values = np.empty(len(points_mm), np.float32)
        for first in range(0, len(points_mm), BLOCK):
            block = slice(first, first + BLOCK)
            values[block] = np.cos(points_mm[block].astype(np.float32) @ waves.T + phases).sum(axis=1)
        return values * np.float32(np.sqrt(2 / WAVES))
