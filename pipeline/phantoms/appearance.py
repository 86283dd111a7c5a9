"""How planted lesions look: bright or dark, rimmed, cystic or heterogeneous, with soft edges and the scan's own noise.

Ranges are those of real lesions: in `lgg` and BRATS-2013, the median FLAIR signal of a tumour is 1.1 to 2.0 times that
of brain tissue, that of T1 0.76 to 1.12 times; within a tumour it varies by 0.13 to 0.4 of tissue's (FLAIR), and from a
voxel to the next as much as tissue does, or half as much.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.preprocessing.box import wider

Field = NDArray[np.float32]
Spacing = tuple[float, float, float]

# Times the median of brain tissue.
BRIGHT, DARK, CYST = (1.15, 2.0), (0.45, 0.8), (0.2, 0.5)
RIM_MM = (2.5, 6.0)
CYST_SHARE = (0.15, 0.6)  # of the depth, where a cyst begins
# Share of the tissue's own texture that is left: much in oedema, none in a core.
KEPT, LITTLE = (0.3, 0.9), (0.0, 0.3)
BLOTCH_MM = (3.0, 10.0)  # scale of slow variations
VARIATION = (0.03, 0.15)  # of their deviation, as a share of tissue's median
SOFT_MM, ROUND = 1.5, 0.2  # edge of a core, and how much rounder than its lesion it is, as a share of the depth
EDGE_MM = (0.8, 4.0)  # over which a lesion rises from its border
BORDER = 0.25  # of the full change, at a lesion's outermost voxels
BRIGHTEST = 99.9  # percentile of head or brain
# Where tissue is flat, in windows of so many pixels, there is noise alone; noise of neighbours is alike.
FLAT, FLATTEST, GRAIN_PIXELS = 5, 20, 0.6


@dataclass(frozen=True)
class Tissue:
    """Normal tissue of a scan, that lesions are made relative to.

    Attributes:
        median: in the scan's units.
        brightest: signal that lesions do not exceed by much, in the same units.
        noise: standard deviation of the difference of a voxel and the mean of its neighbours, in the same units.
    """

    median: float
    brightest: float
    noise: float

    @classmethod
    def of(cls, axial: Field, brain: NDArray[np.bool_]) -> "Tissue":
        """Measured in a scan's axial slices (slices, right, anterior), within brain tissue."""
        # What differs from the mean of the neighbours in the slice, where tissue is flat.
        squared = ndimage.uniform_filter(_apart(axial) ** 2, (0, FLAT, FLAT))
        # The filter's running sums leave values below 0 where a scan is constant.
        local = np.sqrt(np.maximum(squared, 0))
        return cls(
            median=float(np.median(axial[brain])),
            brightest=float(np.percentile(axial[axial > 0], BRIGHTEST)) if (axial > 0).any() else 0.0,
            noise=float(np.percentile(local[brain], FLATTEST)),
        )


def _apart(axial: Field) -> Field:
    cross = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]], np.float32) / 4
    return np.asarray(axial - ndimage.convolve(axial, cross), np.float32)


@dataclass(frozen=True)
class _Lesion:
    """A lesion on its box of voxels: depth below its surface in mm, what was there, and draws."""

    depth_mm: Field
    before: Field
    spacing_mm: Spacing
    tissue: Tissue
    rng: np.random.Generator

    def level(self, between: tuple[float, float]) -> float:
        """A signal drawn evenly, in the scan's units."""
        low, high = between
        most = max(low, min(high, self.tissue.brightest / max(self.tissue.median, 1e-6)))
        return float(self.rng.uniform(low, most)) * self.tissue.median

    def blotches(self) -> Field:
        """Slow variations of unit deviation."""
        sigma = [self.rng.uniform(*BLOTCH_MM) / mm for mm in self.spacing_mm]
        drawn = ndimage.gaussian_filter(self.rng.standard_normal(self.before.shape, dtype=np.float32), sigma)
        return np.asarray((drawn - drawn.mean()) / max(float(drawn.std()), 1e-6), np.float32)

    def noise(self) -> Field:
        """Noise as the scan has it."""
        drawn = self.rng.standard_normal(self.before.shape, dtype=np.float32)
        grain = ndimage.gaussian_filter(
            drawn, [0 if mm > 2 * self.spacing_mm[1] else GRAIN_PIXELS for mm in self.spacing_mm]
        )
        return np.asarray(grain * (self.tissue.noise / max(float(_apart(grain).std()), 1e-6)), np.float32)

    def substance(self, level: float | Field, kept: float, variation: tuple[float, float] = VARIATION) -> Field:
        """Tissue of another mean signal: some of its texture is kept, the rest is blotches and noise."""
        texture = kept * (self.before - np.float32(self.tissue.median))
        slow = self.rng.uniform(*variation) * self.tissue.median * self.blotches()
        # What is kept of the texture brings its noise with it.
        return np.asarray(level + texture + slow + np.sqrt(1 - kept**2) * self.noise(), np.float32)

    def within(self, border: float | Field) -> Field:
        """From 0 to 1 where the lesion is deeper than a border in mm; cores are rounder than lesions."""
        deepest = float(self.depth_mm.max())
        round_mm = ndimage.gaussian_filter(self.depth_mm, [ROUND * deepest / mm for mm in self.spacing_mm])
        # Smoothed, the deepest place is less deep.
        round_mm *= deepest / max(float(round_mm.max()), 1e-6)
        return np.asarray(np.clip((round_mm - border) / SOFT_MM + 0.5, 0, 1), np.float32)


def _bright(lesion: _Lesion) -> Field:
    """Oedema, gliosis, demyelination in FLAIR and T2: bright, with the tissue seen through it."""
    return lesion.substance(lesion.level(BRIGHT), lesion.rng.uniform(*KEPT))


def _dark(lesion: _Lesion) -> Field:
    """Black holes and infarcts in T1, or the same oedema there: dark, with the tissue seen through it."""
    return lesion.substance(lesion.level(DARK), lesion.rng.uniform(*KEPT))


def _core(lesion: _Lesion) -> Field:
    """Solid tumour: little is left of the tissue."""
    return lesion.substance(lesion.level(BRIGHT), lesion.rng.uniform(*LITTLE))


def _rimmed(lesion: _Lesion) -> Field:
    """A necrotic core in a bright rim of varying width, as contrast enhances it in T1."""
    rim = lesion.substance(lesion.level(BRIGHT), 0)
    core = lesion.substance(lesion.level((DARK[0], 1.0)), 0)
    width = lesion.rng.uniform(*RIM_MM) * (1 + 0.35 * lesion.blotches())
    return rim + lesion.within(np.minimum(width, 0.6 * float(lesion.depth_mm.max()))) * (core - rim)


def _cystic(lesion: _Lesion) -> Field:
    """Fluid amid solid tumour or oedema."""
    solid = lesion.substance(lesion.level((1.0, BRIGHT[1])), lesion.rng.uniform(LITTLE[0], KEPT[1]))
    fluid = lesion.substance(lesion.level(CYST), 0, variation=(0, VARIATION[0]))
    return solid + lesion.within(lesion.rng.uniform(*CYST_SHARE) * float(lesion.depth_mm.max())) * (fluid - solid)


def _heterogeneous(lesion: _Lesion) -> Field:
    """Patches of two kinds, of which one may be darker than tissue."""
    first = lesion.substance(lesion.level(BRIGHT), lesion.rng.uniform(*KEPT))
    second = lesion.substance(lesion.level((DARK[0], BRIGHT[1])), lesion.rng.uniform(*LITTLE))
    share = np.clip(lesion.blotches() + lesion.rng.uniform(0, 1), 0, 1)
    return first + np.asarray(share, np.float32) * (second - first)


APPEARANCES: dict[str, Callable[[_Lesion], Field]] = {
    "bright": _bright,
    "dark": _dark,
    "core": _core,
    "rimmed": _rimmed,
    "cystic": _cystic,
    "heterogeneous": _heterogeneous,
}


def paint(
    axial: Field,
    lesion: NDArray[np.bool_],
    appearance: str,
    tissue: Tissue,
    spacing_mm: Spacing,
    rng: np.random.Generator,
) -> Field:
    """A scan with a lesion in it, of the shape of a mask.

    Args:
        axial: the scan in its units, shape (slices, right, anterior).
        lesion: where the lesion is, same shape; nothing else changes.
        appearance: one of `APPEARANCES`.
        tissue: normal tissue of the scan.
        spacing_mm: voxel size along the same axes.
        rng: of every choice.

    Returns:
        Same shape and units, not below 0 where the scan is not.
    """
    painted = axial.copy()
    box = ndimage.find_objects(lesion.view(np.uint8))[0]
    inside = lesion[box]
    depth_mm = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    depth_mm = (depth_mm - depth_mm[inside].min()).astype(np.float32)
    before = axial[box]
    made = APPEARANCES[appearance](_Lesion(depth_mm, before, spacing_mm, tissue, rng))
    # A small lesion reaches its full change in the middle.
    edge_mm = min(float(rng.uniform(*EDGE_MM)), 0.7 * float(depth_mm.max()))
    rise = np.clip(BORDER + (1 - BORDER) * depth_mm / max(edge_mm, 1e-3), 0, 1) if edge_mm else np.float32(1)
    changed = before + np.asarray(rise, np.float32) * (made - before)
    painted[box][inside] = np.maximum(changed, min(0.0, float(axial.min())))[inside]
    return painted


def displaced(
    axial: Field,
    lesion: NDArray[np.bool_],
    movable: NDArray[np.bool_],
    spacing_mm: Spacing,
    push_mm: float,
    reach_mm: float,
) -> Field:
    """A scan whose tissue a growing lesion has pushed aside.

    Tissue moves away from the lesion, by `push_mm` at its border and less and less with distance, and not at all at the
    border of what can move, such as the skull.

    Args:
        axial: shape (slices, right, anterior).
        lesion: same shape; what is in it after the displacement means nothing.
        movable: tissue that gives way, same shape.
        spacing_mm: voxel size along the same axes.
        push_mm: at the lesion's border.
        reach_mm: how far from the lesion tissue moves; at least 3 × `push_mm`, or tissue would fold.

    Returns:
        Same shape; unchanged further than `reach_mm` from the lesion.

    Raises:
        ValueError: if the reach is too short.
    """
    if reach_mm < 3 * push_mm:
        raise ValueError(f"found a reach of {reach_mm:g} mm, expected at least 3 times the push of {push_mm:g} mm")
    box = wider(ndimage.find_objects(lesion.view(np.uint8))[0], reach_mm, spacing_mm)
    inside, before = lesion[box], axial[box]
    distance = ndimage.distance_transform_edt(~inside, sampling=spacing_mm)
    room = ndimage.distance_transform_edt(movable[box] | inside, sampling=spacing_mm)
    outwards = ndimage.gaussian_filter(
        distance - ndimage.distance_transform_edt(inside, sampling=spacing_mm), [2.0 / mm for mm in spacing_mm]
    )
    # Only along axes that a volume has.
    slopes = [
        np.gradient(outwards, mm, axis=axis) if outwards.shape[axis] > 1 else 0 * outwards
        for axis, mm in enumerate(spacing_mm)
    ]
    length = np.maximum(np.sqrt(sum(slope**2 for slope in slopes)), 1e-3)
    push = push_mm * np.clip(1 - distance / reach_mm, 0, 1) * np.minimum(1, room / reach_mm)
    index = np.indices(before.shape).astype(np.float64)
    for axis, (slope, mm) in enumerate(zip(slopes, spacing_mm, strict=True)):
        index[axis] -= push * slope / length / mm
    moved = ndimage.map_coordinates(before, index, order=1, mode="nearest")
    result = axial.copy()
    result[box] = np.where(push > 0, moved, before)
    return result
