"""Slices as a 2.5-D network takes them: each with the ones above and below it as further channels."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Slices = TypeVar("Slices", NDArray[Any], Tensor)


def with_neighbours(slices: Slices, indices: NDArray[np.intp], neighbours: int) -> Slices:
    """Some slices of a volume, each with its neighbours.

    Args:
        slices: of the volume, shape (slices, C, H, W).
        indices: which of them.
        neighbours: above and below each; beyond the ends the last slice is seen again.

    Returns:
        Shape (len(indices), C · (2 · neighbours + 1), H, W): sequences outermost, then their slices from the lowest.
    """
    around = np.clip(indices[:, None] + np.arange(-neighbours, neighbours + 1), 0, len(slices) - 1)
    stacked: Slices = slices[around].swapaxes(1, 2).reshape(len(indices), -1, *slices.shape[2:])
    return stacked
