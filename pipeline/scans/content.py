"""What a file holds whose name does not say so; its first bytes tell."""

import zlib
from pathlib import Path

from pipeline.scans.dicom_frames import MAGIC_END, begins_as_dicom

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
AS_GZIP = 31  # zlib's window bits for gzip's own header
MOST_PACKED, MOST_UNPACKED = 4096, 348


def kind_of(file: Path) -> str | None:
    """The kind of scan that a file's first bytes begin, gzip taken off: "NIfTI", "NRRD", "DICOM", "zip" or None.

    Raises:
        OSError: if it cannot be read.
    """
    with file.open("rb") as opened:
        head = opened.read(MOST_PACKED)
    if head.startswith(GZIP):
        try:
            head = zlib.decompressobj(AS_GZIP).decompress(head, MOST_UNPACKED)
        except zlib.error:
            return None
    if head[344:348] in {b"n+1\0", b"ni1\0"} or head[4:8] in {b"n+2\0", b"ni2\0"}:
        return "NIfTI"
    if head.startswith(b"NRRD000"):
        return "NRRD"
    if begins_as_dicom(head[:MAGIC_END]):
        return "DICOM"
    return "zip" if head.startswith(ZIP) else None
