"""Axial, coronal and sagittal planes of a scan, in radiological orientation."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, obliquity
from numpy.typing import NDArray

from pipeline.scans import Scan
from pipeline.scans.scan import Voxel

RIGHT, ANTERIOR, SUPERIOR = 0, 1, 2
# The ends of each axis, the far one first: pictures start with it, at the left or at the top.
ENDS = (("R", "L"), ("A", "P"), ("S", "I"))


@dataclass(frozen=True)
class Plane:
    """One of the planes closest to the body's.

    Pictures follow the radiological convention: the person's right, or in sagittal ones the face, at the left, and
    front or head up.

    Args:
        name: `axial`, `coronal` or `sagittal`.
        through: the body axis that its slices are stacked along.
        down: the body axis along the picture's rows.
        across: the body axis along the picture's columns.
    """

    name: str
    through: int
    down: int
    across: int

    def slices(self, scan: Scan, voxels: NDArray[Voxel]) -> NDArray[Voxel]:
        """View an array on the scan's grid as pictures, shape (slices, rows, columns).

        Slices run from inferior, posterior or left.
        """
        canonical = nib.apply_orientation(voxels, scan.orientation)
        return np.transpose(canonical, (self.through, self.down, self.across))[:, ::-1, ::-1]

    def spacing_mm(self, scan: Scan) -> tuple[float, float, float]:
        """Voxel size along (slices, rows, columns), in millimetres."""
        superior, right, anterior = scan.axial_spacing_mm
        sizes = right, anterior, superior
        return sizes[self.through], sizes[self.down], sizes[self.across]

    @property
    def ends(self) -> tuple[str, str, str, str]:
        """The letters at the picture's left, right, top and bottom."""
        return (*ENDS[self.across], *ENDS[self.down])


AXIAL = Plane("axial", SUPERIOR, ANTERIOR, RIGHT)
CORONAL = Plane("coronal", ANTERIOR, SUPERIOR, RIGHT)
SAGITTAL = Plane("sagittal", RIGHT, SUPERIOR, ANTERIOR)


def body_to_mm(scan: Scan, right: int, anterior: int, superior: int) -> list[float]:
    """Millimetres in RAS+ space of a voxel that is counted along the body's axes from left, posterior and inferior."""
    to_file = nib.orientations.inv_ornt_aff(scan.orientation, scan.shape)
    return [round(float(mm), 3) for mm in apply_affine(scan.affine @ to_file, (right, anterior, superior))]


def orientation_known(scan: Scan) -> bool:
    """Whether the header says which side is which; without any code, left and right are a guess."""
    return bool(scan.header["qform_code"] or scan.header["sform_code"])


def obliquity_degrees(scan: Scan) -> float:
    """The largest angle between an axis of the scan and the body axis that it is closest to."""
    return float(np.degrees(obliquity(scan.affine).max()))


def outline(mask: NDArray[np.bool_]) -> str:
    """The border of a mask along the edges of its pixels, as the data of an SVG path in pixels.

    Args:
        mask: shape (rows, columns).

    >>> outline(np.array([[False, True]]))
    'M1 0h1M1 1h1M1 0v1M2 0v1'
    """
    rows, columns = np.pad(mask, ((1, 1), (0, 0))), np.pad(mask, ((0, 0), (1, 1))).T
    horizontal = [f"M{start} {row}h{end - start}" for row, start, end in _runs(rows[1:] != rows[:-1])]
    vertical = [f"M{column} {start}v{end - start}" for column, start, end in _runs(columns[1:] != columns[:-1])]
    return "".join(horizontal + vertical)


def _runs(edges: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Line, start and end of each run of True along the lines."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    lines, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return list(zip(lines.tolist(), starts.tolist(), ends.tolist(), strict=True))
