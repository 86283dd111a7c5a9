"""A hole filled with the smoothest continuation of what lies around it."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from pipeline.preprocessing.box import box_of

# Of the largest boundary value: far below what any data type of a scanner holds.
TOLERANCE = 1e-6


def harmonic_fill(
    volume: NDArray[np.float32],
    hole: NDArray[np.bool_],
    tissue: NDArray[np.bool_],
    spacing: tuple[float, ...],
) -> NDArray[np.float32]:
    """Fill a hole with the solution of Laplace's equation.

    Each voxel of the hole is the mean of its neighbours along the axes, weighed by the inverse square of their
    distance. Tissue is the boundary. What is neither hole nor tissue, such as air, is none (nothing flows across it),
    or a lesion at the brain's edge would turn dark. A part of the hole that touches no tissue takes the mean of all
    tissue.

    Args:
        volume: intensities of any number of dimensions.
        hole: what to fill, same shape.
        tissue: what to continue, same shape; not in the hole.
        spacing: distance of neighbours along each axis.

    Returns:
        `volume` with the hole filled; the values lie between those of the tissue.
    """
    filled = volume.copy()
    if not hole.any() or not tissue.any():
        return filled
    box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box_of(hole))
    known = tissue[box] & ~hole[box]
    inside = _touching(hole[box], known)
    part = filled[box]
    part[hole[box] & ~inside] = volume[tissue].mean()
    if inside.any():
        part[inside] = _solve(part, inside, known, spacing)
    return filled


def _touching(hole: NDArray[np.bool_], tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of the hole that have a neighbour in the tissue."""
    labels, _ = ndimage.label(hole)
    touching = np.unique(labels[ndimage.binary_dilation(tissue) & hole])
    return np.isin(labels, touching[touching > 0])


def _solve(
    volume: NDArray[np.float32], inside: NDArray[np.bool_], known: NDArray[np.bool_], spacing: tuple[float, ...]
) -> NDArray[np.float64]:
    """Harmonic values in the order of `volume[inside]`."""
    inside, known = np.pad(inside, 1), np.pad(known, 1)
    values = np.where(known, np.pad(volume.astype(np.float64), 1), 0)
    voxels = np.flatnonzero(inside)
    number = np.zeros(inside.size, dtype=np.int64)
    number[voxels] = np.arange(len(voxels))
    flat_inside, flat_known, flat_values = inside.ravel(), known.ravel(), values.ravel()
    degree, boundary = np.zeros(len(voxels)), np.zeros(len(voxels))
    rows, columns, weights = [], [], []
    for stride, distance in zip(np.array(inside.strides) // inside.itemsize, spacing, strict=True):
        weight = 1 / distance**2
        for neighbour in (voxels - stride, voxels + stride):
            unknown, border = flat_inside[neighbour], flat_known[neighbour]
            degree += weight * (unknown | border)
            boundary += weight * flat_values[neighbour] * border
            rows.append(np.flatnonzero(unknown))
            columns.append(number[neighbour[unknown]])
            weights.append(np.full(len(rows[-1]), weight))
    entries = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    laplacian = sparse.diags_array(degree) - sparse.coo_array(entries, shape=(len(voxels), len(voxels)))
    low, high = values[known].min(), values[known].max()
    solution, _ = cg(
        laplacian.tocsr(),
        boundary,
        x0=np.full(len(voxels), values[known].mean()),
        rtol=TOLERANCE,
        M=sparse.diags_array(1 / degree),
    )
    return np.clip(solution, low, high)
