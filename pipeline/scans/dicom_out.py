"""DICOM out: a new series in the source's study, on the source's planes, that cannot pass for an original.

Attributes follow DICOM PS3.3 (general image, general equipment, contributing equipment, multi-frame functional groups)
and codes PS3.16; each file is its source file with what the derivation changes.
"""

import contextlib
import hashlib
import math
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless
from pydicom.valuerep import DSfloat

from pipeline import __version__
from pipeline.errors import OutputError, ScanError
from pipeline.files import written_aside
from pipeline.identity import NAME, facts
from pipeline.scans.scan import Scan

# Behind the scanner's own series in every list, with the source's number still readable: 4 gives 1004 and 2004.
SERIES_OFFSET, DIFFERENCE_OFFSET = 1000, 2000
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
# They speak of stored values, so they hold only as long as a stored value keeps its meaning.
OF_STORED_VALUES = (
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RealWorldValueMappingSequence",
)
WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence")
EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "StationName")
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
# A window is found in this many voxels as well as in all.
WINDOW_SAMPLE = 1_000_000
OURS = re.compile(r"IM_\d{4,}\.dcm")


def write_dicom(
    folder: Path,
    stored: NDArray[np.generic],
    like: Scan,
    description: str,
    provenance: Mapping[str, Any],
    difference: bool = False,
) -> list[Path]:
    """Write voxels as a new series in the study of `like`, one file `IM_0001.dcm`, … for each source file.

    One file per slice gives one file per slice, a multi-frame file a multi-frame file. Patient, study, frame of
    reference, planes and acquisition are the source's; private attributes, overlays, icons and signatures are left
    out. Stored values and rescale are the source's as long as its pixels can hold the values.

    Args:
        folder: appears whole or not at all; a series of ours that lies there is replaced.
        stored: voxels in the stored units of `like`, shape (X, Y, Z).
        like: the source.
        description: Series Description, cut to 64 characters.
        provenance: the sidecar's content: Bundle, BundleVersion, WeightsSha256, ConfigSha256, Description.
        difference: `stored` is the difference of two volumes in stored units; its intensities have no intercept.

    Returns:
        The files, in order of position.

    Raises:
        ScanError: if `like` is no DICOM series, or its attributes cannot be read and written again.
        OutputError: if `folder` holds anything but a series of ours, or cannot be written.
    """
    if like.dicom is None:
        raise ScanError(
            f"{like.origin}: found no DICOM series, expected one whose study takes the result; write NIfTI instead"
        )
    places: dict[Path, list[int]] = {}
    for k, dicom_slice in enumerate(like.dicom.slices):
        places.setdefault(dicom_slice.file, []).append(k)
    with _sound_attributes(like.origin), _present_files(like.origin):
        files = [
            SourceFile.read(file, [like.dicom.slices[k].frame or 0 for k in ks], stored[:, :, ks], like, difference)
            for file, ks in places.items()
        ]
        extremes = [extreme for file in files for extreme in file.extremes()]
        layout = PixelLayout.holding(min(extremes), max(extremes), files[0].template)
        offset = DIFFERENCE_OFFSET if difference else SERIES_OFFSET
        known = facts(provenance)
        derivation = _derivation_description(known, difference)
        digest = hashlib.sha256(f"{stored.dtype.str} {stored.shape} {description} {derivation}".encode())
        digest.update(np.ascontiguousarray(stored).data)
        series = NewSeries(
            source_uid=like.dicom.uid,
            number=min((like.dicom.number or 0) + offset, LARGEST_INTEGER_STRING),
            description=_text(description, 64),
            derivation=derivation,
            difference=difference,
            facts=known,
            digest=digest.hexdigest(),
            window=_window(stored, like, difference),
            # Hounsfield units mean the same in every scan, and so do the windows set for them.
            keeps_window=like.dicom.modality == "CT" and not difference,
            now=datetime.now(timezone.utc).astimezone(_zone(files[0].template)),
        )
    names = [f"IM_{number:04d}.dcm" for number in range(1, len(files) + 1)]
    with written_aside(folder) as aside:
        aside.mkdir()
        for number, (name, file) in enumerate(zip(names, files, strict=True), start=1):
            with _sound_attributes(like.origin):
                file.become(number, layout, series).save_as(aside / name, enforce_file_format=True)
        remove_series(folder)
    return [folder / name for name in names]


@dataclass(frozen=True)
class PixelLayout:
    """How stored units lie in Pixel Data: `pixel = (unit - shift) / step`.

    Args:
        allocated: Bits Allocated.
        stored: Bits Stored, the low ones.
        signed: Pixel Representation.
        step: stored units per pixel value.
        shift: stored units of pixel value 0.
    """

    allocated: int
    stored: int
    signed: bool
    step: int = 1
    shift: int = 0

    @classmethod
    def holding(cls, low: float, high: float, template: Dataset) -> "PixelLayout":
        """The template's own layout if it holds all values, else one of at least 16 bits.

        MR and CT Image Storage allow 16 bits and no more. Only values that span more than that are rounded, to
        multiples of `step`; 0 stays 0.
        """
        allocated, bits = int(template.BitsAllocated), int(template.BitsStored)
        signed = bool(template.PixelRepresentation)
        wide = max(16, allocated)
        for candidate in (cls(allocated, bits, signed), cls(wide, wide, signed), cls(wide, wide, signed=True)):
            first = -(2 ** (candidate.stored - 1)) if candidate.signed else 0
            if first <= low and high < first + 2**candidate.stored:
                return candidate
        step = math.ceil((high - low) / (2**wide - 2))
        return cls(wide, wide, signed=False, step=step, shift=math.floor(low / step) * step)

    @property
    def is_plain(self) -> bool:
        """Whether a pixel value is a stored unit."""
        return (self.step, self.shift) == (1, 0)

    def pixels(self, units: NDArray[np.generic]) -> bytes:
        """Pixel Data, little endian, of stored units, shape (X, Y, slices)."""
        kind = f"<{'i' if self.signed else 'u'}{self.allocated // 8}"
        values = units if self.is_plain else np.rint((units.astype(np.float64) - self.shift) / self.step)
        data = np.ascontiguousarray(values.transpose(2, 1, 0).astype(kind)).tobytes()
        return data + bytes(len(data) % 2)


@dataclass(frozen=True)
class NewSeries:
    """What all instances of the new series share.

    Args:
        source_uid: Series Instance UID of the source.
        number: Series Number.
        description: Series Description.
        derivation: Derivation Description.
        difference: whether its voxels are differences.
        facts: bundle, version and hashes.
        digest: of the voxels and of what is said about them.
        window: Window Center and Width.
        keeps_window: whether a window of the source is kept instead.
        now: when it was made.
    """

    source_uid: str
    number: int
    description: str
    derivation: str
    difference: bool
    facts: Mapping[str, Any]
    digest: str
    window: tuple[float, float]
    keeps_window: bool
    now: datetime

    def new_uid(self, source: str) -> UID:
        """A UID for what was made of the series or instance with the UID `source`.

        A result that is made again, voxel for voxel, gets its UIDs again, so that an archive keeps one series instead
        of two; any other result gets others. Of the form 2.25.<UUID> (PS3.5 B.2), with a UUID by name (RFC 9562).
        """
        return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{self.digest} {source}').int}")


@dataclass(frozen=True)
class SourceFile:
    """A file of the source series and the voxels that replace its own.

    Args:
        template: its attributes, less those that cannot be kept.
        frames: place of each slice in a multi-frame file.
        groups: functional groups of each slice; the template itself where the file has none.
        rescales: slope and intercept of each slice's new voxels, shape (slices, 2).
        units: the new voxels in stored units, shape (X, Y, slices).
    """

    template: Dataset
    frames: list[int]
    groups: list[Dataset]
    rescales: NDArray[np.float64]
    units: NDArray[np.generic]

    @classmethod
    def read(
        cls, path: Path, frames: list[int], voxels: NDArray[np.generic], like: Scan, difference: bool
    ) -> "SourceFile":
        """A source file, and the voxels for its `frames` in the stored units of `like`, shape (X, Y, frames)."""
        template: Dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        _strip(template)
        if template.file_meta.get("TransferSyntaxUID") in LOSSY:
            template.LossyImageCompression = "01"
        groups: list[Dataset] = [template] * len(frames)
        if "PerFrameFunctionalGroupsSequence" in template:
            groups = [template.PerFrameFunctionalGroupsSequence[frame] for frame in frames]
        rescales = np.array([_rescale(template, group) for group in groups])
        if difference:
            rescales[:, 1] = 0
        if np.issubdtype(like.stored.dtype, np.integer):
            return cls(template, frames, groups, rescales, voxels)
        # Intensities, because the slices differ in their rescale: each is brought to its own units, so that a voxel
        # that was not touched is the source's again.
        intensities = voxels.astype(np.float64) * like.slope + (0.0 if difference else like.intercept)
        return cls(template, frames, groups, rescales, np.rint((intensities - rescales[:, 1]) / rescales[:, 0]))

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest stored unit."""
        return float(self.units.min()), float(self.units.max())

    def become(self, number: int, layout: PixelLayout, series: NewSeries) -> Dataset:
        """The template as instance `number` of the new series."""
        dataset = self.template
        self._replace_pixels(layout, series)
        self._say_from_what(series)
        _say_who_made_it(dataset, series)
        self._say_what_it_is(series)
        dataset.SeriesInstanceUID = series.new_uid(series.source_uid)
        dataset.SOPInstanceUID = series.new_uid(f"{dataset.SOPInstanceUID} {number}")
        dataset.SeriesNumber = series.number
        dataset.InstanceNumber = number
        dataset.file_meta, dataset.preamble = FileMetaDataset(), bytes(128)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return dataset

    @property
    def _has_groups(self) -> bool:
        return self.groups[0] is not self.template

    def _shared(self) -> Dataset:
        if not self.template.get("SharedFunctionalGroupsSequence"):
            self.template.SharedFunctionalGroupsSequence = [Dataset()]
        shared: Dataset = self.template.SharedFunctionalGroupsSequence[0]
        return shared

    def _levels(self) -> list[Dataset]:
        """All that may speak of the slices: the file, its shared groups and those of each frame."""
        return [self.template, self._shared(), *self.groups] if self._has_groups else [self.template]

    def _replace_pixels(self, layout: PixelLayout, series: NewSeries) -> None:
        dataset = self.template
        if series.difference or not layout.is_plain:
            for group, (slope, intercept) in zip(self.groups, self.rescales, strict=True):
                _set_rescale(dataset, group, slope * layout.step, intercept + slope * layout.shift)
        if series.difference or not layout.is_plain or layout.signed != bool(dataset.PixelRepresentation):
            _remove(self._levels(), OF_STORED_VALUES)
        if self._has_groups:
            dataset.PerFrameFunctionalGroupsSequence = self.groups
        if "NumberOfFrames" in dataset:
            dataset.NumberOfFrames = len(self.groups)
        dataset.BitsAllocated, dataset.BitsStored = layout.allocated, layout.stored
        dataset.HighBit, dataset.PixelRepresentation = layout.stored - 1, int(layout.signed)
        dataset.add_new("PixelData", "OB" if layout.allocated == 8 else "OW", layout.pixels(self.units))
        windowed = "FrameVOILUTSequence" if self._has_groups else "WindowCenter"
        if series.keeps_window and any(windowed in level for level in self._levels()):
            return
        _remove(self._levels(), (*WINDOW, "FrameVOILUTSequence"))
        window = Dataset()
        window.WindowCenter, window.WindowWidth = (DSfloat(value, auto_format=True) for value in series.window)
        if series.window[1] < 1:
            window.VOILUTFunction = "LINEAR_EXACT"  # the default function allows no width below 1
        if self._has_groups:
            self._shared().FrameVOILUTSequence = [window]
        else:
            dataset.update(window)

    def _say_from_what(self, series: NewSeries) -> None:
        dataset = self.template
        code = _code(codes.DCM.PixelByPixelSubtraction if series.difference else codes.DCM.PixelByPixelAddition)
        dataset.DerivationDescription = series.derivation
        instance = Dataset()
        instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
        evidence = Dataset()
        evidence.SeriesInstanceUID = series.source_uid
        if not self._has_groups:
            evidence.ReferencedInstanceSequence = [instance]
            dataset.ReferencedSeriesSequence = [*dataset.get("ReferencedSeriesSequence", []), evidence]
            dataset.DerivationCodeSequence = [*dataset.get("DerivationCodeSequence", []), code]
            frames = self.frames if "NumberOfFrames" in dataset else []
            dataset.SourceImageSequence = [_source_image(instance, frames)]
            return
        evidence.ReferencedSOPSequence = [instance]
        study = Dataset()
        study.StudyInstanceUID, study.ReferencedSeriesSequence = dataset.StudyInstanceUID, [evidence]
        dataset.SourceImageEvidenceSequence = [study]
        _remove(self._levels(), ("DerivationImageSequence",))
        for group, frame in zip(self.groups, self.frames, strict=True):
            derivation = Dataset()
            derivation.DerivationDescription, derivation.DerivationCodeSequence = series.derivation, [code]
            derivation.SourceImageSequence = [_source_image(instance, [frame])]
            group.DerivationImageSequence = [derivation]

    def _typed(self) -> Iterator[tuple[Dataset, str]]:
        """What has an image or frame type, and the attribute's keyword."""
        yield self.template, "ImageType"
        for level in self._levels():
            for element in level:
                if element.keyword.endswith("FrameTypeSequence"):
                    for item in element.value:
                        yield item, "FrameType"

    def _say_what_it_is(self, series: NewSeries) -> None:
        dataset = self.template
        # The enhanced IODs (PS3.3 C.8.16.1) know no SECONDARY, and name a contrast and an operation.
        operation = "SUBTRACTION" if series.difference else "ADDITION"
        for holder, keyword in self._typed():
            before = [*(holder.get(keyword) or []), "", "", ""]
            enhanced = ["DERIVED", "PRIMARY", before[2] or "OTHER", operation]
            setattr(holder, keyword, enhanced if self._has_groups else ["DERIVED", "SECONDARY", "OTHER"])
        dataset.SyntheticData = "YES"
        dataset.ContentQualification = "RESEARCH"
        dataset.SeriesDescription = series.description
        date, time = f"{series.now:%Y%m%d}", f"{series.now:%H%M%S.%f}"
        dataset.InstanceCreationDate = dataset.SeriesDate = dataset.ContentDate = date
        dataset.InstanceCreationTime = dataset.SeriesTime = dataset.ContentTime = time


def _say_who_made_it(dataset: Dataset, series: NewSeries) -> None:
    """This software as the equipment that made the instance; the source's equipment as one that contributed."""
    contributors = list(dataset.get("ContributingEquipmentSequence", []))
    before = Dataset()
    for keyword in EQUIPMENT:
        if keyword in dataset:
            before[keyword] = dataset[keyword]
            del dataset[keyword]
    if before.get("Manufacturer"):
        original = dataset.get("ImageType", [""])[0] == "ORIGINAL"
        purpose = codes.DCM.AcquisitionEquipment if original else codes.DCM.ProcessingEquipment
        before.PurposeOfReferenceCodeSequence = [_code(purpose)]
        contributors.append(before)
    ours = Dataset()
    ours.Manufacturer = NAME
    ours.ManufacturerModelName = _text(series.facts.get("Bundle"), 64)
    ours.SoftwareVersions = [__version__, _text(f"bundle {series.facts.get('BundleVersion')}", 64)]
    # What tells one copy of this equipment from another are its weights; 64 digits are just allowed.
    ours.DeviceSerialNumber = _text(series.facts.get("WeightsSha256"), 64)
    dataset.update(ours)
    ours.PurposeOfReferenceCodeSequence = [_code(codes.DCM.ProcessingEquipment)]
    ours.ContributionDateTime = f"{series.now:%Y%m%d%H%M%S.%f%z}"
    ours.ContributionDescription = series.derivation
    dataset.ContributingEquipmentSequence = [*contributors, ours]


def _derivation_description(known: Mapping[str, Any], difference: bool) -> str:
    what = known.get("Description") or "Pseudo-healthy synthesis"
    made = f"Input minus the result of: {what}" if difference else f"{what}"
    return _text(
        f"{made}. Made by {NAME} {__version__}, bundle {known.get('Bundle')} {known.get('BundleVersion')}, weights "
        f"SHA-256 {known.get('WeightsSha256')}, config SHA-256 {known.get('ConfigSha256')}. SYNTHETIC, for research, "
        "NOT FOR DIAGNOSIS.",
        1024,
    )


def _text(value: Any, limit: int) -> str:
    """A text that every character set of DICOM holds, in one value of at most `limit` characters."""
    ascii_text = str(value).encode("ascii", "replace").decode()
    return "".join(letter if letter.isprintable() and letter != "\\" else " " for letter in ascii_text)[:limit].strip()


def _source_image(instance: Dataset, frames: list[int]) -> Dataset:
    source = Dataset()
    source.update(instance)
    if frames:
        source.ReferencedFrameNumber = [frame + 1 for frame in frames]
    source.SpatialLocationsPreserved = "YES"
    source.PurposeOfReferenceCodeSequence = [_code(codes.DCM.SourceImageForImageProcessingOperation)]
    return source


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _strip(dataset: Dataset) -> None:
    for tag in list(dataset.keys()):
        element = None if tag.is_private or tag.group in DROPPED_GROUPS else dataset[tag]
        if element is None or element.keyword in DROPPED:
            del dataset[tag]
        elif element.VR == "SQ":
            for item in element.value:
                _strip(item)


def _remove(levels: list[Dataset], keywords: tuple[str, ...]) -> None:
    for level in levels:
        for keyword in keywords:
            if keyword in level:
                del level[keyword]


def _rescale_holder(dataset: Dataset, group: Dataset) -> Dataset | None:
    """Where a slice's rescale stands: in the file, in the slice's groups or in the shared ones."""
    if group is dataset:
        return dataset
    for level in (group, *dataset.get("SharedFunctionalGroupsSequence", [])):
        for transformation in level.get("PixelValueTransformationSequence", []):
            holder: Dataset = transformation
            return holder
    return None


def _rescale(dataset: Dataset, group: Dataset) -> tuple[float, float]:
    holder = _rescale_holder(dataset, group) or Dataset()
    return float(holder.get("RescaleSlope") or 1), float(holder.get("RescaleIntercept") or 0)


def _set_rescale(dataset: Dataset, group: Dataset, slope: float, intercept: float) -> None:
    holder = _rescale_holder(dataset, group)
    if holder is None:
        holder = Dataset()
        group.PixelValueTransformationSequence = [holder]
    elif "RescaleSlope" not in holder and (slope, intercept) == (1, 0):
        return
    holder.RescaleSlope, holder.RescaleIntercept = (DSfloat(value, auto_format=True) for value in (slope, intercept))
    if "RescaleType" not in holder:
        holder.RescaleType = "US"  # unspecified


def _window(stored: NDArray[np.generic], like: Scan, difference: bool) -> tuple[float, float]:
    """Center and width: the middle 99 % of the intensities, or all differences with none in the middle."""
    if difference:
        largest = max(abs(float(stored.min())), abs(float(stored.max()))) * abs(like.slope)
        return 0.0, 2 * largest or 1.0
    sample = stored.ravel(order="K")[:: max(1, stored.size // WINDOW_SAMPLE)]
    low, high = np.percentile(sample.astype(np.float64) * like.slope + like.intercept, (0.5, 99.5))
    return (low + high) / 2, (high - low) or 1.0


def _zone(dataset: Dataset) -> tzinfo | None:
    """The zone in which the file gives its times; None is that of this machine."""
    with contextlib.suppress(ValueError, TypeError):
        return datetime.strptime(dataset.get("TimezoneOffsetFromUTC", ""), "%z").tzinfo
    return None


@contextlib.contextmanager
def _sound_attributes(origin: Path) -> Iterator[None]:
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
def _present_files(origin: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ScanError(
            f"{origin}: found a file that cannot be read again ({error.strerror}), expected it until the result is "
            "written; start again"
        ) from error


def remove_series(folder: Path) -> None:
    """Remove a folder that `write_dicom` wrote; nothing is done if it is not there.

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


def _is_synthetic(path: Path) -> bool:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SyntheticData"])
    except Exception:  # whatever a file that is no DICOM makes pydicom raise
        return False
    return bool(header.get("SyntheticData") == "YES")
