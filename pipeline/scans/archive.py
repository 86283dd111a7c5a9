"""A zip of DICOM files, unpacked so that nothing in it can harm: names do not matter, sizes are counted."""

import errno
import lzma
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from pipeline.errors import OutputError, ScanError
from pipeline.scans.dicom_frames import MAGIC_END, begins_as_dicom, name_pattern

# A scanner's whole study holds some ten thousand slices and a few gigabytes.
MOST_MEMBERS = 100_000
MOST_BYTES = 8 << 30
# Slices compress to a half or a third, empty ones better; a bomb unpacks to a thousandfold and more.
MOST_RATIO = 100
RATIO_ALLOWANCE = 64 << 20
BLOCK = 1 << 20
ENCRYPTED = 0x1
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
DEFLATE64 = 9
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError, OverflowError)


def is_zip(path: Path) -> bool:
    """Whether a file is called a zip or begins as one."""
    if path.suffix.lower() == ".zip":
        return True
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack the DICOM files of a zip, and damaged ones that are called as they are; other members stay packed.

    Args:
        archive: the zip.
        folder: an empty folder; the files in it are named by their place in the archive, whatever it calls them.

    Returns:
        The files, in the archive's order.

    Raises:
        ScanError: if the archive is damaged, encrypted, holds links or paths that lead out of it, or unpacks to more
            than `MOST_MEMBERS`, `MOST_BYTES`, or `MOST_RATIO` times its size.
        OutputError: if there is no room to unpack it.
    """
    most = left = min(MOST_BYTES, MOST_RATIO * archive.stat().st_size + RATIO_ALLOWANCE)
    files = []
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(archive, opened)
            kinds = {_kind(member) for member in members if _is_dicom(opened, member)}
            for number, member in enumerate(members, start=1):
                if _kind(member) not in kinds:
                    continue
                files.append(folder / f"{number:06d}.dcm")
                left -= _unpack_member(opened, member, files[-1], left)
                if left < 0:
                    raise ScanError(
                        f"{archive}: found more than {most >> 20} MB in a zip of {archive.stat().st_size >> 10} kB, "
                        "expected scans that compress by less; it may be made to fill the disk, unpack it yourself if "
                        "you trust it"
                    )
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise OutputError(f"{folder}: has no room to unpack {archive.name}; free some or set TMPDIR") from error
        raise ScanError(f"{archive}: cannot be read ({error.strerror or 'damaged'}); copy it again") from error
    except DAMAGE as error:
        raise _damaged(archive) from error
    return files


def _damaged(archive: Path) -> ScanError:
    return ScanError(f"{archive}: found a damaged zip, expected one that unpacks; copy it again")


def member_names(archive: Path) -> list[str]:
    """The names of a zip's files without their folders.

    Raises:
        ScanError: as `unpack` does.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return [_name(member) for member in _members(archive, opened)]
    except (OSError, *DAMAGE) as error:
        raise _damaged(archive) from error


def _members(archive: Path, opened: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = opened.infolist()
    if len(members) > MOST_MEMBERS:
        raise ScanError(
            f"{archive}: found {len(members)} members, expected at most {MOST_MEMBERS}; unpack it and give the folder"
        )
    for member in members:
        _check_member(archive, member)
    # macOS adds a hidden "._name" for each file.
    return [member for member in members if not member.is_dir() and not _name(member).startswith(".")]


def _name(member: zipfile.ZipInfo) -> str:
    return PurePosixPath(member.filename).name


def _kind(member: zipfile.ZipInfo) -> tuple[str, str]:
    return str(PurePosixPath(member.filename).parent), name_pattern(_name(member))


def _check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or name.as_posix()[1:2] == ":":
        found = "a member whose path leads out of the archive"
    elif stat.S_ISLNK(member.external_attr >> 16):
        found = "a symbolic link"
    elif member.flag_bits & ENCRYPTED:
        found = "encrypted members"
    elif member.compress_type not in METHODS:
        kind = "Deflate64, as Windows packs large folders" if member.compress_type == DEFLATE64 else "another method"
        raise ScanError(
            f"{archive}: found members packed by method {member.compress_type} ({kind}), expected Deflate; unpack it "
            "yourself and give the folder"
        )
    else:
        return
    raise ScanError(f"{archive}: found {found}, expected plain files; unpack it yourself and give the folder")


def _is_dicom(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    if _name(member).upper() == "DICOMDIR":
        return False
    if _name(member).lower().endswith(".dcm"):
        return True
    with opened.open(member) as packed:
        return begins_as_dicom(packed.read(MAGIC_END))


def _unpack_member(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, limit: int) -> int:
    """Unpack a file, but no more than a block beyond the limit; tell how much."""
    size = 0
    with opened.open(member) as packed, target.open("wb") as file:
        while size <= limit and (block := packed.read(BLOCK)):
            size += file.write(block)
    return size
