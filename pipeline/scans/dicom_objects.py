"""Masks and maps as DICOM objects of their own, with highdicom: Segmentation and Parametric Map.

One multi-frame file each, one frame for each slice of the source, in its plane: every slice, empty ones too, so that
a reader that knows nothing of the source finds the whole grid. They follow DICOM PS3.3 A.51 and A.75.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat

from pipeline import __version__
from pipeline.errors import ScanError
from pipeline.identity import NAME, facts
from pipeline.scans.dicom_frames import Groups
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
    text,
    write_series,
)
from pipeline.scans.scan import Scan

if TYPE_CHECKING:
    from highdicom.image import _Image

SEGMENTATION_OFFSET, MAP_OFFSET = 3000, 4000
# Of one patient and study, beside what lies in the groups of patient and clinical trial.
PATIENT_GROUPS = (0x0010, 0x0012)
OF_STUDY = {
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence",
    "ProcedureCodeSequence",
    "ReferencedStudySequence",
    "PositionReferenceIndicator",
    "BodyPartExamined",
}
BODY_PARTS = {
    "BRAIN": codes.SCT.Brain,
    "HEAD": codes.SCT.Head,
    "NECK": codes.SCT.Neck,
    "CHEST": codes.SCT.Chest,
    "ABDOMEN": codes.SCT.Abdomen,
    "LIVER": codes.SCT.Liver,
    "PELVIS": codes.SCT.Pelvis,
    "PROSTATE": codes.SCT.Prostate,
}
UNITS = {"": codes.UCUM.NoUnits, "1": codes.UCUM.NoUnits, "HU": codes.UCUM.HounsfieldUnit}


def write_dicom_segmentation(
    folder: Path, mask: NDArray[np.generic], scan: Scan, title: str, about: Mapping[str, Any], label: str = "lesion"
) -> list[Path]:
    """Write a mask as a binary Segmentation with one segment, in the study of its scan.

    Args:
        folder: appears whole or not at all; a series of ours that lies there is replaced.
        mask: shape (X, Y, Z); everything but 0 is inside.
        scan: the scan it is a mask of, read from DICOM.
        title: Series Description, cut to 64 characters.
        about: the sidecar's content: Bundle, BundleVersion, WeightsSha256, ConfigSha256.
        label: Segment Label; its coded terms are those of a lesion (SNOMED CT), whatever it is called.

    Returns:
        The file.

    Raises:
        ScanError: if the scan is no DICOM series or has another shape, or attributes of it cannot be written again.
        OutputError: if `folder` holds anything but a series of ours, or cannot be written.
    """
    import highdicom as hd

    inside = (mask != 0).astype(np.uint8)
    known = facts(about)
    name, version = (text(known.get(key) or "unnamed", 64) for key in ("Bundle", "BundleVersion"))
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=text(label, 64),
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name, codes.DCM.ArtificialIntelligence, version, source=f"{NAME} {__version__}"
        ),
    )
    source = _Source.read(scan, inside.shape)
    series = source.new_series(inside, title, f"Segmentation of: {label}", known, SEGMENTATION_OFFSET)
    with sound_attributes(scan.origin):
        instance = hd.seg.Segmentation(
            pixel_array=inside.transpose(2, 1, 0),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[segment],
            omit_empty_frames=False,
            content_label="SEGMENTATION",
            **source.common(series),
        )
        source.complete(instance, series)
        instance.PixelData = pack_bits(inside.transpose(2, 1, 0))
    return write_series(folder, [instance], scan.origin)


def write_dicom_map(
    folder: Path,
    values: NDArray[np.floating],
    scan: Scan,
    title: str,
    about: Mapping[str, Any],
    units: str,
    meaning: str,
    offset: int = MAP_OFFSET,
) -> list[Path]:
    """Write numbers of any range as a Parametric Map of 32-bit floats, in the study of their scan.

    Args:
        folder: appears whole or not at all; a series of ours that lies there is replaced.
        values: shape (X, Y, Z), finite.
        scan: the scan it is a map of, read from DICOM.
        title: Series Description, cut to 64 characters.
        about: the sidecar's content: Bundle, BundleVersion, WeightsSha256, ConfigSha256.
        units: of the values, in UCUM ("mm", "[hnsf'U]", or "HU" for the latter); "1" or "" for none.
        meaning: what a value is, cut to 64 characters.
        offset: of its Series Number from the scan's, where a scan has several maps.

    Returns:
        The file.

    Raises:
        ScanError: if the scan is no DICOM series or has another shape, or attributes of it cannot be written again.
        OutputError: if `folder` holds anything but a series of ours, or cannot be written.
    """
    import highdicom as hd

    numbers = values.astype(np.float32)
    low, high = float(numbers.min()), float(numbers.max())
    source = _Source.read(scan, numbers.shape)
    series = source.new_series(numbers, title, f"Map: {meaning}", facts(about), offset)
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="VALUE",
        lut_explanation=text(meaning, 64),
        unit=UNITS.get(units) or Code(units, "UCUM", units),
        value_range=(low, high),
    )
    window = hd.VOILUTTransformation(
        # A number of at most 16 characters is what a window's attributes hold.
        window_center=DSfloat((low + high) / 2, auto_format=True),
        window_width=DSfloat((high - low) or 1.0, auto_format=True),
        voi_lut_function=hd.VOILUTFunctionValues.LINEAR_EXACT,
    )
    with sound_attributes(scan.origin):
        instance = hd.pm.ParametricMap(
            pixel_array=numbers.transpose(2, 1, 0),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[window],
            content_label="MAP",
            **source.common(series),
        )
        source.complete(instance, series)
        instance.FloatPixelData = numbers.transpose(2, 1, 0).astype("<f4").tobytes()
        # DCMTK, and what is built on it, reads no map whose frames do not say of what part of the body they are.
        instance.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(source.templates[0])]
    return write_series(folder, [instance], scan.origin)


class _Source:
    """The series that an object is made of.

    Args:
        scan: what was read from it.
        templates: attributes of each file, by slice.
        frames: place of each slice in a multi-frame file; None in a file of one frame.
        planes: a header for each slice that holds nothing but its plane, as highdicom takes it from single-frame
            images; what it needs of a patient and study is empty, and comes from `templates` as it lies there.
    """

    def __init__(self, scan: Scan, templates: list[Dataset], planes: list[Dataset]) -> None:
        self.scan = scan
        self.series = source_series(scan)
        self.templates = templates
        self.planes = planes

    @classmethod
    def read(cls, scan: Scan, shape: tuple[int, ...]) -> "_Source":
        """Read the attributes of a scan's files.

        Raises:
            ScanError: if there are none, they cannot be read, or the scan is of another shape.
        """
        series = source_series(scan)
        if shape != scan.shape:
            raise ScanError(f"{scan.origin}: found a result of shape {shape}, expected {scan.shape}; start again")
        templates = [Dataset()] * len(series.slices)
        planes = list(templates)
        with sound_attributes(scan.origin), present_files(scan.origin):
            for file, ks in frames_by_file(series).items():
                template = read_template(file)
                groups = groups_of(template, [series.slices[k].frame or 0 for k in ks])
                for k, group in zip(ks, groups, strict=True):
                    templates[k], planes[k] = template, _plane(template, group, k)
        ends_mm = [np.array(plane.ImagePositionPatient, dtype=float) for plane in (planes[0], planes[-1])]
        step_mm = DSfloat(float(np.linalg.norm(np.subtract(*ends_mm))) / (len(planes) - 1), auto_format=True)
        for plane in planes:
            plane.ImageOrientationPatient = planes[0].ImageOrientationPatient
            plane.PixelSpacing = planes[0].PixelSpacing
            plane.SpacingBetweenSlices = step_mm
            if not plane.SliceThickness:
                plane.SliceThickness = step_mm
        return cls(scan, templates, planes)

    def new_series(
        self, voxels: NDArray[np.generic], title: str, what: str, known: Mapping[str, Any], offset: int
    ) -> NewSeries:
        return NewSeries.beside(self.series, self.templates[0], voxels, title, what, known, offset)

    def common(self, series: NewSeries) -> dict[str, Any]:
        """What highdicom's constructors take, whatever the object is; `complete` replaces most of it."""
        return {
            "source_images": self.planes,
            "series_instance_uid": series.new_uid(series.source_uid),
            "series_number": series.number,
            "sop_instance_uid": series.new_uid("instance"),
            "instance_number": 1,
            "manufacturer": NAME,
            "manufacturer_model_name": NAME,
            "software_versions": __version__,
            "device_serial_number": "0",
            "content_description": series.description,
            "content_creator_name": f"{NAME}^",
            "transfer_syntax_uid": ExplicitVRLittleEndian,
        }

    def complete(self, instance: "_Image", series: NewSeries) -> None:
        """Say of whom, of what and by what an object was made, and put its frames in order of position.

        highdicom begins at the other end, and dcmqi takes the frames of a map as they come. The pixels are the caller's
        to put in order.
        """
        first = self.templates[0]
        for element in first:
            if element.tag.group in PATIENT_GROUPS or element.keyword in OF_STUDY:
                instance.add(copy.deepcopy(element))
        series.mark(instance, first, 1)
        if not first.get("FrameOfReferenceUID"):
            instance.FrameOfReferenceUID = series.new_uid("frame of reference")
        dimensions = series.new_uid("dimensions")
        for item in (*instance.DimensionOrganizationSequence, *instance.DimensionIndexSequence):
            item.DimensionOrganizationUID = dimensions
        instances = {template.SOPInstanceUID: template for template in self.templates}.values()
        instance.SourceImageSequence = [reference(each) for each in instances]
        (referred,) = instance.ReferencedSeriesSequence
        referred.SeriesInstanceUID = series.source_uid
        referred.ReferencedInstanceSequence = [reference(each) for each in instances]
        groups: dict[int, Dataset] = {}
        for group in instance.PerFrameFunctionalGroupsSequence:
            (derivation,) = group.DerivationImageSequence
            (plane,) = derivation.SourceImageSequence
            k = int(plane.ReferencedSOPInstanceUID.rpartition(".")[2]) - 1
            frame = self.series.slices[k].frame
            derivation.SourceImageSequence = [source_image(self.templates[k], [] if frame is None else [frame])]
            (content,) = group.FrameContentSequence
            *others, _ = np.atleast_1d(content.DimensionIndexValues).tolist()
            content.DimensionIndexValues = [*others, k + 1]
            groups[k] = group
        instance.PerFrameFunctionalGroupsSequence = [groups[k] for k in sorted(groups)]


def _plane(template: Dataset, group: Dataset, k: int) -> Dataset:
    """The plane of slice k, as a single-frame image of nobody; its UID ends with k + 1."""
    plane = Dataset()
    plane.SOPClassUID, plane.SOPInstanceUID = MRImageStorage, UID(f"2.25.{k + 1}")
    plane.StudyInstanceUID, plane.SeriesInstanceUID = template.StudyInstanceUID, template.SeriesInstanceUID
    plane.FrameOfReferenceUID = template.get("FrameOfReferenceUID") or "2.25.0"
    plane.Modality = template.get("Modality")
    plane.Rows, plane.Columns = template.Rows, template.Columns
    plane.LossyImageCompression = template.get("LossyImageCompression") or "00"
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                    "StudyDate", "StudyTime"):  # fmt: skip
        setattr(plane, keyword, None)
    look_up = template if group is template else Groups((group, *template.get("SharedFunctionalGroupsSequence", [])))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        setattr(plane, keyword, look_up.get(keyword))
    return plane


def _anatomy(template: Dataset) -> Dataset:
    part = BODY_PARTS.get(str(template.get("BodyPartExamined", "")).strip().upper(), codes.SCT.AnatomicalStructure)
    anatomy = Dataset()
    anatomy.FrameLaterality = "U"  # unpaired
    anatomy.AnatomicRegionSequence = template.get("AnatomicRegionSequence") or [code(part)]
    return anatomy
