"""FreeSurfer's volumes (.mgz, .mgh) in and out with nibabel."""

import math
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from numpy.typing import NDArray

from pipeline.errors import ScanError, UsageError, first_line
from pipeline.files import require_regular, written_aside
from pipeline.scans.lps import RAS_FROM_LPS, scan_from_lps
from pipeline.scans.nifti import DEFLATE_LIMIT, unscaled
from pipeline.scans.pointer import check_fetched
from pipeline.scans.scan import Scan

SUFFIXES = (".mgz", ".mgh")
# Of the header, big-endian: version, four sizes, type of voxels, degrees of freedom, whether it lies in space.
START = struct.Struct(">7ih")
VERSION = 1
VOXEL_BYTES = {0: 1, 1: 4, 3: 4, 4: 2, 10: 2}


def is_mgh(path: Path) -> bool:
    """Whether a file's name ends like that of a FreeSurfer volume."""
    return path.name.lower().endswith(SUFFIXES)


def read_mgh(path: Path) -> Scan:
    """Read one volume; the scan gets a fresh NIfTI header, with the scanner coordinates as its affine.

    Args:
        path: `.mgz` or `.mgh`.

    Raises:
        UsageError: if the file is missing or is a folder.
        ScanError: if it cannot be read as one finite volume that is not constant and says how it lies in space.
    """
    path = Path(path)
    if not path.exists() or path.is_dir():
        found = "a folder" if path.is_dir() else "no such file"
        raise UsageError(f"{path}: found {found}, expected a FreeSurfer volume (.mgz or .mgh); check the path")
    check_fetched(path)
    try:
        require_regular(path)
        with ImageOpener(path) as file:
            version, *sizes, kind, _, placed = START.unpack(file.read(START.size))
    except Exception as error:  # from zlib.error to struct.error
        raise _damaged(path, first_line(error)) from error
    shape = tuple(sizes)
    if version != VERSION or kind not in VOXEL_BYTES:
        raise _damaged(path, f"version {version}, voxels of type {kind}")
    if min(shape) < 1 or shape[3] > 1:
        raise ScanError(f"{path}: found a volume of shape {shape}, expected a single one with three axes; split it")
    if not placed:
        raise ScanError(
            f"{path}: does not say how it lies in space, expected scanner coordinates (goodRASFlag); write it again "
            "with mri_convert from the volume that it was made of"
        )
    claimed, size = math.prod(shape) * VOXEL_BYTES[kind], path.stat().st_size
    if claimed > size * (DEFLATE_LIMIT if path.name.lower().endswith(".mgz") else 1):
        raise _damaged(path, f"{size} bytes where its header claims {claimed}")
    try:
        image = nib.load(path)
        stored = np.asarray(unscaled(image.dataobj, path)).reshape(shape[:3])
    except MemoryError as error:
        raise ScanError(f"{path}: found a volume of shape {shape[:3]}, expected one that fits into memory") from error
    except Exception as error:  # nibabel's readers raise whatever their parser stumbles over
        raise _damaged(path, first_line(error)) from error
    return scan_from_lps(stored.astype(stored.dtype.newbyteorder("=")), RAS_FROM_LPS @ image.affine, path)


def write_mgh(path: Path, stored: NDArray[np.generic], like: Scan) -> None:
    """Write voxels on the grid of a scan.

    Args:
        path: `.mgz` or `.mgh`; appears whole or not at all.
        stored: shape (X, Y, Z), uint8, int16, int32 or float32, which is all that the format knows.
        like: the scan whose affine is kept.
    """
    with written_aside(path) as aside:
        nib.save(nib.MGHImage(stored, like.affine), aside)


def _damaged(path: Path, found: str) -> ScanError:
    return ScanError(
        f"{path}: cannot be read as a FreeSurfer volume ({found}), expected .mgz or .mgh; it is truncated, damaged or "
        "of another kind, copy it again"
    )
