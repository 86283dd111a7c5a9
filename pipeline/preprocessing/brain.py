"""Where brain tissue lies in a scan, roughly and in any contrast: for places of lesions, not for volumes."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.preprocessing.box import box_of, wider
from pipeline.preprocessing.domain import Features, measure
from pipeline.preprocessing.foreground import AIR, foreground

# Of the brightest tenth of head or body: above the noise of air.
NOISE = 0.3
# Within a slice, from the border of a whole head to the brain.
SCALP_MM = 12.0
# Of the median brightness: between fluid and fat, whichever of them is the brighter.
TISSUE = (0.6, 1.7)
SMOOTH_MM, THICK_MM = 1.0, 3.0
# Muscles and eyes hang on the brain by less than twice this.
BRIDGE_MM = 7.0
# Sulci are narrower than twice this, ventricles mostly wider.
SULCUS_MM = 2.5
STEP_MM = 4.0  # that the brain grows by from a slice to the next
# Around head or body: more than the filter and the sulci reach, so that air beyond changes nothing.
MARGIN_MM = 5.0


def brain_tissue(
    axial: NDArray[np.float32], spacing_mm: tuple[float, float, float], lesion: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """The brain with its sulci, without large ventricles, of a whole head or a skull-stripped brain.

    Tissue of about the median brightness; of a whole head, what lies deeper than scalp and skull and is more than
    bridges wide. The face's muscles may be left over in the lowest slices.

    Args:
        axial: windowed intensities in [0, 1], shape (slices, right, anterior).
        spacing_mm: voxel size along the same axes.
        lesion: the drawn lesion, whose brightness says nothing; it is no brain tissue.

    Returns:
        Same shape; all False if nothing is found.
    """
    inside, features = _head(axial, spacing_mm)
    if features is None:
        return inside
    box = wider(box_of(inside), MARGIN_MM, spacing_mm)
    found = np.zeros_like(inside)
    found[box] = _tissue(
        axial[box], inside[box], features.kind == "whole", spacing_mm, None if lesion is None else lesion[box]
    )
    return found


def _tissue(
    axial: NDArray[np.float32],
    head: NDArray[np.bool_],
    whole: bool,
    spacing_mm: tuple[float, float, float],
    lesion: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Brain tissue in the box of a head or a stripped brain."""
    inside = depth_mm(head, spacing_mm) > SCALP_MM if whole else head.copy()
    if lesion is not None:
        inside &= ~lesion
    smooth = ndimage.gaussian_filter(axial, [SMOOTH_MM / mm if mm < THICK_MM else 0 for mm in spacing_mm])
    low, high = (share * float(np.median(smooth[inside])) for share in TISSUE) if inside.any() else (0.0, 0.0)
    tissue = inside & (smooth > low) & (smooth < high)
    if whole:
        tissue = _without_face(tissue, spacing_mm)
    grown = _distance_mm(tissue, spacing_mm) <= SULCUS_MM
    closed: NDArray[np.bool_] = inside & (depth_mm(grown, spacing_mm) > SULCUS_MM)
    return closed


def brain_region(axial: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """All of a skull-stripped brain, its ventricles too; of a whole head, `brain_tissue`.

    Args:
        axial: as `brain_tissue`.
        spacing_mm: voxel size along the same axes.
    """
    _, features = _head(axial, spacing_mm)
    if features is None or features.kind == "stripped":
        return foreground(axial)
    return brain_tissue(axial, spacing_mm)


def _head(
    axial: NDArray[np.float32], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.bool_], Features | None]:
    """Head or body above the noise of air, and its features if there are any."""
    inside = foreground(axial)
    if inside.any():
        inside = foreground(axial * (AIR / max(AIR, NOISE * float(np.percentile(axial[inside], 90)))))
    return inside, measure(np.where(inside, axial, np.float32(0)), spacing_mm)


def _without_face(tissue: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(depth_mm(tissue, spacing_mm) > BRIDGE_MM)
    if not count:
        return tissue
    core = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    brain = tissue & (_distance_mm(core, spacing_mm) <= BRIDGE_MM + spacing_mm[1])
    widest = int(brain.sum(axis=(1, 2)).argmax())
    for order in (range(widest - 1, -1, -1), range(widest + 1, len(brain))):
        before = brain[widest]
        for place in order:
            brain[place] &= _distance_mm(before[None], spacing_mm)[0] <= STEP_MM
            before = brain[place]
    return brain


def depth_mm(region: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Distance to a region's border within the slice, (slices, right, anterior); the image's border counts as one."""
    return np.stack([
        ndimage.distance_transform_edt(np.pad(one, 1), sampling=spacing_mm[1:])[1:-1, 1:-1] for one in region
    ])  # fmt: skip


def _distance_mm(region: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Distance to the region within the slice; infinite in slices without any."""
    return np.stack([
        ndimage.distance_transform_edt(~one, sampling=spacing_mm[1:]) if one.any() else np.full(one.shape, np.inf)
        for one in region
    ])  # fmt: skip
