"""DICOM out: a new series in the source's study, on the source's planes, that cannot pass for an original.

Attributes follow DICOM PS3.3 (general image, general equipment, contributing equipment, multi-frame functional groups)
and codes PS3.16; each file is its source file with what the derivation changes.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DSfloat

from pipeline.identity import facts
from pipeline.scans.new_series import (
    NewSeries,
    code,
    frames_by_file,
    groups_of,
    present_files,
    read_template,
    reference,
    sound_attributes,
    source_image,
    source_series,
    write_series,
)
from pipeline.scans.scan import Scan

SERIES_OFFSET, DIFFERENCE_OFFSET = 1000, 2000
# They speak of stored values, so they hold only as long as a stored value keeps its meaning.
OF_STORED_VALUES = (
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RealWorldValueMappingSequence",
)
WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence")
# A window is found in this many voxels as well as in all.
WINDOW_SAMPLE = 1_000_000


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
    source = source_series(like)
    with sound_attributes(like.origin), present_files(like.origin):
        files = [
            SourceFile.read(file, [source.slices[k].frame or 0 for k in ks], stored[:, :, ks], like, difference)
            for file, ks in frames_by_file(source).items()
        ]
        extremes = [extreme for file in files for extreme in file.extremes()]
        layout = PixelLayout.holding(min(extremes), max(extremes), files[0].template)
        known = facts(provenance)
        what = known.get("Description") or "Pseudo-healthy synthesis"
        series = NewSeries.beside(
            source,
            files[0].template,
            stored,
            description,
            f"Input minus the result of: {what}" if difference else str(what),
            known,
            DIFFERENCE_OFFSET if difference else SERIES_OFFSET,
        )
        window = _window(stored, like, difference)
    instances = (file.become(number, layout, series, window) for number, file in enumerate(files, start=1))
    return write_series(folder, instances, like.origin)


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
class SourceFile:
    """A file of the source series and the voxels that replace its own.

    Args:
        template: its attributes, less those that cannot be kept.
        frames: place of each slice in a multi-frame file.
        groups: functional groups of each slice; the template itself where the file has none.
        rescales: slope and intercept of each slice's new voxels, shape (slices, 2).
        units: the new voxels in stored units, shape (X, Y, slices).
        difference: whether they are differences.
        keeps_window: whether a window that the file has is kept.
    """

    template: Dataset
    frames: list[int]
    groups: list[Dataset]
    rescales: NDArray[np.float64]
    units: NDArray[np.generic]
    difference: bool
    keeps_window: bool

    @classmethod
    def read(
        cls, path: Path, frames: list[int], voxels: NDArray[np.generic], like: Scan, difference: bool
    ) -> "SourceFile":
        """A source file, and the voxels for its `frames` in the stored units of `like`, shape (X, Y, frames)."""
        template = read_template(path)
        groups = groups_of(template, frames)
        rescales = np.array([_rescale(template, group) for group in groups])
        if difference:
            rescales[:, 1] = 0
        if not np.issubdtype(like.stored.dtype, np.integer):
            # Intensities, because the slices differ in their rescale: each is brought to its own units, so that a voxel
            # that was not touched is the source's again.
            intensities = voxels.astype(np.float64) * like.slope + (0.0 if difference else like.intercept)
            voxels = np.rint((intensities - rescales[:, 1]) / rescales[:, 0])
        # Hounsfield units mean the same in every scan, and so do the windows set for them.
        keeps_window = source_series(like).modality == "CT" and not difference
        return cls(template, frames, groups, rescales, voxels, difference, keeps_window)

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest stored unit."""
        return float(self.units.min()), float(self.units.max())

    def become(self, number: int, layout: PixelLayout, series: NewSeries, window: tuple[float, float]) -> Dataset:
        """The template as instance `number` of the new series; `window` is center and width."""
        self._replace_pixels(layout, window)
        self._say_from_what(series)
        series.mark(self.template, self.template, number)
        self._say_what_it_is()
        return self.template

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

    def _replace_pixels(self, layout: PixelLayout, center_width: tuple[float, float]) -> None:
        dataset = self.template
        if self.difference or not layout.is_plain:
            for group, (slope, intercept) in zip(self.groups, self.rescales, strict=True):
                _set_rescale(dataset, group, slope * layout.step, intercept + slope * layout.shift)
        if self.difference or not layout.is_plain or layout.signed != bool(dataset.PixelRepresentation):
            _remove(self._levels(), OF_STORED_VALUES)
        if self._has_groups:
            dataset.PerFrameFunctionalGroupsSequence = self.groups
        if "NumberOfFrames" in dataset:
            dataset.NumberOfFrames = len(self.groups)
        dataset.BitsAllocated, dataset.BitsStored = layout.allocated, layout.stored
        dataset.HighBit, dataset.PixelRepresentation = layout.stored - 1, int(layout.signed)
        dataset.add_new("PixelData", "OB" if layout.allocated == 8 else "OW", layout.pixels(self.units))
        windowed = "FrameVOILUTSequence" if self._has_groups else "WindowCenter"
        if self.keeps_window and any(windowed in level for level in self._levels()):
            return
        _remove(self._levels(), (*WINDOW, "FrameVOILUTSequence"))
        window = Dataset()
        window.WindowCenter, window.WindowWidth = (DSfloat(value, auto_format=True) for value in center_width)
        if center_width[1] < 1:
            window.VOILUTFunction = "LINEAR_EXACT"  # the default function allows no width below 1
        if self._has_groups:
            self._shared().FrameVOILUTSequence = [window]
        else:
            dataset.update(window)

    def _say_from_what(self, series: NewSeries) -> None:
        dataset = self.template
        operation = code(codes.DCM.PixelByPixelSubtraction if self.difference else codes.DCM.PixelByPixelAddition)
        evidence = Dataset()
        evidence.SeriesInstanceUID = series.source_uid
        if not self._has_groups:
            evidence.ReferencedInstanceSequence = [reference(dataset)]
            dataset.ReferencedSeriesSequence = [*dataset.get("ReferencedSeriesSequence", []), evidence]
            dataset.DerivationCodeSequence = [*dataset.get("DerivationCodeSequence", []), operation]
            frames = self.frames if "NumberOfFrames" in dataset else []
            dataset.SourceImageSequence = [source_image(dataset, frames)]
            return
        evidence.ReferencedSOPSequence = [reference(dataset)]
        study = Dataset()
        study.StudyInstanceUID, study.ReferencedSeriesSequence = dataset.StudyInstanceUID, [evidence]
        dataset.SourceImageEvidenceSequence = [study]
        _remove(self._levels(), ("DerivationImageSequence",))
        for group, frame in zip(self.groups, self.frames, strict=True):
            derivation = Dataset()
            derivation.DerivationDescription, derivation.DerivationCodeSequence = series.derivation, [operation]
            derivation.SourceImageSequence = [source_image(dataset, [frame])]
            group.DerivationImageSequence = [derivation]

    def _typed(self) -> Iterator[tuple[Dataset, str]]:
        """What has an image or frame type, and the attribute's keyword."""
        yield self.template, "ImageType"
        for level in self._levels():
            for element in level:
                if element.keyword.endswith("FrameTypeSequence"):
                    for item in element.value:
                        yield item, "FrameType"

    def _say_what_it_is(self) -> None:
        # The enhanced IODs (PS3.3 C.8.16.1) know no SECONDARY, and name a contrast and an operation.
        operation = "SUBTRACTION" if self.difference else "ADDITION"
        for holder, keyword in self._typed():
            before = [*(holder.get(keyword) or []), "", "", ""]
            enhanced = ["DERIVED", "PRIMARY", before[2] or "OTHER", operation]
            setattr(holder, keyword, enhanced if self._has_groups else ["DERIVED", "SECONDARY", "OTHER"])


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
