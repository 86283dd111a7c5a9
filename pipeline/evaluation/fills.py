"""Fills of the field, as further controls where the truth is known: a method has to come closer to it than they do.

Each takes a volume and returns its slices with the lesion filled, (N, 1, H, W) in [0, 1], all else bit-identical. They
are shown the whole lesion of the slab, so that no fill continues a lesion of the next slice.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813 (its users know it so)
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from pipeline.errors import ScanError
from pipeline.evaluation.volumes import Volume
from pipeline.inference.preparation import rigid_pose, to_sitk
from pipeline.preprocessing.biharmonic import biharmonic_fill
from pipeline.preprocessing.box import wider
from pipeline.preprocessing.cohort_format import LEVELS
from pipeline.preprocessing.harmonic import harmonic_fill
from pipeline.scans import Scan

RING_MM = 5.0
# How far around a pixel Navier-Stokes and Telea look, in pixels: OpenCV's usual choice.
RADIUS_PIXELS = 3
# A mirror voxel is taken where it is made of tissue alone.
TISSUE = 0.99


@dataclass(frozen=True)
class _Head:
    """A slab as arrays of shape (slices, right, anterior): intensities, where to fill, and what is known."""

    image: NDArray[np.float32]
    hole: NDArray[np.bool_]
    tissue: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]


_Make = Callable[[_Head], NDArray[np.float32]]


def ring_mean(head: _Head) -> NDArray[np.float32]:
    """Each lesion filled with the mean of the tissue around it, no further than `RING_MM` away."""
    filled = head.image.copy()
    labels, count = ndimage.label(head.hole, structure=np.ones((3, 3, 3)))
    everywhere = head.image[head.tissue].mean() if head.tissue.any() else np.float32(0)
    for number, box in zip(range(1, count + 1), ndimage.find_objects(labels), strict=True):
        around = wider(box, RING_MM, head.spacing_mm)
        lesion = labels[around] == number
        near = ndimage.distance_transform_edt(~lesion, sampling=head.spacing_mm) <= RING_MM
        ring = near & head.tissue[around]
        filled[around][lesion] = head.image[around][ring].mean() if ring.any() else everywhere
    return filled


def harmonic_3d(head: _Head) -> NDArray[np.float32]:
    """Laplace's equation in three dimensions and millimetres, with the tissue around the lesion as boundary."""
    return harmonic_fill(head.image, head.hole, head.tissue, head.spacing_mm)


def biharmonic(head: _Head) -> NDArray[np.float32]:
    """The biharmonic equation in each slice, which continues slopes, too."""
    return biharmonic_fill(head.image, head.hole)


def open_cv(head: _Head, algorithm: str) -> NDArray[np.float32]:
    """Navier–Stokes (Bertalmio et al. 2001) or fast marching (Telea 2004) in each slice, as OpenCV has them."""
    import cv2

    flag = getattr(cv2, algorithm)

    def fill(image: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
        # In 16 bits: Telea's of floating-point images does not keep to their range.
        levels = np.rint(image * LEVELS).astype(np.uint16)
        filled = cv2.inpaint(levels, hole.astype(np.uint8), RADIUS_PIXELS, flag)
        return np.asarray(filled, np.float32) / np.float32(LEVELS)

    return _each_slice(head, fill)


def mirrored_3d(head: _Head) -> NDArray[np.float32]:
    """Each lesion voxel takes the value of the other hemisphere, found by registering the scan to its mirror image.

    Where that is lesion or air itself, or the scan and its mirror image cannot be registered, the fill is `ring_mean`.
    """
    filled = ring_mean(head)
    scan, mirror = (_scan(image, head.spacing_mm) for image in (head.image, head.image[:, ::-1]))
    try:
        pose, _, _ = rigid_pose(scan, mirror)
    except ScanError:
        return filled
    known = _scan(head.tissue[:, ::-1].astype(np.float32), head.spacing_mm)
    value, certainty = (
        sitk.GetArrayFromImage(
            sitk.Resample(to_sitk(other.stored, other.affine), to_sitk(scan.stored, scan.affine), pose, sitk.sitkLinear)
        ).transpose(0, 2, 1)
        for other in (mirror, known)
    )
    found = head.hole & (certainty > TISSUE)
    filled[found] = np.clip(value[found], 0, 1)
    return filled


def _scan(axial: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> Scan:
    """Axial slices as a scan whose world origin is its middle."""
    stored = np.ascontiguousarray(np.moveaxis(axial, 0, 2))
    affine = np.diag([spacing_mm[1], spacing_mm[2], spacing_mm[0], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.subtract(stored.shape, 1) / 2)
    header = nib.Nifti1Image(stored, affine).header
    return Scan(stored, 1.0, 0.0, header, Path("slab"))


def _each_slice(
    head: _Head, fill: Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    filled = head.image.copy()
    for place in np.flatnonzero(head.hole.any(axis=(1, 2))):
        hole = head.hole[place]
        if not hole.all():
            filled[place][hole] = fill(head.image[place], hole)[hole]
    return filled


def _fill(make: _Make, volume: Volume) -> Tensor:
    hole = volume.slab_lesion
    head = _Head(volume.slab_image, hole, volume.slab_foreground & ~hole, volume.voxel_mm)
    filled = torch.from_numpy(make(head)[volume.places, None])
    return torch.where(volume.lesion, filled, volume.image)


@dataclass(frozen=True)
class Fill:
    """A fill, and the package that it needs beyond those that the pipeline needs anyway.

    Attributes:
        make: from a volume to its slices with the lesion filled.
        module: what has to be importable.
        package: how it is installed.
    """

    make: Callable[[Volume], Tensor]
    module: str = "numpy"
    package: str = ""

    @property
    def available(self) -> bool:
        """Whether its package is installed."""
        return importlib.util.find_spec(self.module) is not None


FILLS: dict[str, Fill] = {
    "ring mean": Fill(partial(_fill, ring_mean)),
    "harmonic in 3-D": Fill(partial(_fill, harmonic_3d)),
    "biharmonic": Fill(partial(_fill, biharmonic)),
    "Navier-Stokes": Fill(partial(_fill, partial(open_cv, algorithm="INPAINT_NS")), "cv2", "opencv-python-headless"),
    "Telea": Fill(partial(_fill, partial(open_cv, algorithm="INPAINT_TELEA")), "cv2", "opencv-python-headless"),
    "registered mirror": Fill(partial(_fill, mirrored_3d)),
}
