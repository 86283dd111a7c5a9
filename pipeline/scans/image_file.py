"""NRRD, MetaImage, MINC, GIPL and NIfTI pairs in, through SimpleITK."""

import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.errors import ScanError
from pipeline.files import scratch_folder
from pipeline.scans.itk_reader import read_with_itk
from pipeline.scans.lps import RAS_FROM_LPS, scan_from_lps
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
NO_DIRECTIONS = "the header does not say where its axes point; they were taken as left, posterior, superior"
NO_CODES = "the header does not say how the scan lies in space; its axes were taken as NIfTI's default"
# What says how large voxels are, and where axes point, in headers of text.
SPACINGS = {"NrrdImageIO": rb"^(spacings|space directions):", "MetaImageIO": rb"^Element(Spacing|Size)[ \t]*="}
SPACES = {"NrrdImageIO": rb"^space:", "MetaImageIO": rb"^(TransformMatrix|Rotation|Orientation)[ \t]*="}
NRRD_UNITS = rb"^(?:space )?units:(.*)$"
MILLIMETRES = {b"mm", b"millimeter", b"millimeters", b"millimetre", b"millimetres", b"???", b""}
# Headers in text end long before this.
MOST_HEADER = 1 << 16
NIFTI_MAGIC = slice(344, 348)
# zlib's window bits for either header.
ZLIB_OR_GZIP = 47
BLOCK = 1 << 20


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
        image = read_with_itk([_named_in_utf8(path, files, folder)], READERS[suffix(path)], most_bytes, folder)[0]
        if image.problem:
            raise ScanError(
                f"{path}: found a file that {image.problem}, expected one volume of real numbers that fits its {size} "
                "bytes; it is damaged or of another kind, copy it again or convert it"
            )
        if _is_packed(path) and not _unpacks_to(files[-1], _voxels_begin(path, files), image.voxels.nbytes):
            raise ScanError(
                f"{path}: found packed voxels that are damaged or cut, as their checksum tells; copy the file again"
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
    lps, note = image.affine, _assumed(path)
    if suffix(path) == ".hdr":
        # ITK has a default of its own for headers whose codes say nothing.
        lps = RAS_FROM_LPS @ _nifti_header(path).get_best_affine()
    scan = scan_from_lps(stored, lps, path)
    return replace(scan, notes=(note,)) if note else scan


def _named_in_utf8(path: Path, files: Sequence[Path], folder: Path) -> Path:
    """The file itself, or a link of ours to one whose name or folder is no UTF-8, which ITK does not take."""
    try:
        os.fspath(path.absolute()).encode()
    except UnicodeEncodeError:
        named = folder / f"image{suffix(path)}"
        for file in files:  # the voxels' file is called as the header says
            (named if file == path else folder / file.name).symlink_to(file.absolute())
        return named
    return path


def _assumed(path: Path) -> str | None:
    """What has to be assumed of a header that does not say how its voxels lie.

    Raises:
        ScanError: if it does not say how large they are, or not in millimetres.
    """
    reader = READERS[suffix(path)]
    if reader == "GiplImageIO":
        return NO_DIRECTIONS
    if reader == "NiftiImageIO":
        header = _nifti_header(path)
        return NO_CODES if header["qform_code"] == 0 == header["sform_code"] else None
    if reader not in SPACES:
        return None
    text = _header_text(path)
    if not re.search(SPACINGS[reader], text, re.MULTILINE | re.IGNORECASE):
        raise ScanError(f"{path}: found a header without spacings, expected the size of the voxels; add them")
    found = re.search(NRRD_UNITS, text, re.MULTILINE | re.IGNORECASE) if reader == "NrrdImageIO" else None
    units = set(re.findall(rb'"([^"]*)"', found[1])) - MILLIMETRES if found else set()
    if units:
        named = ascii(b", ".join(sorted(units)).decode("latin-1"))
        raise ScanError(f"{path}: found lengths in {named}, expected millimetres; convert the header's lengths")
    if re.search(SPACES[reader], text, re.MULTILINE | re.IGNORECASE):
        return None
    return NO_SPACE if reader == "NrrdImageIO" else NO_DIRECTIONS


def _nifti_header(path: Path) -> nib.Nifti1Header:
    with path.open("rb") as file:
        return nib.nifti1.Nifti1PairHeader.from_fileobj(file, check=False)


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
        beside = [path.with_suffix(each) for each in (".img", ".img.gz", ".IMG", ".IMG.GZ")]
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


def _is_packed(path: Path) -> bool:
    """Whether voxels are packed as `_unpacks_to` looks at: ITK takes what it can unpack of them, whatever it is."""
    packed = {"NrrdImageIO": rb"^encoding:[ \t]*gz", "MetaImageIO": rb"^CompressedData[ \t]*=[ \t]*True"}
    entry = packed.get(READERS[suffix(path)])
    return entry is not None and re.search(entry, _header_text(path), re.MULTILINE | re.IGNORECASE) is not None


def _voxels_begin(path: Path, files: Sequence[Path]) -> int:
    """Where packed voxels begin in the last of an image's files: behind the header, or where they lie alone."""
    if len(files) > 1:
        return 0
    end = rb"\r?\n\r?\n" if READERS[suffix(path)] == "NrrdImageIO" else rb"^ElementDataFile[ \t]*=.*\n"
    found = re.search(end, _head(path), re.MULTILINE)
    return found.end() if found else 0


def _unpacks_to(file: Path, begin: int, size: int) -> bool:
    """Whether the rest of a file is a stream of zlib or gzip, of a right checksum, that holds as many bytes."""
    unpacking, unpacked = zlib.decompressobj(ZLIB_OR_GZIP), 0
    most = 2 * size + BLOCK  # a stream without end is none of an image
    with file.open("rb") as opened:
        opened.seek(begin)
        try:
            while not unpacking.eof and unpacked < most and (block := unpacking.unconsumed_tail or opened.read(BLOCK)):
                unpacked += len(unpacking.decompress(block, BLOCK))
        except zlib.error:
            return False
    return unpacking.eof and unpacked >= size


def _may_be_compressed(path: Path) -> bool:
    text = _header_text(path)
    if READERS[suffix(path)] == "NrrdImageIO":
        return re.search(rb"^encoding:[ \t]*raw", text, re.MULTILINE) is None
    if READERS[suffix(path)] == "MetaImageIO":
        return re.search(rb"^CompressedData[ \t]*=[ \t]*True", text, re.MULTILINE | re.IGNORECASE) is not None
    return True
