"""What a DICOM file says about its frames, read with pydicom and checked before any pixel is."""

import contextlib
import errno
import os
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.multival import MultiValue
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import STANDARD_VR

from pipeline.scans.scan import SPACING_LIMITS_MM, DicomSlice

# pydicom's warnings quote the values that it stumbles over, and a value may be a patient's name.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom(\..*)?")

MAGIC_END = 132
# A hash or part of a UUID is a number too.
NUMBER = re.compile(r"[0-9a-f]{8,}|\d+")
# What programs add to the name of a file that they pack, or have not copied whole.
PACKED = re.compile(r"\.(gz|bz2|xz|zst|z|lz4|br|7z|rar|part|partial|filepart|crdownload|download|tmp)$")
PACKED_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x1f\x9d", b"7z\xbc\xaf", b"Rar!")
# One series is of one person, one study and one space.
IDENTITY = ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID")
ATTRIBUTES = [
    *IDENTITY,
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType",
    "SyntheticData", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ModalityLUTSequence", "RescaleSlope",
    "RescaleIntercept", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "EchoNumbers", "EchoTime",
    "TemporalPositionIdentifier", "DiffusionBValue", "AcquisitionNumber", "InversionTime", "TriggerTime",
    "ComplexImageComponent", "AcquisitionTime", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
# What tells the volumes of one series apart, where slices share a position: in a single-frame file…
PARTS = ("EchoNumbers", "EchoTime", "TemporalPositionIdentifier", "DiffusionBValue", "InversionTime", "ImageType",
    "ComplexImageComponent", "AcquisitionNumber", "TriggerTime", "AcquisitionTime")  # fmt: skip
# … and in the functional groups of a multi-frame file.
GROUPED_PARTS = (
    ("FrameContentSequence", "StackID"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRImageFrameTypeSequence", "FrameType"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent"),
    ("CTImageFrameTypeSequence", "FrameType"),
)
GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
# Of a file that does not say which it is.
UNSTATED = "?"
# Images that hold no intensities.
NOT_SCANS = ("SEG", "RTDOSE")
PIXEL_DATA = 0x7FE00010
UNDEFINED_LENGTH = 0xFFFFFFFF
# Deflate's limit serves as a generous one for JPEG; empty slices, which compress better, pass by the allowance.
COMPRESSION_LIMIT = 1032
COMPRESSION_ALLOWANCE = 64 << 20
# NIfTI-1, which results are written as, counts voxels along an axis in 16 bits.
LONGEST_SIDE = 32767
ANGLE_TOLERANCE = 1e-3
LONGEST_TEXT = 40
# An attribute longer than this is looked for in the file when it is needed.
MOST_HEADER = 1 << 20
# Read at once, of a file that lacks its preamble.
MOST_UNCHECKED = 1 << 30


@dataclass(frozen=True)
class Frame:
    """One slice as its file describes it.

    Args:
        place: where it lies.
        uid: Series Instance UID.
        instance: SOP Instance UID and frame.
        modality: for example MR; "?" if the file does not say.
        number: Series Number, if any.
        description: Series Description, printable ASCII, at most 40 characters.
        original: whether Image Type calls it original and not derived.
        rows: number of rows.
        columns: number of columns.
        dtype: of the stored values.
        slope: intensity per stored unit.
        intercept: intensity of a stored zero.
        position_mm: of the first pixel's centre in LPS+, shape (3,).
        axes: unit vectors along which columns and rows count up and the normal of the two, shape (3, 3), by row.
        spacing_mm: distance of neighbouring columns and of neighbouring rows.
        parts: attributes that may tell apart the volumes of a series.
        identity: the values of `IDENTITY`; a patient's, so for comparing only.
        fault: why it cannot be used, if it cannot.
        is_scan: whether it is meant as a slice of a volume; a screenshot is not.
        sop_class: SOP Class UID.
        is_placed: whether its file says where it lies.
        padding: the least and the largest stored value that stand for no pixel at all, if any do.
    """

    place: DicomSlice
    uid: str = ""
    instance: str = ""
    modality: str = UNSTATED
    number: int | None = None
    description: str = ""
    original: bool = True
    rows: int = 0
    columns: int = 0
    dtype: np.dtype[Any] = np.dtype(np.int16)
    slope: float = 1.0
    intercept: float = 0.0
    position_mm: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    axes: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    spacing_mm: tuple[float, float] = (1.0, 1.0)
    parts: tuple[str, ...] = ()
    identity: tuple[str, ...] = field(default=(), repr=False)
    fault: str | None = None
    is_scan: bool = True
    sop_class: str = ""
    is_placed: bool = False
    padding: tuple[int, int] | None = None


class _FaultError(Exception):
    """Why a file's frames cannot be used; `is_scan` as in `Frame`."""

    def __init__(self, reason: str, is_scan: bool = True) -> None:
        super().__init__(reason)
        self.is_scan = is_scan


def has_magic(head: bytes) -> bool:
    """Whether these first `MAGIC_END` bytes begin a DICOM file.

    >>> has_magic(bytes(128) + b"DICM")
    True
    """
    return head[128:MAGIC_END] == b"DICM"


def name_pattern(name: str) -> str:
    """What the names of a series' files have in common: numbers do not count, nor what a packed or half file adds.

    >>> name_pattern("IM0023"), name_pattern("IM0024.gz"), name_pattern("1.2.840.10008.dcm.part")
    ('im#', 'im#', '#.#.#.#.dcm')
    """
    return NUMBER.sub("#", PACKED.sub("", name.lower()))


def begins_as_dicom(head: bytes) -> bool:
    r"""Whether these first `MAGIC_END` bytes begin a DICOM file, with its preamble or, as old programs do, without.

    >>> begins_as_dicom(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100")
    True
    """
    if has_magic(head) or head.startswith(b"DICM") or len(head) < 8:
        return has_magic(head) or head.startswith(b"DICM")
    for endian in "<>":
        group, element = struct.unpack(f"{endian}HH", head[:4])
        if (group == 2 and element <= 0x16) or (group == 8 and element <= 0x18):
            return head[4:6].decode("latin-1") in STANDARD_VR or struct.unpack(f"{endian}I", head[4:8])[0] < 256
    return False


def is_dicom(file: Path) -> bool:
    """Whether a file begins as DICOM files do, or is called one (and then is damaged)."""
    if file.suffix.lower() == ".dcm":
        return True
    with file.open("rb") as opened:
        return begins_as_dicom(opened.read(MAGIC_END))


def open_dicom(file: Path) -> BinaryIO:
    """A file as pydicom reads it; one that lacks the preamble before "DICM" gets it.

    Raises:
        OSError: if it cannot be opened; for a pipe, which is not, `FileNotFoundError`.
    """
    if not file.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(file))
    opened = file.open("rb")
    if opened.read(4) == b"DICM":
        with opened:
            return BytesIO(bytes(128) + b"DICM" + opened.read(MOST_UNCHECKED))
    opened.seek(0)
    return opened


def frames_of(file: Path) -> list[Frame]:
    """Read the attributes of a file's frames, never its pixels.

    Args:
        file: a DICOM file.

    Returns:
        Its frames; one frame with a fault where the file cannot be used, without a `uid` where it cannot even be told
        which series it belongs to; none if it is no image of intensities (a report, a segmentation, a disc's index).
    """
    name = file.name
    broken = Frame(
        DicomSlice(file), fault=f"found the damaged file {name}, expected readable DICOM; copy it again or remove it"
    )
    if name.upper() == "DICOMDIR":  # the index of a disc
        return []
    try:
        with open_dicom(file) as opened:
            fault = _packing(name, opened)
            if fault:
                return [replace(broken, fault=fault)]
            attributes = pydicom.dcmread(
                opened, defer_size=MOST_HEADER, stop_before_pixels=True, force=True, specific_tags=list(ATTRIBUTES)
            )
            return _frames(file, attributes, opened)
    except PermissionError:
        return [replace(broken, fault=f"found {name} that may not be read, expected DICOM; mend its permissions")]
    except FileNotFoundError:
        fault = f"found the damaged file {name} (a broken link, or a pipe), expected readable DICOM; get the file first"
        return [replace(broken, fault=fault)]
    except Exception:  # damage shows as whatever pydicom stumbles over
        return [broken]


def _packing(name: str, opened: BinaryIO) -> str | None:
    """What is wrong with a file that has to be unpacked before it can be looked at; the file is rewound."""
    if opened.read(8).startswith(PACKED_MAGIC):
        return f"found the packed file {name}, expected plain DICOM; unpack it"
    # A deflated header cannot be looked at without unpacking everything that the file claims to hold.
    if _stated_syntax(opened) == DeflatedExplicitVRLittleEndian:
        return f"found the deflated file {name}, expected a plain one; convert it (dcmconv +te)"
    return None


def _stated_syntax(opened: BinaryIO) -> str:
    """The transfer syntax that a file's meta header states, "" if it has none; the file is rewound."""
    opened.seek(0)
    if not begins_as_dicom(opened.read(MAGIC_END)):
        raise InvalidDicomError
    opened.seek(0)
    read_preamble(opened, force=True)
    meta = read_dataset(opened, False, True, stop_when=lambda tag, *_: tag.group != 2)
    opened.seek(0)
    return str(meta.get("TransferSyntaxUID", ""))


def transfer_syntax(dataset: Dataset) -> UID:
    """How a file is encoded: as its meta header states, or as it was found to be read."""
    stated = dataset.file_meta.get("TransferSyntaxUID")
    if stated:
        return UID(stated)
    is_implicit, is_little = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian


def _frames(file: Path, attributes: Dataset, opened: BinaryIO) -> list[Frame]:
    pixels = _pixel_data(opened, attributes)
    modality = str(attributes.get("Modality") or UNSTATED)
    sop_class = UID(attributes.get("SOPClassUID") or attributes.file_meta.MediaStorageSOPClassUID)
    is_image = pixels is not None or "Rows" in attributes or sop_class.name.endswith("Image Storage")
    if not is_image:
        return []
    image_type = [str(value) for value in attributes.get("ImageType") or ()]
    whole = Frame(
        place=DicomSlice(file),
        uid=str(attributes.get("SeriesInstanceUID") or ""),
        instance=str(attributes.get("SOPInstanceUID") or ""),
        modality=_printable(modality),
        number=None if attributes.get("SeriesNumber") is None else int(attributes.SeriesNumber),
        description=_printable(str(attributes.get("SeriesDescription") or "")),
        original="DERIVED" not in image_type,
        identity=tuple(str(attributes.get(keyword) or "") for keyword in IDENTITY),
        rows=int(attributes.get("Rows") or 0),
        columns=int(attributes.get("Columns") or 0),
        sop_class=str(sop_class),
    )
    try:
        _check_kind(file.name, attributes, image_type, pixels)
        return _checked(whole, attributes, pixels)
    except _FaultError as fault:
        faulty = replace(whole, fault=str(fault), is_scan=fault.is_scan)
        with contextlib.suppress(_FaultError):
            faulty = _in_space(faulty, attributes.get)
        return [faulty]


def _without_pixels(name: str) -> _FaultError:
    return _FaultError(f"found no pixels in {name}, expected an image; the file is truncated, copy it again")


def _check_kind(name: str, attributes: Dataset, image_type: list[str], pixels: tuple[int, bool] | None) -> None:
    if not attributes.get("SeriesInstanceUID"):
        if pixels is None:
            raise _without_pixels(name)
        raise _FaultError(f"found {name} without a Series Instance UID, expected one; export the series again")
    if attributes.get("SyntheticData") == "YES":
        raise _FaultError("found synthetic images (Synthetic Data is YES), expected a scan; give the original", False)
    if attributes.get("Modality") in NOT_SCANS:
        raise _FaultError(f"found no intensities ({attributes.Modality}), expected a scan; give the scan", False)
    if "MOSAIC" in image_type:
        raise _FaultError("found mosaics of slices, expected one slice an image; convert them with dcm2niix", False)
    photometric = _printable(str(attributes.get("PhotometricInterpretation") or "MONOCHROME2"))
    if attributes.get("SamplesPerPixel", 1) != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise _FaultError(f"found colour images ({photometric}), expected grey values; give the scan", False)
    if photometric == "MONOCHROME1":
        raise _FaultError(
            "found MONOCHROME1 images (higher values are darker), expected MONOCHROME2; export them as MONOCHROME2"
        )
    if attributes.get("ModalityLUTSequence"):
        raise _FaultError(
            "found a look-up table of intensities, expected a rescale slope and intercept; export the series without it"
        )


def _checked(whole: Frame, attributes: Dataset, pixels: tuple[int, bool] | None) -> list[Frame]:
    name = whole.place.file.name
    if pixels is None:
        raise _without_pixels(name)
    dtype = _stored_type(attributes)
    count = int(attributes.get("NumberOfFrames") or 1)
    if not (0 < whole.rows <= LONGEST_SIDE and 0 < whole.columns <= LONGEST_SIDE and count > 0):
        raise _FaultError(
            f"found {whole.columns} x {whole.rows} pixels and {count} frames in {name}, expected at most "
            f"{LONGEST_SIDE} a side; the file is damaged, copy it again"
        )
    held, compressed = pixels
    if compressed and not transfer_syntax(attributes).is_encapsulated:
        raise _FaultError(
            f"found compressed pixels in {name} and no transfer syntax that says how, expected one; export it again"
        )
    claimed = whole.rows * whole.columns * count * dtype.itemsize
    if claimed > (held * COMPRESSION_LIMIT + COMPRESSION_ALLOWANCE if compressed else held):
        raise _FaultError(
            f"found {held} bytes of pixels in {name}, expected the {claimed} that its header claims; the file is "
            "truncated or damaged, copy it again"
        )
    whole = replace(whole, dtype=dtype, padding=_padding(attributes))
    per_frame = attributes.get("PerFrameFunctionalGroupsSequence")
    if per_frame is None:
        if count > 1:
            raise _FaultError("found many frames without a position each, expected slices of a volume", False)
        return [_placed(whole, attributes.get, tuple(str(attributes.get(keyword)) for keyword in PARTS))]
    if len(per_frame) != count:
        raise _FaultError(
            f"found positions of {len(per_frame)} frames in {name}, expected {count}; export the series again"
        )
    shared = (attributes.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    frames = []
    for k, group in enumerate(per_frame):
        look_up = Groups((group, shared))
        frame = replace(whole, place=DicomSlice(whole.place.file, k), instance=f"{whole.instance} {k}")
        parts = tuple(str(look_up.value(*each)) for each in GROUPED_PARTS)
        frames.append(_placed(frame, look_up.get, parts))
    return frames


class Groups:
    """The functional groups that hold for one frame: its own, then those that all frames share."""

    def __init__(self, groups: tuple[Dataset, ...]) -> None:
        self.groups = groups

    def value(self, sequence: str, keyword: str) -> Any:
        """The value of an attribute in the first item of a sequence; None if no group has it."""
        for group in self.groups:
            items = group.get(sequence)
            if items and keyword in items[0]:
                return items[0][keyword].value
        return None

    def get(self, keyword: str) -> Any:
        """The value of an attribute of `GROUPS`; None if no group has it."""
        return self.value(GROUPS[keyword], keyword)


def _stored_type(attributes: Dataset) -> np.dtype[Any]:
    allocated, stored = int(attributes.get("BitsAllocated") or 0), int(attributes.get("BitsStored") or 0)
    high, signed = attributes.get("HighBit"), int(attributes.get("PixelRepresentation") or 0)
    if allocated not in {8, 16, 32} or not 1 <= stored <= allocated or high not in {None, stored - 1}:
        raise _FaultError(
            f"found pixels of {stored} bits up to bit {high} in {allocated}, expected up to bit {stored - 1} in 8, 16 "
            "or 32; export the series again"
        )
    return np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")


def _placed(frame: Frame, get: Callable[[str], Any], parts: tuple[str, ...]) -> Frame:
    frame = _in_space(frame, get)
    spacing = _numbers(get("PixelSpacing"), "PixelSpacing", 2)
    low, high = SPACING_LIMITS_MM
    if not ((spacing >= low) & (spacing <= high)).all():
        raise _FaultError(
            f"found a PixelSpacing of {spacing[0]:g} and {spacing[1]:g} in {frame.place.file.name}, expected {low:g} "
            f"to {high:g} mm; export the series again"
        )
    rescale = [get("RescaleSlope"), get("RescaleIntercept")]
    slope, intercept = (
        default if value is None else float(value) for value, default in zip(rescale, (1.0, 0.0), strict=True)
    )
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise _FaultError(f"found a rescale slope of {slope:g} and an intercept of {intercept:g}, expected intensities")
    # Pixel Spacing names the distance of rows first.
    spacing_mm = (float(spacing[1]), float(spacing[0]))
    return replace(frame, slope=slope, intercept=intercept, spacing_mm=spacing_mm, parts=parts)


def _in_space(frame: Frame, get: Callable[[str], Any]) -> Frame:
    """The frame with its position and axes."""
    position, orientation = (
        _numbers(get(keyword), keyword, count)
        for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6))
    )
    row, column = orientation[:3], orientation[3:]
    if abs(np.linalg.norm([row, column], axis=1) - 1).max() > ANGLE_TOLERANCE or abs(row @ column) > ANGLE_TOLERANCE:
        raise _FaultError(
            f"found an Image Orientation in {frame.place.file.name} that is no pair of perpendicular unit vectors, "
            "expected one; export the series again"
        )
    row = row / np.linalg.norm(row)
    column = column - row * (row @ column)
    column = column / np.linalg.norm(column)
    return replace(frame, position_mm=position, axes=np.array([row, column, np.cross(row, column)]), is_placed=True)


def _padding(attributes: Dataset) -> tuple[int, int] | None:
    """Pixel Padding Value, to Pixel Padding Range Limit if there is one; an unsigned file may state it as signed."""
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = attributes.get(keyword)
        if value is None or isinstance(value, MultiValue):
            continue
        number = int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
        signed, bits = bool(attributes.get("PixelRepresentation")), int(attributes.get("BitsAllocated") or 16)
        wrapped = number % 2**bits
        ends.append(wrapped - 2**bits if signed and wrapped >= 2 ** (bits - 1) else wrapped)
    return (min(ends), max(ends)) if ends else None


def _numbers(value: Any, keyword: str, count: int) -> NDArray[np.float64]:
    numbers = np.array([] if value is None else value, dtype=float).ravel()
    if numbers.size != count or not np.isfinite(numbers).all():
        raise _FaultError(
            f"found no {keyword} of {count} numbers, expected where each slice lies; export the original series", False
        )
    return numbers


def _pixel_data(opened: BinaryIO, attributes: Dataset) -> tuple[int, bool] | None:
    """Bytes that the file holds of its pixels, and whether they are compressed; None if it has no pixels."""
    syntax = transfer_syntax(attributes)
    endian = "<" if syntax.is_little_endian else ">"
    head = opened.read(12)
    if len(head) < 12:
        return None
    group, element, vr = struct.unpack(f"{endian}HH2s", head[:6])
    if group << 16 | element != PIXEL_DATA:
        return None
    explicit = vr in {b"OB", b"OW"}
    length = struct.unpack(f"{endian}I", head[8:] if explicit else head[4:8])[0]
    start = opened.tell() - (0 if explicit else 4)
    left = opened.seek(0, os.SEEK_END) - start
    if syntax.is_encapsulated or length == UNDEFINED_LENGTH:
        return left, True
    # A claim beyond the file's end is as good as what is there.
    return min(length, left), False


def _printable(text: str) -> str:
    return "".join(letter for letter in text if " " <= letter <= "~")[:LONGEST_TEXT]
