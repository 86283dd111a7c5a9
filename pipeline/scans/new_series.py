"""A new DICOM series in the study of a source: what all that is written as DICOM has in common, whatever it holds.

Patient, study and frame of reference are the source's; the series says that it is synthetic, what made it and of what.
Attributes follow DICOM PS3.3 (general image, general equipment, contributing equipment) and codes PS3.16.
"""

import contextlib
import hashlib
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, PersonName

from pipeline import __version__
from pipeline.errors import OutputError, ScanError
from pipeline.files import written_aside
from pipeline.identity import NAME
from pipeline.scans.dicom_frames import open_dicom
from pipeline.scans.scan import DicomSeries, Scan

LARGEST_INTEGER_STRING = 2**31 - 1
# Overlays and curves draw on the source's pixels; the others are its pixels and its signatures.
DROPPED_GROUPS = {*range(0x5000, 0x5100), *range(0x6000, 0x6100), 0x4FFE, 0x7FE0, 0xFFFA, 0xFFFC}
DROPPED = {
    # of the source's pixels
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "SmallestImagePixelValueInPlane",
    "LargestImagePixelValueInPlane",
    "IconImageSequence",
    "PixelDataProviderURL",
    # of the source as an instance; the first would give de-identified data the original's UIDs back
    "EncryptedAttributesSequence",
    "InstanceCreatorUID",
    "SOPInstanceStatus",
    "SOPAuthorizationDateTime",
    "SOPAuthorizationComment",
    "AuthorizationEquipmentCertificationNumber",
    "PrivateDataElementCharacteristicsSequence",
    "ConcatenationUID",
    "ConcatenationFrameOffsetNumber",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "SOPInstanceUIDOfConcatenationSource",
}
EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "StationName")
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
# What pydicom puts in the place of bytes that it cannot decode.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
OURS = re.compile(r"IM_\d{4,}\.dcm")


@dataclass(frozen=True)
class NewSeries:
    """What all instances of a new series share.

    Args:
        source_uid: Series Instance UID of the source.
        number: Series Number.
        description: Series Description.
        derivation: Derivation Description.
        facts: bundle, version and hashes.
        digest: of the voxels and of what is said about them.
        now: when it was made.
    """

    source_uid: str
    number: int
    description: str
    derivation: str
    facts: Mapping[str, Any]
    digest: str
    now: datetime

    @classmethod
    def beside(
        cls,
        source: DicomSeries,
        template: Dataset,
        voxels: NDArray[np.generic],
        description: str,
        what: str,
        known: Mapping[str, Any],
        offset: int,
    ) -> "NewSeries":
        """The series that holds `voxels`, in the study of `source`.

        Args:
            source: the series they were made of.
            template: attributes of one of its files.
            voxels: shape (X, Y, Z).
            description: Series Description, cut to 64 characters.
            what: what the voxels are, the first sentence of the Derivation Description.
            known: bundle, version and hashes.
            offset: of its number from the source's: behind the scanner's own series in every list, with the source's
                number still readable.
        """
        derivation = text(
            f"{what}. Made by {NAME} {__version__}, bundle {known.get('Bundle')} {known.get('BundleVersion')}, weights "
            f"SHA-256 {known.get('WeightsSha256')}, config SHA-256 {known.get('ConfigSha256')}. SYNTHETIC, for "
            "research, NOT FOR DIAGNOSIS.",
            1024,
        )
        digest = hashlib.sha256(f"{voxels.dtype.str} {voxels.shape} {description} {derivation}".encode())
        digest.update(np.ascontiguousarray(voxels).data)
        return cls(
            source_uid=source.uid,
            number=min((source.number or 0) + offset, LARGEST_INTEGER_STRING),
            description=text(description, 64),
            derivation=derivation,
            facts=known,
            digest=digest.hexdigest(),
            now=datetime.now(timezone.utc).astimezone(_zone(template)),
        )

    def new_uid(self, source: str) -> UID:
        """A UID for what was made of the series or instance with the UID `source`.

        A result that is made again, voxel for voxel, gets its UIDs again, so that an archive keeps one series instead
        of two; any other result gets others. Of the form 2.25.<UUID> (PS3.5 B.2), with a UUID by name (RFC 9562).
        """
        return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{self.digest} {source}').int}")

    def mark(self, dataset: Dataset, source: Dataset, number: int) -> None:
        """Make a data set instance `number` of the series, made of the instance `source`, which may be itself."""
        self._say_who_made_it(dataset, source)
        dataset.SyntheticData = "YES"
        dataset.ContentQualification = "RESEARCH"
        dataset.SeriesDescription = self.description
        dataset.DerivationDescription = self.derivation
        date, time = f"{self.now:%Y%m%d}", f"{self.now:%H%M%S.%f}"
        dataset.InstanceCreationDate = dataset.SeriesDate = dataset.ContentDate = date
        dataset.InstanceCreationTime = dataset.SeriesTime = dataset.ContentTime = time
        dataset.SOPInstanceUID = self.new_uid(f"{source.SOPInstanceUID} {number}")
        dataset.SeriesInstanceUID = self.new_uid(self.source_uid)
        dataset.SeriesNumber = self.number
        dataset.InstanceNumber = number
        dataset.file_meta, dataset.preamble = FileMetaDataset(), bytes(128)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian

    def _say_who_made_it(self, dataset: Dataset, source: Dataset) -> None:
        """This software as the equipment that made the instance; the source's equipment as one that contributed."""
        contributors = list(source.get("ContributingEquipmentSequence", []))
        before = Dataset()
        for keyword in EQUIPMENT:
            if keyword in source:
                before[keyword] = source[keyword]
            if keyword in dataset:
                del dataset[keyword]
        if before.get("Manufacturer"):
            original = source.get("ImageType", [""])[0] == "ORIGINAL"
            purpose = codes.DCM.AcquisitionEquipment if original else codes.DCM.ProcessingEquipment
            before.PurposeOfReferenceCodeSequence = [code(purpose)]
            contributors.append(before)
        ours = Dataset()
        ours.Manufacturer = NAME
        ours.ManufacturerModelName = text(self.facts.get("Bundle"), 64)
        ours.SoftwareVersions = [__version__, text(f"bundle {self.facts.get('BundleVersion')}", 64)]
        # What tells one copy of this equipment from another are its weights; 64 digits are just allowed.
        ours.DeviceSerialNumber = text(self.facts.get("WeightsSha256"), 64)
        dataset.update(ours)
        ours.PurposeOfReferenceCodeSequence = [code(codes.DCM.ProcessingEquipment)]
        ours.ContributionDateTime = f"{self.now:%Y%m%d%H%M%S.%f%z}"
        ours.ContributionDescription = self.derivation
        dataset.ContributingEquipmentSequence = [*contributors, ours]


def source_series(like: Scan) -> DicomSeries:
    """The series that a scan came as.

    Raises:
        ScanError: if it came as another kind of file.
    """
    if like.dicom is None:
        raise ScanError(
            f"{like.origin}: found no DICOM series, expected one whose study takes the result; write NIfTI instead"
        )
    return like.dicom


def frames_by_file(series: DicomSeries) -> dict[Path, list[int]]:
    """The files of a series in order of position, and which slices each of them holds."""
    files: dict[Path, list[int]] = {}
    for k, dicom_slice in enumerate(series.slices):
        files.setdefault(dicom_slice.file, []).append(k)
    return files


def read_template(path: Path) -> Dataset:
    """The attributes of a source file, less private ones, its pixels and what cannot be kept without them."""
    with open_dicom(path) as opened:
        template: Dataset = pydicom.dcmread(opened, stop_before_pixels=True, force=True)
    _strip(template)
    if template.file_meta.get("TransferSyntaxUID") in LOSSY:
        template.LossyImageCompression = "01"
    return template


def groups_of(template: Dataset, frames: list[int]) -> list[Dataset]:
    """The functional groups of frames; the file itself for each of them where it has none."""
    if "PerFrameFunctionalGroupsSequence" not in template:
        return [template] * len(frames)
    return [template.PerFrameFunctionalGroupsSequence[frame] for frame in frames]


def reference(instance: Dataset) -> Dataset:
    """An item that refers to an instance."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance.SOPClassUID, instance.SOPInstanceUID
    return item


def source_image(instance: Dataset, frames: list[int]) -> Dataset:
    """An item that refers to an instance, or frames of it (counted from 0), as the source of what lies in its place."""
    item = reference(instance)
    if frames:
        item.ReferencedFrameNumber = [frame + 1 for frame in frames]
    item.SpatialLocationsPreserved = "YES"
    item.PurposeOfReferenceCodeSequence = [code(codes.DCM.SourceImageForImageProcessingOperation)]
    return item


def code(concept: Code) -> Dataset:
    """A coded concept as an item of a sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = (
        concept.value,
        concept.scheme_designator,
        concept.meaning,
    )
    return item


def text(value: Any, limit: int) -> str:
    """A text that every character set of DICOM holds, in one value of at most `limit` characters."""
    ascii_text = str(value).encode("ascii", "replace").decode()
    return "".join(letter if letter.isprintable() and letter != "\\" else " " for letter in ascii_text)[:limit].strip()


def write_series(folder: Path, instances: Iterable[Dataset], origin: Path) -> list[Path]:
    """Write the instances of a new series as `IM_0001.dcm`, …; the folder appears whole or not at all.

    Raises:
        ScanError: if the source, named `origin`, holds attributes that cannot be written.
        OutputError: if `folder` holds anything but a series of ours, or cannot be written.
    """
    names = []
    with written_aside(folder) as aside:
        aside.mkdir()
        with sound_attributes(origin):
            for number, instance in enumerate(instances, start=1):
                names.append(f"IM_{number:04d}.dcm")
                instance.save_as(aside / names[-1], enforce_file_format=True)
        remove_series(folder)
    return [folder / name for name in names]


def remove_series(folder: Path) -> None:
    """Remove a folder that `write_series` wrote; nothing is done if it is not there.

    Raises:
        OutputError: if anything else lies in it.
    """
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if not (OURS.fullmatch(entry.name) and _is_synthetic(entry)):
            raise OutputError(
                f"{folder}: holds {entry.name}, expected nothing but a DICOM series of ours, which would be replaced; "
                "choose another output folder"
            )
    shutil.rmtree(folder)


@contextlib.contextmanager
def sound_attributes(origin: Path) -> Iterator[None]:
    """Refuse what pydicom stumbles over; its own messages may hold a patient's data."""
    try:
        yield
    except (OSError, ScanError):
        raise
    except Exception as error:
        raise ScanError(
            f"{origin}: found attributes that cannot be written again ({type(error).__name__}), expected a sound DICOM "
            "series; write NIfTI instead"
        ) from error


@contextlib.contextmanager
def present_files(origin: Path) -> Iterator[None]:
    """Refuse a source that is no longer there."""
    try:
        yield
    except OSError as error:
        raise ScanError(
            f"{origin}: found a file that cannot be read again ({error.strerror}), expected it until the result is "
            "written; start again"
        ) from error


class _NameAsItCame(PersonName):
    """A person's name that is written as the bytes that it was read from."""

    def encode(self, encodings: Sequence[str] | None = None) -> bytes:  # noqa: ARG002
        """The bytes."""
        return self.original_string


def _strip(dataset: Dataset) -> None:
    for tag in list(dataset.keys()):
        if tag.is_private or tag.group in DROPPED_GROUPS:
            del dataset[tag]
            continue
        raw = dataset.get_item(tag)
        element = dataset[tag]
        if element.keyword in DROPPED:
            del dataset[tag]
        elif element.VR == "SQ":
            for item in element.value:
                _strip(item)
        elif raw.is_raw and isinstance(raw.value, bytes) and element.VR in CUSTOMIZABLE_CHARSET_VR:
            dataset[tag] = _as_it_came(element, raw.value)


def _as_it_came(element: DataElement, raw: bytes) -> DataElement:
    """A text whose bytes are not of the character set that the file names is kept as those bytes, and no other text."""
    if REPLACEMENT not in str(element.value) or REPLACEMENT.encode() in raw:
        return element
    value = _NameAsItCame(raw) if element.VR == "PN" else raw
    return DataElement(element.tag, element.VR, value, already_converted=True)


def _zone(dataset: Dataset) -> tzinfo | None:
    """The zone in which the file gives its times; None is that of this machine."""
    with contextlib.suppress(ValueError, TypeError):
        return datetime.strptime(dataset.get("TimezoneOffsetFromUTC", ""), "%z").tzinfo
    return None


def _is_synthetic(path: Path) -> bool:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SyntheticData"])
    except Exception:  # whatever a file that is no DICOM makes pydicom raise
        return False
    return bool(header.get("SyntheticData") == "YES")
