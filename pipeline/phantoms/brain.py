"""A brain whose healthy image is known: anatomy first, then lesions in its tissue; in FLAIR or another contrast."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from pipeline.errors import UsageError

Field = NDArray[np.float64]
Points = tuple[Field, Field, Field]

CORTEX_MM = 3.2
EDGE_MM = 1.6
LESION_RADIUS_MM = (4.0, 18.0)
LESION_SLICES = (0.4, 0.6)
# Widths of the ventricles (relative) and of the sulci (half, mm) of a brain without atrophy, and of the most shrunken.
VENTRICLES, SULCI_MM = (0.5, 2.0), (0.2, 1.2)


@dataclass(frozen=True)
class Contrast:
    """How bright tissue is: ranges that each subject's signal is drawn from, and what lesions add.

    Attributes:
        csf: of fluid.
        grey: of grey matter.
        white: of white matter.
        lesion: times the change that a lesion makes in FLAIR, which is 190 to 370 where it is bright.
    """

    csf: tuple[float, float]
    grey: tuple[float, float]
    white: tuple[float, float]
    lesion: float


CONTRASTS = {
    "FLAIR": Contrast((190, 240), (610, 670), (470, 520), 1.0),
    "T1w": Contrast((150, 200), (440, 490), (640, 700), -0.6),
    "T2w": Contrast((920, 990), (520, 570), (340, 390), 0.8),
    "PDw": Contrast((690, 740), (640, 680), (540, 580), 0.6),
}
# Kinds of lesion, by how often the change in each contrast that most lesions make.
LESIONS = {"bright": 1.0, "dark": -0.9}


@dataclass(frozen=True)
class Phantom:
    """One subject; all volumes lie on the same grid, axes towards right, anterior and superior.

    Attributes:
        image: the scan with lesions, int16 `(X, Y, Z)`; background exactly 0, tissue about 200 to 1000.
        healthy: the same scan before the lesions, with the same bias field and the same noise: equal to
            `image` voxel for voxel wherever `lesion` is 0.
        lesion: uint8 `(X, Y, Z)`, 1 where a lesion changed the signal.
        affine: voxel indices to millimetres, `(4, 4)`, world origin at the centre of the brain.
    """

    image: NDArray[np.int16]
    healthy: NDArray[np.int16]
    lesion: NDArray[np.uint8]
    affine: Field


@dataclass(frozen=True)
class _Anatomy:
    """Tissue fractions per voxel (0 to 1, summing to 1 inside `brain`)."""

    brain: NDArray[np.bool_]
    csf: Field
    grey: Field
    white: Field


def brain_phantom(
    seed: int | np.random.Generator,
    shape: tuple[int, int, int] = (88, 104, 24),
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 5.0),
    contrast: str = "FLAIR",
    atrophy: float | None = None,
    lesions: str = "bright",
) -> Phantom:
    """Draw one skull-stripped brain with lesions in 40 to 60 % of its slices.

    Size, folding, ventricles, tissue intensities, bias field, noise and lesions vary with the seed. The
    anatomy is drawn in millimetres: another grid samples the brain differently, and a field of view below
    about 150 × 190 × 115 mm cuts it off.

    Args:
        seed: an integer, or a generator that the drawing advances.
        shape: voxels along right, anterior and superior.
        spacing_mm: voxel size along the same axes.
        contrast: a key of `CONTRASTS`; the same seed gives the same anatomy in each.
        atrophy: from 0 to 1, how wide ventricles and sulci are; None draws the one and the other.
        lesions: a key of `LESIONS`, named by how they look in FLAIR; the same seed gives them the same shapes.

    Raises:
        UsageError: if white matter reaches fewer than six slices of the grid.

    Example:
        >>> phantom = brain_phantom(0, shape=(44, 52, 12), spacing_mm=(4.0, 4.0, 10.0))
        >>> bool((phantom.image == phantom.healthy)[phantom.lesion == 0].all())
        True
    """
    rng = np.random.default_rng(seed)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [-step * (count - 1) / 2 for step, count in zip(spacing_mm, shape, strict=True)]
    x, y, z = np.meshgrid(
        *(affine[axis, 3] + affine[axis, axis] * np.arange(shape[axis]) for axis in range(3)), indexing="ij"
    )
    anatomy = _anatomy(rng, (x, y, z), spacing_mm, atrophy)
    of = CONTRASTS[contrast]
    gain = rng.uniform(0.92, 1.08)
    signal = gain * (
        rng.uniform(*of.csf) * anatomy.csf
        + rng.uniform(*of.grey) * anatomy.grey
        + rng.uniform(*of.white) * anatomy.white
    )
    change = LESIONS[lesions] * of.lesion * gain * _lesions(rng, (x, y, z), anatomy)
    bias = np.exp(0.05 * _smooth_noise(rng, (x, y, z), scale_mm=70))
    # Rician noise: the magnitude of a complex signal with Gaussian noise in both channels.
    real, imaginary = rng.normal(0, rng.uniform(8, 16), size=(2, *shape))

    def scanned(tissue: Field) -> NDArray[np.int16]:
        magnitude = np.hypot(tissue * bias + real, imaginary)
        return np.where(anatomy.brain, np.maximum(np.rint(magnitude), 1), 0).astype(np.int16)

    return Phantom(
        image=scanned(signal + change),
        healthy=scanned(signal),
        lesion=(change != 0).astype(np.uint8),
        affine=affine,
    )


def _smooth_noise(rng: np.random.Generator, points: Points, scale_mm: float) -> Field:
    """Noise of unit deviation at `points`: a cubic B-spline over a periodic lattice of normal draws."""
    lattice = rng.normal(size=(32, 32, 32))
    at = np.stack([coordinate / scale_mm + 16 for coordinate in points])
    noise: Field = map_coordinates(lattice, at, order=3, mode="grid-wrap", prefilter=False)
    # The squared cubic B-spline has the integral 151/315: the mean variance along each of three axes.
    noise /= (151 / 315) ** 1.5
    return noise


def _inside(distance_mm: Field) -> Field:
    """Fraction of a voxel inside a surface, from the signed distance to it (positive inside)."""
    return np.clip(distance_mm / EDGE_MM + 0.5, 0, 1)


def _drawn(
    rng: np.random.Generator, drawn: tuple[float, float], shrunken: tuple[float, float], atrophy: float | None
) -> float:
    """A width: drawn, or as atrophy makes it; a draw is made in any case, so that the others stay the same."""
    width = rng.uniform(*drawn)
    return width if atrophy is None else shrunken[0] + atrophy * (shrunken[1] - shrunken[0])


def _anatomy(
    rng: np.random.Generator, points: Points, spacing_mm: tuple[float, float, float], atrophy: float | None
) -> _Anatomy:
    x, y, z = points
    half_axes = np.array([66.0, 82.0, 53.0]) * rng.uniform(0.95, 1.05, size=3)
    a, b, c = half_axes
    # The brain is widest behind its middle.
    egg = x * (1 + rng.uniform(0.06, 0.14) * y / b)
    radius = np.maximum(np.sqrt((egg / a) ** 2 + (y / b) ** 2 + (z / c) ** 2), 1e-3)
    from_centre = np.sqrt(x**2 + y**2 + z**2)
    # Noise that hardly varies along a ray folds the surface in walls that run inwards, as sulci do.
    wall = (0.75 + 0.25 * radius) / radius
    rays = (x * wall, y * wall, z * wall)
    depth = (1 - radius) * from_centre / radius + 1.5 * _smooth_noise(rng, rays, scale_mm=25)

    meander = [axis + 4 * _smooth_noise(rng, points, scale_mm=12) for axis in rays]
    folds = _smooth_noise(rng, (meander[0], meander[1], meander[2]), scale_mm=rng.uniform(9, 11))
    steepness = np.sqrt(sum(slope**2 for slope in np.gradient(folds, *spacing_mm)))
    to_sulcus = np.abs(folds) / np.maximum(steepness, 0.05)
    sulcal_floor = rng.uniform(17, 21) + 4 * _smooth_noise(rng, rays, scale_mm=20)
    # The Sylvian fissure: deep at mid height, further back the higher.
    to_sylvian = 0.75 * np.abs(y - rng.uniform(2, 10) + 0.5 * (np.abs(x) - 40) + 0.7 * z + 2 * folds)
    sylvian_floor = 32 * np.exp(-(((z - 2) / 17) ** 2))
    to_midline = np.abs(x - 1.5 * _smooth_noise(rng, (0 * x, y, z), scale_mm=30))

    def below_fissure(to_wall: Field, half_width_mm: float, floor_mm: Field | float) -> Field:
        # Fissures open towards the surface.
        beside = to_wall - half_width_mm * (1 + 1.5 * np.exp(-np.maximum(depth, 0) / 4))
        below: Field = np.where(depth < floor_mm, beside, np.hypot(np.maximum(beside, 0), depth - floor_mm))
        return below

    to_pia = np.minimum.reduce(
        [
            depth,
            below_fissure(to_sulcus, _drawn(rng, (0.2, 0.7), SULCI_MM, atrophy), sulcal_floor),
            below_fissure(to_sylvian, rng.uniform(0.6, 1.2), sylvian_floor),
            below_fissure(to_midline, rng.uniform(0.4, 0.9), rng.uniform(24, 30)),
        ]
    )
    ventricle, nuclei = _deep_structures(rng, points, atrophy)
    csf = np.maximum(1 - _inside(to_pia), _inside(ventricle))
    grey = (1 - csf) * np.maximum(_inside(CORTEX_MM - to_pia), 0.7 * _inside(nuclei))
    return _Anatomy(brain=depth > 0, csf=csf, grey=grey, white=1 - csf - grey)


def _deep_structures(rng: np.random.Generator, points: Points, atrophy: float | None) -> tuple[Field, Field]:
    """Signed distances (mm, positive inside) to the ventricles and cisterns, and to the deep grey nuclei."""
    x, y, z = points
    wide = _drawn(rng, (0.7, 1.5), VENTRICLES, atrophy)
    lateral = np.full_like(x, -np.inf)
    nuclei = np.full_like(x, -np.inf)
    for side in (-1, 1):
        across = side * x * rng.uniform(0.95, 1.05)
        centre_x = 6 + 0.9 * wide + np.where(y > 5, 0.010 * (y - 5) ** 2, 0.0085 * (y - 5) ** 2)
        centre_z = 14 - 0.006 * (y + 4) ** 2
        taper = np.sqrt(np.maximum(1 - ((y + 5) / 40) ** 2, 0.02))
        half_width = wide * taper * (4.2 + 2.5 * np.exp(-(((y + 28) / 10) ** 2)))
        half_height = 7 + 2 * wide
        tube = 1 - np.sqrt(((across - centre_x) / half_width) ** 2 + ((z - centre_z) / half_height) ** 2)
        lateral = np.maximum(lateral, np.minimum(tube * half_width, 40 - np.abs(y + 5)))
        for centre, half_axes in (
            ((12.0, -14.0, 3.0), (8.0, 13.0, 9.0)),
            ((27.0, 2.0, 4.0), (5.5, 15.0, 10.0)),
            ((14.0, 20.0, 10.0), (5.0, 9.0, 9.0)),
        ):
            scaled = [(p - m) / h for p, m, h in zip((across, y, z), centre, half_axes, strict=True)]
            nuclei = np.maximum(nuclei, (1 - np.sqrt(sum(s**2 for s in scaled))) * min(half_axes))
    third = np.minimum.reduce([1.2 * wide - np.abs(x), 14 - np.abs(y + 8), 9 - np.abs(z + 2)])
    ambient = np.minimum(rng.uniform(0.1, 0.7) - np.abs(np.hypot(x, 0.9 * (y + 16)) - 16), -8 - y)
    suprasellar = rng.uniform(4, 6) - 0.6 * np.abs(x) - 0.8 * np.abs(y - 4)
    cisterns = np.minimum(np.maximum(ambient, suprasellar), 9 - np.abs(z + 25))
    return np.maximum.reduce([lateral, third, cisterns]), nuclei


def _lesions(rng: np.random.Generator, points: Points, anatomy: _Anatomy) -> Field:
    """Change of signal by lesions, 0 outside them; drawn one by one until enough slices are pathological."""
    tissue = anatomy.brain & (anatomy.csf < 0.1)
    seeds = tissue & (anatomy.white > 0.5)
    brain_slices = np.flatnonzero(anatomy.brain.any(axis=(0, 1)))
    trim = len(brain_slices) // 8
    middle = [k for k in brain_slices[trim : len(brain_slices) - trim] if seeds[..., k].any()]
    if len(middle) < 6:
        raise UsageError(
            f"phantom grid: white matter reaches only {len(middle)} of {tissue.shape[2]} slices where "
            "at least 6 are needed for healthy and pathological ones; use more slices, over about 115 mm"
        )
    fewest, most = (share * len(brain_slices) for share in LESION_SLICES)
    total = np.zeros(tissue.shape)
    while np.count_nonzero(total.any(axis=(0, 1))) < fewest:
        k = rng.choice(middle)
        i, j = rng.choice(np.argwhere(seeds[..., k]))
        centre = [axis[i, j, k] for axis in points]
        change = np.where(tissue, _lesion(rng, points, centre), 0)
        merged = np.where(change != 0, change, total)
        if np.count_nonzero(merged.any(axis=(0, 1))) <= most:
            total = merged
    return total


def _lesion(rng: np.random.Generator, points: Points, centre: list[float]) -> Field:
    """Change of signal by one lesion: bright with a soft, irregular edge, at times with a dark core."""
    radius_mm = rng.uniform(*LESION_RADIUS_MM)
    stretch = rng.uniform(0.8, 1.25, size=3)
    offsets = [(axis - middle) / s for axis, middle, s in zip(points, centre, stretch, strict=True)]
    distance = np.sqrt(sum(offset**2 for offset in offsets))
    ragged = 0.22 * _smooth_noise(rng, points, scale_mm=max(radius_mm / 1.5, 4))
    within_mm = radius_mm * (1 + ragged) - distance
    profile = np.clip(0.4 + within_mm / rng.uniform(2, 6), 0, 1)
    change = rng.uniform(190, 370) * np.where(within_mm > 0, profile, 0)
    if radius_mm > 10 and rng.random() < 0.4:
        change[within_mm > rng.uniform(0.4, 0.6) * radius_mm] = -rng.uniform(80, 160)
    return change
