"""NRRD, MetaImage, MINC, GIPL and NIfTI pairs in, through SimpleITK."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.errors import ScanError
from pipeline.files import scratch_folder
from pipeline.scans.itk_reader import read_with_itk
from pipeline.scans.lps import scan_from_lps
from pipeline.scans.nifti import DEFLATE_LIMIT
from pipeline.scans.scan import Scan

READERS = {
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
    ".mnc": "MINCImageIO",
    ".gipl": "GiplImageIO",
    ".gipl.gz": "GiplImageIO",
    ".hdr": "NiftiImageIO",
}
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
MOST_BYTES = 8 << 30
NO_SPACE = "the header does not say in which space its directions are; they were taken as left, posterior, superior"
# Headers in text end long before this.
MOST_HEADER = 1 << 16
NIFTI_MAGIC = slice(344, 348)


def suffix(path: Path) -> str:
    """The suffix in `READERS` that a file's name ends with, "" if none.

    >>> suffix(Path("a.b.NRRD"))
    '.nrrd'
    """
    name = path.name.lower()
    return next((each for each in sorted(READERS, key=len, reverse=True) if name.endswith(each)), "")


def read_image(path: Path) -> Scan:
    """Read one 3-D volume of real numbers; the scan gets a fresh NIfTI header.

    Args:
        path: a file whose name ends as `READERS` lists.

    Raises:
        ScanError: if it cannot be read as one real-valued, finite volume, or its header claims more than it holds.
    """
    files = files_of(path)
    size = sum(file.stat().st_size for file in files)
    most_bytes = min(MOST_BYTES, size * (DEFLATE_LIMIT if _may_be_compressed(path) else 1))
    with scratch_folder() as folder:
        image = read_with_itk([path], READERS[suffix(path)], most_bytes, folder)[0]
        if image.problem:
            raise ScanError(
                f"{path}: found a file that {image.problem}, expected one volume of real numbers that fits its {size} "
                "bytes; it is damaged or of another kind, copy it again or convert it"
            )
        shape = image.voxels.shape[::-1]
        if len(shape) < 3 or any(length > 1 for length in shape[3:]):
            raise ScanError(
                f"{path}: found an image of shape {shape}, expected a volume with three axes; give one volume"
            )
        try:
            stored = np.array(image.voxels.T.reshape(shape[:3], order="F"), order="F")
        except MemoryError as error:
            raise ScanError(
                f"{path}: found a volume of shape {shape}, expected one that fits into memory; crop it or free memory"
            ) from error
    scan = scan_from_lps(stored, image.affine, path)
    if READERS[suffix(path)] == "NrrdImageIO" and not re.search(rb"^space:", _header_text(path), re.MULTILINE):
        return replace(scan, notes=(NO_SPACE,))
    return scan


def files_of(path: Path) -> list[Path]:
    """The file and, where its header lies apart, the one that holds its voxels.

    Raises:
        ScanError: if the voxels lie in no file beside the header, or the file says nothing about its orientation.
    """
    if suffix(path) == ".hdr":
        if _head(path)[NIFTI_MAGIC] not in {b"ni1\0", b"ni2\0"}:
            raise ScanError(
                f"{path}: found an Analyze header, which does not say which side is left, expected NIfTI; convert it "
                "with a program that knows how it was made"
            )
        beside = [path.with_suffix(each) for each in (".img", ".img.gz")]
        return [path, _existing(path, next((file for file in beside if file.is_file()), beside[0]))]
    entry = {
        "NrrdImageIO": rb"^data ?file:[ \t]*(.*?)\r?$",
        "MetaImageIO": rb"^ElementDataFile[ \t]*=[ \t]*(.*?)[ \t]*\r?$",
    }.get(READERS[suffix(path)])
    found = re.search(entry, _header_text(path), re.MULTILINE) if entry else None
    if found is None or found[1] in {b"LOCAL", b"Local", b"local"}:
        return [path]
    name = found[1].decode("utf-8", errors="replace")
    if not name or Path(name).name != name or name.startswith("LIST") or "%" in name or " " in name:
        raise ScanError(
            f"{path}: found voxels in other files than one beside it, expected one file; save it as a single .nrrd or "
            ".mha"
        )
    return [path, _existing(path, path.with_name(name))]


def _existing(header: Path, voxels: Path) -> Path:
    if not voxels.is_file():
        raise ScanError(f"{header}: found no {voxels.name} beside it, expected the file with its voxels; copy it too")
    return voxels


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_HEADER)


def _header_text(path: Path) -> bytes:
    """A NRRD header ends at the first empty line; a MetaImage's last entry is the one about its data."""
    return re.split(rb"\r?\n\r?\n", _head(path), maxsplit=1)[0]


def _may_be_compressed(path: Path) -> bool:
    text = _header_text(path)
    if READERS[suffix(path)] == "NrrdImageIO":
        return re.search(rb"^encoding:[ \t]*raw", text, re.MULTILINE) is None
    if READERS[suffix(path)] == "MetaImageIO":
        return re.search(rb"^CompressedData[ \t]*=[ \t]*True", text, re.MULTILINE | re.IGNORECASE) is not None
    return True
