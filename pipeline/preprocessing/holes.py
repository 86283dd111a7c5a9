"""The shape of a real lesion, turned, scaled and moved into other tissue, away from disease."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.preprocessing.box import wider

# Of drawing another place for a shape that does not fit.
TRIES = 40
LEAST_VOXELS = 4  # of a lesion whose shape is used
# Around drawn lesions, where disease may be that was not drawn.
MARGIN_MM = 4.0


def lesions(mask: NDArray[np.bool_], least_voxels: int = 1) -> list[NDArray[np.bool_]]:
    """The connected lesions of a mask that are not smaller, each in the smallest box around it, the largest first."""
    labels, _ = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    pieces = [labels[box] == index for index, box in enumerate(ndimage.find_objects(labels), start=1)]
    return sorted((piece for piece in pieces if piece.sum() >= least_voxels), key=lambda piece: -int(piece.sum()))


def scale_to(shape: NDArray[np.bool_], spacing_mm: Sequence[float], ml: float) -> float:
    """The factor by which a shape of such voxels is scaled to have a volume."""
    return float((ml / (shape.sum() * np.prod(spacing_mm) / 1000)) ** (1 / 3))


def apart(
    tissue: NDArray[np.bool_], lesion: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """Tissue that is further than `MARGIN_MM` from a lesion."""
    if not lesion.any():
        return tissue
    near = wider(ndimage.find_objects(lesion.view(np.uint8))[0], MARGIN_MM, spacing_mm)
    left = tissue.copy()
    left[near] &= ndimage.distance_transform_edt(~lesion[near], sampling=spacing_mm) > MARGIN_MM
    return left


def place_shape(
    shape: NDArray[np.bool_],
    shape_spacing_mm: Sequence[float],
    allowed: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    rng: np.random.Generator,
    scales: tuple[float, float] = (0.7, 1.4),
    tilt_degrees: float = 15.0,
    inside: float = 0.8,
) -> NDArray[np.bool_] | None:
    """A lesion's shape somewhere in tissue where there is none.

    It is turned by any angle around the first axis, tilted a little around the others, mirrored or not, scaled, and
    put around a voxel of the tissue. What sticks out of the tissue is cut off, as lesions end at the brain's edge.

    Args:
        shape: a lesion, shape (slices, right, anterior).
        shape_spacing_mm: its voxel size.
        allowed: where a voxel of the hole may be, for example brain without the drawn lesion.
        spacing_mm: its voxel size.
        rng: of every choice.
        scales: least and largest factor of its size in mm.
        tilt_degrees: largest angle around the second and third axis.
        inside: least share of the shape that lies in the tissue.

    Returns:
        The hole, like `allowed`, or None if no place was found.
    """
    moved = _moved(shape, shape_spacing_mm, spacing_mm, rng, scales, tilt_degrees)
    centres = np.flatnonzero(allowed)
    if not moved.any() or not len(centres):
        return None
    for centre in rng.choice(centres, TRIES):
        corner = np.array(np.unravel_index(centre, allowed.shape)) - np.array(moved.shape) // 2
        first, end = np.maximum(corner, 0), np.minimum(corner + moved.shape, allowed.shape)
        there = tuple(map(slice, first, end))
        part = moved[tuple(map(slice, first - corner, end - corner))] & allowed[there]
        if part.sum() >= inside * moved.sum():
            hole = np.zeros(allowed.shape, dtype=bool)
            hole[there] = part
            return hole
    return None


def _moved(
    shape: NDArray[np.bool_],
    shape_spacing_mm: Sequence[float],
    spacing_mm: Sequence[float],
    rng: np.random.Generator,
    scales: tuple[float, float],
    tilt_degrees: float,
) -> NDArray[np.bool_]:
    """The shape turned, scaled and mirrored, on voxels of another size."""
    angles = np.radians([rng.uniform(-180, 180), *rng.uniform(-tilt_degrees, tilt_degrees, 2)])
    scale = np.exp(rng.uniform(*np.log(scales)))
    turn = np.diag(rng.choice([-1.0, 1.0], 3) * scale)
    for axis, angle in enumerate(angles):
        first, second = (other for other in range(3) if other != axis)
        rotation = np.eye(3)
        rotation[[first, first, second, second], [first, second, first, second]] = (
            np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle),
        )  # fmt: skip
        turn = rotation @ turn
    # Half the box around the turned shape; then each of its voxels asks where it was.
    reach_mm = np.abs(turn) @ (np.array(shape.shape) * shape_spacing_mm / 2)
    half = np.ceil(reach_mm / spacing_mm).astype(int) + 1
    back = np.diag(1 / np.array(shape_spacing_mm)) @ np.linalg.inv(turn) @ np.diag(spacing_mm)
    offset = (np.array(shape.shape) - 1) / 2 - back @ half
    values = ndimage.affine_transform(
        shape.astype(np.float32), back, offset, output_shape=tuple(2 * half + 1), order=1, mode="grid-constant"
    )
    moved: NDArray[np.bool_] = values >= 0.5
    return moved
