"""Lesions planted in a scan of a person: shapes of real lesions, the look of lesions, and the truth beneath them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import ScanError
from pipeline.phantoms.appearance import APPEARANCES, Spacing, Tissue, displaced, paint
from pipeline.preprocessing.brain import brain_tissue
from pipeline.preprocessing.holes import LEAST_VOXELS, apart, lesions, place_shape, scale_to
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan

# How many lesions of which size in ml a scan gets, in turn; None: as much as a third of a hemisphere.
BURDENS: tuple[tuple[int, float, float | None], ...] = (
    (6, 0.01, 0.1),
    (4, 0.1, 1.0),
    (2, 1.0, 10.0),
    (1, 10.0, 50.0),
    (1, 50.0, None),
)
HEMISPHERES, THIRD = 2, 1 / 3
ONE_SIDE_ML = 10.0  # from where on a lesion stays on its side of the brain
# A shape is scaled from no further than this factor of its volume if there is one.
LIKE = 8.0
# Of shapes and, from half of them on, of sizes by a half, where there is no room.
TRIES = 12
# Of a shape, at least, lies in tissue, or in tissue of one side, whose middle is no border that lesions have; the rest
# is cut off.
INSIDE, INSIDE_SIDE = 0.75, 0.88
CRUMB = 0.2  # of the largest piece of a lesion that was cut; smaller ones are left out
# Of a lesion's radius, how far it pushes tissue aside, and how far that is felt.
PUSH, REACH = (0.1, 0.3), 4.0


@dataclass(frozen=True)
class Shape:
    """The shape of a real lesion.

    Attributes:
        voxels: bool, shape (slices, right, anterior), the smallest box around it.
        spacing_mm: voxel size along these axes.
        subject: scan that it was drawn in.
    """

    voxels: NDArray[np.bool_]
    spacing_mm: Spacing
    subject: str

    @property
    def ml(self) -> float:
        """Volume."""
        return float(self.voxels.sum() * np.prod(self.spacing_mm)) / 1000


@dataclass(frozen=True)
class Plant:
    """What was planted.

    Attributes:
        shape: subject whose lesion's shape it has.
        ml: volume as planted.
        appearance: one of `APPEARANCES`.
        push_mm: how far tissue at its border was pushed aside; 0 without mass effect.
        reach_mm: how far from its border tissue was moved.
    """

    shape: str
    ml: float
    appearance: str
    push_mm: float
    reach_mm: float

    def record(self) -> dict[str, Any]:
        """As a sidecar keeps it."""
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Planted:
    """A scan with planted lesions, all on the scan's own grid.

    Attributes:
        image: stored voxels with the lesions, in the scan's data type.
        lesion: where they are, bool.
        plants: what they are.
    """

    image: NDArray[np.generic]
    lesion: NDArray[np.bool_]
    plants: list[Plant]


def shapes_of(mask: Scan, lesion: NDArray[np.bool_], subject: str) -> list[Shape]:
    """The shapes of the lesions drawn in a mask, without those of fewer than `LEAST_VOXELS` voxels."""
    pieces = lesions(np.ascontiguousarray(mask.axial(lesion)), LEAST_VOXELS)
    return [Shape(piece, mask.axial_spacing_mm, subject) for piece in pieces]


def plant(
    scan: Scan,
    own: NDArray[np.bool_] | None,
    shapes: Sequence[Shape],
    turn: int,
    rng: np.random.Generator,
    mass_effect: bool = False,
) -> Planted:
    """Plant lesions in the brain tissue of a scan, away from its own disease.

    Args:
        scan: the host.
        own: its own drawn lesions, bool, shape of the scan; None if it has none.
        shapes: that lesions may have.
        turn: which of `BURDENS` it gets, counted round.
        rng: of every choice.
        mass_effect: whether lesions push the tissue around them aside.

    Raises:
        ScanError: if there is no room for any lesion.
    """
    spacing_mm = scan.axial_spacing_mm
    axial = np.ascontiguousarray(scan.axial(scan.intensities()))
    disease = np.zeros(axial.shape, bool) if own is None else np.ascontiguousarray(scan.axial(own))
    windowed = WindowRule().window(scan.intensities(), scan.origin).apply(axial)
    brain = brain_tissue(windowed, spacing_mm, disease)
    free = apart(brain, disease, spacing_mm)
    if not free.any():
        raise _no_room(scan)
    tissue = Tissue.of(axial, free)
    count, least_ml, most_ml = BURDENS[turn % len(BURDENS)]
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    least_ml = max(least_ml, LEAST_VOXELS * voxel_ml)
    most_ml = most_ml or max(2 * least_ml, THIRD * float(brain.sum()) * voxel_ml / HEMISPHERES)
    lesion, painted, plants = np.zeros(axial.shape, bool), axial, []
    room = free
    for _ in range(count):
        target_ml = float(np.exp(rng.uniform(*np.log((least_ml, max(least_ml, most_ml))))))
        large = target_ml >= ONE_SIDE_ML
        there = _one_side(room, rng) if large else room
        placed = _placed(shapes, target_ml, there, INSIDE_SIDE if large else INSIDE, spacing_mm, rng)
        if placed is None:
            continue
        hole, shape = placed
        ml = float(hole.sum()) * voxel_ml
        push_mm = reach_mm = 0.0
        if mass_effect:
            radius_mm = (3 / (4 * np.pi) * 1000 * ml) ** (1 / 3)
            push_mm = float(rng.uniform(*PUSH)) * radius_mm
            reach_mm = REACH * push_mm
            painted = displaced(painted, hole, free & ~lesion, spacing_mm, push_mm, reach_mm)
        appearance = str(rng.choice(list(APPEARANCES)))
        painted = paint(painted, hole, appearance, tissue, spacing_mm, rng)
        lesion |= hole
        room = apart(room, hole, spacing_mm)
        plants.append(Plant(shape.subject, ml, appearance, push_mm, reach_mm))
    if not plants:
        raise _no_room(scan)
    image = scan.stored.copy()
    changed = np.zeros(scan.shape, bool)
    scan.axial(changed)[...] = painted != axial
    values = np.zeros(scan.shape, np.float32)
    scan.axial(values)[...] = painted
    image[changed] = _stored(values[changed], scan)
    mask = np.zeros(scan.shape, bool)
    scan.axial(mask)[...] = lesion
    return Planted(image, mask, plants)


def _no_room(scan: Scan) -> ScanError:
    return ScanError(
        f"{scan.origin}: has no room for another lesion, expected enough brain tissue without disease; leave it out"
    )


def _one_side(tissue: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Tissue right or left of the middle of the brain."""
    side = tissue.copy()
    middle = round(float(np.average(np.arange(tissue.shape[1]), weights=tissue.sum(axis=(0, 2)))))
    side[:, slice(None, middle) if rng.random() < 0.5 else slice(middle, None)] = False
    return side


def _placed(
    shapes: Sequence[Shape],
    target_ml: float,
    allowed: NDArray[np.bool_],
    inside: float,
    spacing_mm: Spacing,
    rng: np.random.Generator,
) -> tuple[NDArray[np.bool_], Shape] | None:
    for attempt in range(TRIES):
        ml = target_ml / 2 ** max(0, attempt - TRIES // 2)
        ratios = np.abs(np.log([shape.ml / ml for shape in shapes]))
        like = np.flatnonzero(ratios <= max(np.log(LIKE), ratios.min()))
        shape = shapes[int(rng.choice(like))]
        scale = scale_to(shape.voxels, shape.spacing_mm, ml)
        hole = place_shape(
            shape.voxels, shape.spacing_mm, allowed, spacing_mm, rng, scales=(scale, scale), inside=inside
        )
        if hole is not None and (hole := _without_crumbs(hole)).sum() >= LEAST_VOXELS:
            return hole, shape
    return None


def _without_crumbs(hole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A lesion without the small pieces that were cut off it, which would count as lesions of another size."""
    labels, _ = ndimage.label(hole, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: NDArray[np.bool_] = (sizes >= CRUMB * sizes.max())[labels] & hole
    return kept


def _stored(intensities: NDArray[np.float32], scan: Scan) -> NDArray[np.generic]:
    """Intensities in the scan's stored units and data type; what that cannot hold becomes its limit."""
    values = (intensities - scan.intercept) / scan.slope
    if np.issubdtype(scan.stored.dtype, np.integer):
        limits = np.iinfo(scan.stored.dtype)  # type: ignore[type-var]
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(scan.stored.dtype)
