"""Synthetic DICOM series as scanners write them, with names and instance numbers that say nothing about position."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from pydicom.valuerep import DSfloat

SOP_CLASSES = {
    ("MR", False): MRImageStorage,
    ("CT", False): CTImageStorage,
    ("MR", True): EnhancedMRImageStorage,
    ("CT", True): EnhancedCTImageStorage,
}
# No message, log, sidecar or report may ever show these.
PATIENT = {"PatientName": "Leaked^Name", "PatientID": "LEAKED-ID", "PatientBirthDate": "19010203", "PatientSex": "O"}
SEQUENCE = {"ScanningSequence": "GR", "SequenceVariant": "SP", "ScanOptions": "", "MRAcquisitionType": "3D",
    "RepetitionTime": "9", "EchoTime": "4", "EchoTrainLength": "1", "MagneticFieldStrength": "3"}  # fmt: skip


def write_series(
    folder: Path,
    volume: NDArray[np.generic],
    *,
    affine: NDArray[np.float64] | None = None,
    modality: str = "MR",
    multiframe: bool = False,
    study: str | None = None,
    **attributes: Any,
) -> list[Path]:
    """Write a volume as one DICOM series.

    Args:
        folder: made if absent; what lies in it stays.
        volume: stored values, shape (columns, rows, slices), an integer type of 8, 16 or 32 bits.
        affine: voxel indices to millimetres in RAS+; an oblique one by default.
        modality: MR or CT.
        multiframe: one enhanced file of many frames in a scrambled order instead of one file per slice.
        study: Study Instance UID; a new study by default.
        **attributes: DICOM keywords with the value for every slice, a function of the slice's index k, or None to
            leave the attribute out. In a multi-frame file they are set on the whole file, except for the rescale and
            position ones (RescaleSlope, RescaleIntercept, ImagePositionPatient), which belong to each frame.

    Returns:
        The files, by slice index; the one file of a multi-frame series.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ (oblique() if affine is None else affine)
    # What is said to be of one series is of one study and one space.
    series = attributes.get("SeriesInstanceUID") or generate_uid()
    common = {
        **_common(volume, lps, modality),
        "StudyInstanceUID": study or generate_uid(entropy_srcs=["study", str(series)]),
        "SeriesInstanceUID": series,
        "FrameOfReferenceUID": generate_uid(entropy_srcs=["space", str(series)]),
    }
    write = _write_frames if multiframe else _write_slices
    return write(folder, volume, lps, common, SOP_CLASSES[modality, multiframe], attributes)


def oblique() -> NDArray[np.float64]:
    """An affine that no axis of the patient is parallel to, with voxels of 0.9 x 1.1 x 3 mm."""
    tilt, turn = np.deg2rad(12), np.deg2rad(-7)
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag([-0.9, -1.1, 3.0])
    affine[:3, 3] = [90, 110.5, -41.25]
    return affine


def _common(volume: NDArray[np.generic], lps: NDArray[np.float64], modality: str) -> dict[str, Any]:
    bits = 8 * volume.dtype.itemsize
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    plane = lps[:3, :2] / spacing[:2]
    return {
        **PATIENT,
        **(SEQUENCE if modality == "MR" else {"KVP": "120"}),
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "StudyDate": "20200102",
        "StudyTime": "101112",
        "ContentDate": "20200102",
        "ContentTime": "101112",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "StudyID": "1",
        "SeriesNumber": 4,
        "SeriesDescription": "ax flair",
        "AcquisitionNumber": 1,
        "Modality": modality,
        "Manufacturer": "Nobody",
        "PatientPosition": "HFS",
        "PositionReferenceIndicator": "",
        "ImageOrientationPatient": [_decimal(number) for number in plane.T.ravel()],
        "PixelSpacing": [_decimal(spacing[1]), _decimal(spacing[0])],
        "SliceThickness": _decimal(spacing[2]),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": volume.shape[1],
        "Columns": volume.shape[0],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(volume.dtype.kind == "i"),
        **({"RescaleIntercept": "0", "RescaleSlope": "1", "RescaleType": "HU"} if modality == "CT" else {}),
    }


def _write_slices(
    folder: Path,
    volume: NDArray[np.generic],
    lps: NDArray[np.float64],
    common: dict[str, Any],
    sop_class: UID,
    attributes: dict[str, Any],
) -> list[Path]:
    files = []
    slices = volume.shape[2]
    for k in range(slices):
        dataset = _file(sop_class)
        _set(dataset, {**common, "InstanceNumber": slices - k, "ImagePositionPatient": _position(lps, k)}, 0)
        _set(dataset, attributes, k)
        _set_pixels(dataset, volume[:, :, k : k + 1])
        files.append(folder / f"{dataset.SOPInstanceUID[-12:]}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def _write_frames(
    folder: Path,
    volume: NDArray[np.generic],
    lps: NDArray[np.float64],
    common: dict[str, Any],
    sop_class: UID,
    attributes: dict[str, Any],
) -> list[Path]:
    dataset = _file(sop_class)
    measures = ("PixelSpacing", "SliceThickness")
    orientation = ("ImageOrientationPatient",)
    per_frame = {"RescaleSlope": "1", "RescaleIntercept": "0", "ImagePositionPatient": lambda k: _position(lps, k)}
    per_frame |= {name: value for name, value in attributes.items() if name in per_frame}
    of_file = {**common, **{name: value for name, value in attributes.items() if name not in per_frame}}
    grouped = {*measures, *orientation, *per_frame, "RescaleType"}
    order = np.random.default_rng(0).permutation(volume.shape[2])
    _set(dataset, {name: value for name, value in of_file.items() if name not in grouped}, 0)
    dataset.NumberOfFrames = volume.shape[2]
    dataset.InstanceNumber = 1

    shared = Dataset()
    shared.PixelMeasuresSequence = _item({name: of_file[name] for name in measures}, 0)
    shared.PlaneOrientationSequence = _item({name: of_file[name] for name in orientation}, 0)
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for k in map(int, order):
        group = Dataset()
        group.FrameContentSequence = _item({"StackID": "1", "InStackPositionNumber": k + 1}, 0)
        group.PlanePositionSequence = _item({"ImagePositionPatient": per_frame["ImagePositionPatient"]}, k)
        rescale = {name: per_frame[name] for name in ("RescaleIntercept", "RescaleSlope")}
        group.PixelValueTransformationSequence = _item({**rescale, "RescaleType": "US"}, k)
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    _set_pixels(dataset, volume[:, :, order])
    path = folder / f"{dataset.SOPInstanceUID[-12:]}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return [path]


def _file(sop_class: UID) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    return dataset


def _set(dataset: Dataset, attributes: dict[str, Any], k: int) -> None:
    for keyword, value in attributes.items():
        of_slice = value(k) if callable(value) else value
        if of_slice is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, of_slice)


def _item(attributes: dict[str, Any], k: int) -> Sequence:
    item = Dataset()
    _set(item, attributes, k)
    return Sequence([item])


def _set_pixels(dataset: Dataset, frames: NDArray[np.generic]) -> None:
    little = frames.astype(frames.dtype.newbyteorder("<"))
    pixels = np.ascontiguousarray(little.transpose(2, 1, 0)).tobytes()
    dataset.add_new("PixelData", "OB" if frames.dtype.itemsize == 1 else "OW", pixels + bytes(len(pixels) % 2))


def _position(lps: NDArray[np.float64], k: int) -> list[DSfloat]:
    return [_decimal(number) for number in lps[:3, 3] + k * lps[:3, 2]]


def _decimal(number: float) -> DSfloat:
    return DSfloat(float(number), auto_format=True)
