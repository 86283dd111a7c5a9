"""Where the head or body is: the part of a scan that may be edited and measured."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Of the window's width: above the air around a whole head, below the darkest tissue of a skull-stripped brain.
AIR = 0.04


def foreground(axial: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest connected object brighter than air, holes within each slice filled.

    Args:
        axial: windowed intensities in [0, 1], shape (slices, right, anterior).

    Returns:
        Same shape; all False if nothing is brighter than air.
    """
    bright = axial > AIR
    labels, count = ndimage.label(bright)
    if count == 0:
        return bright
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = labels == sizes.argmax()
    # Outside its box the object has no holes.
    box = ndimage.find_objects(largest.view(np.uint8))[0]
    for axial_slice in largest[box]:
        ndimage.binary_fill_holes(axial_slice, output=axial_slice)
    return largest
