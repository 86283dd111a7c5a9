"""Foreground mask: the head or body, the part of a scan that may be edited and measured."""

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from pipeline.preprocessing.box import box_of

# Of the window's width: above the air around a whole head, below the darkest tissue of a skull-stripped brain.
AIR = 0.04


def foreground(
    axial: Float32[np.ndarray, "slices right anterior"],
) -> Bool[np.ndarray, "slices right anterior"]:
    """The largest connected object brighter than air, holes within each slice filled.

    Args:
        axial: windowed intensities in [0, 1], shape (slices, right, anterior).

    Returns:
        Same shape; all False if nothing is brighter than air.
    """
    bright = axial > AIR
    box = box_of(bright)
    if not bright[box].size:
        return bright
    labels, _ = ndimage.label(bright[box])
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: np.ndarray = np.zeros_like(bright)
    inside = largest[box]
    np.equal(labels, sizes.argmax(), out=inside)
    for axial_slice in inside:
        ndimage.binary_fill_holes(axial_slice, output=axial_slice)
    return largest
