"""A scan: stored voxels, the affine that places them, the header they came with, and where they came from."""

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray

from pipeline.errors import ScanError

Voxel = TypeVar("Voxel", bound=np.generic)

# A voxel smaller than 10 µm or larger than 100 mm is no clinical scan but a broken header.
SPACING_LIMITS_MM = (0.01, 100.0)
# Share of the smallest voxel side. A spacing rounded to four decimals moves the far corner of a 512×512 slice by two
# hundredths of a voxel, which is harmless, and no mask is drawn to a twentieth of a voxel.
GRID_TOLERANCE = 0.05
# Lesion masks have up to four labels, and some count the lesions.
MOST_LABELS = 255
LABEL_SAMPLE = 100_000


@dataclass(frozen=True)
class DicomSlice:
    """Where one slice of a series lies.

    Args:
        file: the DICOM file.
        frame: place of the slice in a multi-frame file, from 0; None in a file of one frame.
    """

    file: Path
    frame: int | None = None


@dataclass(frozen=True)
class DicomSeries:
    """One DICOM series whose slices make up a volume.

    Args:
        slices: in order of position; `slices[k]` is `Scan.stored[:, :, k]`.
        uid: Series Instance UID.
        modality: for example MR or CT.
        number: Series Number, None if the series has none.
        description: Series Description, printable ASCII, at most 40 characters.
    """

    slices: tuple[DicomSlice, ...]
    uid: str
    modality: str
    number: int | None
    description: str = ""


@dataclass(frozen=True)
class Scan:
    """A volume with its geometry; validated once, here, so that no room further in needs to check again.

    Args:
        stored: voxels as they lie in the file, shape (X, Y, Z), in the file's data type.
        slope: intensity per stored unit; an intensity is `slope * stored + intercept`.
        intercept: intensity of a stored zero.
        header: the source's NIfTI header; outputs are written from it, so that grid, codes and units stay.
        origin: the file it was read from, as named in messages and sidecars.
        dicom: the series it was read from, where it came as DICOM.
        padding: voxels that hold nothing and would pass for tissue, shape (X, Y, Z); their intensity is that of air.
        notes: what was assumed when it was read, for the user.

    Raises:
        ScanError: if the voxels are not a finite 3-D volume or the affine places them nowhere.
    """

    stored: NDArray[np.generic]
    slope: float
    intercept: float
    header: nib.Nifti1Header
    origin: Path
    dicom: DicomSeries | None = None
    padding: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_affine(self.affine, self.origin)
        if self.stored.ndim != 3 or 0 in self.stored.shape:
            raise ScanError(
                f"{self.origin}: found an array of shape {self.stored.shape}, expected a volume with three axes; "
                "give one volume"
            )
        # Of a value that is repeated without memory, as `read_grid` gives it, one is looked at.
        looked_at = self.stored if any(self.stored.strides) else self.stored[:1, :1, :1]
        low, high = float(looked_at.min()), float(looked_at.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            bad = int(self.stored.size - np.isfinite(self.stored).sum())
            raise ScanError(
                f"{self.origin}: found {bad} voxels that are NaN or infinite, expected finite intensities; "
                "repair them first (for example with fslmaths -nan)"
            )
        largest = max(abs(low), abs(high)) * abs(self.slope) + abs(self.intercept)
        if not largest <= float(np.finfo(np.float32).max):
            raise ScanError(
                f"{self.origin}: found intensities up to {largest:g}, expected ones that a 32-bit float can hold; "
                "repair the header's slope and intercept, or the conversion"
            )

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel indices to millimetres in RAS+ space, shape (4, 4)."""
        return np.asarray(self.header.get_best_affine(), dtype=float)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along the file's axes."""
        x, y, z = self.stored.shape
        return x, y, z

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along the file's axes, in millimetres."""
        x, y, z = (float(size) for size in voxel_sizes(self.affine))
        return x, y, z

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres, of sheared ones too."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    @cached_property
    def orientation(self) -> NDArray[np.float64]:
        """The flips and swaps that bring the file's axes closest to right, anterior, superior (nibabel's form)."""
        return np.asarray(nib.io_orientation(self.affine))

    def intensities(self) -> NDArray[np.float32]:
        """Intensities in the scan's units, float32, shape (X, Y, Z)."""
        voxels = self.stored.astype(np.float32)
        if (self.slope, self.intercept) != (1.0, 0.0):
            voxels *= np.float32(self.slope)
            voxels += np.float32(self.intercept)
        if self.padding is not None:
            voxels[self.padding] = voxels[~self.padding].min()
        return voxels

    def axial(self, voxels: NDArray[Voxel]) -> NDArray[Voxel]:
        """View an array on the scan's grid as axial slices, shape (slices, right, anterior), inferior first.

        It is a view: what is written into it lands in `voxels`. Oblique scans keep their own slice planes, the ones
        closest to axial.
        """
        canonical: NDArray[Voxel] = nib.apply_orientation(voxels, self.orientation)
        return np.moveaxis(canonical, 2, 0)

    @property
    def axial_spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along (slices, right, anterior) of `axial`, in millimetres."""
        sizes = {int(axis): size for (axis, _), size in zip(self.orientation, self.spacing_mm, strict=True)}
        return sizes[2], sizes[0], sizes[1]


def check_affine(affine: NDArray[np.float64], origin: Path) -> None:
    """Refuse an affine that does not place voxels in space.

    Raises:
        ScanError: if it is not finite, not invertible, or its voxels are outside `SPACING_LIMITS_MM`.
    """
    sizes = voxel_sizes(affine) if np.isfinite(affine).all() else np.zeros(3)
    low, high = SPACING_LIMITS_MM
    sheared_flat = not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-3 * np.prod(sizes)
    if sheared_flat or (sizes < low).any() or (sizes > high).any():
        found = " x ".join(f"{size:g}" for size in sizes)
        raise ScanError(
            f"{origin}: found an affine with voxels of {found} mm that places the volume nowhere, expected an "
            f"invertible affine with voxels of {low:g} to {high:g} mm; repair the header's qform or sform"
        )


def on_grid_of(scan: Scan, other: Scan) -> Scan:
    """A mask whose voxels are those of a scan's grid, counted from other ends or along other axes, as the scan's are.

    A mask that dcm2niix made of a DICOM series has its rows turned over; nothing is resampled.

    Returns:
        `other` with its axes turned and swapped if that puts it on the grid of `scan`; `other` itself if not.
    """
    turn = nib.orientations.ornt_transform(other.orientation, scan.orientation)
    header = other.header.copy()
    affine = other.affine @ nib.orientations.inv_ornt_aff(turn, other.shape)
    stored = nib.apply_orientation(other.stored, turn)
    if np.isnan(turn).any() or stored.shape != scan.shape or not is_same_place(affine, scan):
        return other
    header.set_data_shape(stored.shape)
    header.set_qform(affine, int(header["qform_code"]))
    header.set_sform(affine, int(header["sform_code"]) or 1)
    return replace(other, stored=stored, header=header)


def is_same_place(affine: NDArray[np.float64], scan: Scan) -> bool:
    """Whether an affine puts the scan's voxels where the scan's own does; see `check_same_grid`."""
    return apart_mm(affine, scan) <= _tolerance_mm(scan)


def apart_mm(affine: NDArray[np.float64], scan: Scan) -> float:
    """How far a corner of a grid of the scan's shape lies from the same corner of the scan's, at most."""
    corners = np.array(list(itertools.product(*((0, size - 1) for size in scan.shape))))
    apart = apply_affine(affine, corners) - apply_affine(scan.affine, corners)
    return float(np.linalg.norm(apart, axis=1).max())


def _tolerance_mm(scan: Scan) -> float:
    return GRID_TOLERANCE * min(scan.spacing_mm)


def check_same_grid(scan: Scan, other: Scan, kind: str) -> None:
    """Refuse a mask or truth that does not lie on a scan's grid.

    Two grids are one if their shapes are equal and no corner of one lies further from the same corner of the other than
    `GRID_TOLERANCE` of the smallest voxel side.

    Args:
        scan: the scan.
        other: what belongs to it.
        kind: what the message calls `other`, for example "mask".

    Raises:
        ScanError: if the grids differ.
    """
    remedy = f"resample it onto the grid of {scan.origin} or take the scan that it was made on"
    if other.shape != scan.shape:
        raise ScanError(f"{other.origin}: the {kind} has shape {other.shape}, expected {scan.shape}; {remedy}")
    if not is_same_place(other.affine, scan):
        apart = apart_mm(other.affine, scan)
        raise ScanError(f"{other.origin}: the {kind} lies up to {apart:.3g} mm away from the scan; {remedy}")


def check_labels(mask: Scan) -> None:
    """Refuse a scan that was given as a mask.

    Raises:
        ScanError: if it holds more different values than a mask has labels.
    """
    inside = mask.stored[mask.stored != 0]
    found = len(np.unique(inside[:: max(1, inside.size // LABEL_SAMPLE)]))
    if found > MOST_LABELS:
        raise ScanError(
            f"{mask.origin}: found {found} different values and more, expected a mask of few labels; give the mask, "
            "not the scan, and threshold a map of probabilities"
        )
