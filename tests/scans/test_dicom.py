"""DICOM in: values and geometry as other programs see them, slices by position, and a reason for every refusal."""

import itertools
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from pipeline.errors import ScanError
from pipeline.scans.dicom import FoundSeries, find_series, read_series
from pipeline.scans.scan import DicomSeries, Scan

Writer = Callable[..., list[Path]]
PATIENT = ("Leaked", "LEAKED", "19010203")


def voxels(dtype: str = "int16", shape: tuple[int, int, int] = (12, 10, 6), seed: int = 0) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    stored = np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype, endpoint=True)
    stored.flat[:2] = limits.min, limits.max
    return stored


def only(files: list[Path]) -> FoundSeries:
    found = find_series(random.Random(0).sample(files, len(files)))
    assert len(found) == 1
    return found[0]


def read(files: list[Path]) -> Scan:
    return read_series(only(files), files[0].parent)


def rewrite(file: Path, change: Callable[[pydicom.Dataset], object]) -> None:
    dataset = pydicom.dcmread(file)
    change(dataset)
    dataset.save_as(file)


def set_all(dataset: pydicom.Dataset, **attributes: Any) -> None:
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)


def as_report(dataset: pydicom.Dataset) -> None:
    dataset.SOPClassUID = "1.2.3"
    del dataset.PixelData


def compress(file: Path, compressor: str) -> None:
    """Compress one file's pixels with ITK; pydicom alone knows no JPEG."""
    dataset = pydicom.dcmread(file)
    other = file.with_suffix(".itk")
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(other))
    writer.SetUseCompression(True)
    writer.SetCompressor(compressor)
    writer.Execute(SimpleITK.GetImageFromArray(dataset.pixel_array))
    packed = pydicom.dcmread(other)
    dataset.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    dataset.PixelData = packed.PixelData
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(file)
    other.unlink()


def in_big_endian(file: Path) -> None:
    dataset = pydicom.dcmread(file)
    dataset.decode()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
    pydicom.dcmwrite(file, dataset, implicit_vr=False, little_endian=False, force_encoding=True)


class TestVolume:
    @pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32"])
    def test_stored_values_keep_type_sign_and_place(self, dtype: str, dicom_series: Writer, tmp_path: Path) -> None:
        stored = voxels(dtype)
        scan = read(dicom_series(tmp_path, stored))
        assert scan.stored.dtype == dtype
        np.testing.assert_array_equal(scan.stored, stored)
        assert (scan.slope, scan.intercept) == (1, 0)

    def test_grid_is_that_of_itk(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels())
        scan = read(files)
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames([str(file) for file in files])
        image = reader.Execute()
        np.testing.assert_array_equal(scan.stored, SimpleITK.GetArrayFromImage(image).T)
        corners = list(itertools.product((0, 11), (0, 9), (0, 5)))
        theirs_lps = [image.TransformContinuousIndexToPhysicalPoint(corner) for corner in corners]
        np.testing.assert_allclose(apply_affine(scan.affine, corners), np.multiply(theirs_lps, (-1, -1, 1)), atol=1e-5)
        assert np.linalg.det(scan.affine) > 0

    def test_header_says_scanner_space_in_millimetres(self, dicom_series: Writer, tmp_path: Path) -> None:
        header = read(dicom_series(tmp_path, voxels())).header
        assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
        assert header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)

    def test_slices_name_the_files_in_the_order_of_the_volume(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels())
        assert [each.file for each in only(files).slices] == files
        assert {each.frame for each in only(files).slices} == {None}

    def test_rescale_becomes_slope_and_intercept(self, dicom_series: Writer, tmp_path: Path) -> None:
        stored = voxels("uint16")
        scan = read(dicom_series(tmp_path, stored, modality="CT", RescaleSlope="0.37", RescaleIntercept="-1024.5"))
        np.testing.assert_array_equal(scan.stored, stored)
        assert (scan.slope, scan.intercept) == (0.37, -1024.5)

    @pytest.mark.parametrize("multiframe", [False, True])
    def test_rescale_of_each_slice_gives_intensities(
        self, multiframe: bool, dicom_series: Writer, tmp_path: Path
    ) -> None:
        stored = voxels()
        files = dicom_series(
            tmp_path, stored, multiframe=multiframe, RescaleSlope=lambda k: str(k + 1), RescaleIntercept="-7"
        )
        scan = read(files)
        np.testing.assert_array_equal(scan.stored, (stored * np.arange(1.0, 7.0) - 7).astype(np.float32))
        assert (scan.slope, scan.intercept) == (1, 0)

    def test_bits_above_the_stored_ones_are_ignored(self, dicom_series: Writer, tmp_path: Path) -> None:
        stored = np.clip(voxels(), -2048, 2047)
        padded = (stored & 0x0FFF) | 0x5000
        scan = read(dicom_series(tmp_path, padded, BitsStored=12, HighBit=11))
        np.testing.assert_array_equal(scan.stored, stored)

    @pytest.mark.parametrize("modality", ["MR", "CT"])
    def test_enhanced_frames_are_ordered_by_position(self, modality: str, dicom_series: Writer, tmp_path: Path) -> None:
        stored = voxels("uint16")
        single, several = (
            dicom_series(tmp_path / "1", stored),
            dicom_series(tmp_path / "2", stored, modality=modality, multiframe=True, RescaleIntercept="-1024"),
        )
        scan = read(several)
        np.testing.assert_array_equal(scan.stored, stored)
        np.testing.assert_allclose(scan.affine, read(single).affine)
        assert (scan.slope, scan.intercept) == (1, -1024)
        assert scan.dicom is not None
        assert sorted(each.frame or 0 for each in scan.dicom.slices) == list(range(6))

    @pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, "JPEG", "JPEG2000"])
    def test_every_transfer_syntax_gives_the_same_values(
        self, syntax: str, dicom_series: Writer, tmp_path: Path
    ) -> None:
        stored = voxels("int16", (16, 14, 3))
        files = dicom_series(tmp_path, stored)
        for file in files:
            if syntax == RLELossless:
                rewrite(file, lambda dataset: dataset.compress(RLELossless))
            elif syntax == ImplicitVRLittleEndian:
                rewrite(file, lambda dataset: set_all(dataset.file_meta, TransferSyntaxUID=syntax))
            elif syntax == ExplicitVRBigEndian:
                in_big_endian(file)
            else:
                compress(file, syntax)
        np.testing.assert_array_equal(read(files).stored, stored)

    def test_files_of_other_kinds_are_passed_over(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels())
        report = dicom_series(tmp_path / "report", voxels(), Modality="SR", Rows=None, Columns=None)[0]
        rewrite(report, as_report)
        mask = dicom_series(tmp_path / "mask", voxels(), Modality="SEG")
        assert only([*files, report, *mask]).slices == only(files).slices


class TestManyVolumes:
    def test_series_are_told_apart_and_labelled_by_number(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = [
            *dicom_series(tmp_path, voxels(), SeriesNumber=9),
            *dicom_series(tmp_path, voxels(), SeriesNumber=None),
            *dicom_series(tmp_path, voxels(), SeriesNumber=2, SeriesDescription="T2 \x1b[31m" + 60 * "x"),
            *dicom_series(tmp_path, voxels(), SeriesNumber=2, ImageType=["DERIVED", "SECONDARY"]),
        ]
        found = find_series(files)
        assert [each.label for each in found] == ["2.1", "2.2", "9", "none"]
        assert {each.original for each in found[:2]} == {True, False}
        assert all(len(each.description) <= 40 and each.description.isprintable() for each in found)

    @pytest.mark.parametrize(
        "attribute",
        ["EchoNumbers", "EchoTime", "TemporalPositionIdentifier", "AcquisitionNumber", "DiffusionBValue"],
    )
    def test_volumes_that_share_positions_are_parts(self, attribute: str, dicom_series: Writer, tmp_path: Path) -> None:
        files = []
        for value in (1, 2, 3):
            files += dicom_series(tmp_path, voxels(seed=value), SeriesInstanceUID="2.25.7", **{attribute: value})
        found = find_series(files)
        assert [(each.label, each.shape, each.problem) for each in found] == [
            (f"4.{part}", (12, 10, 6), None) for part in (1, 2, 3)
        ]
        np.testing.assert_array_equal(read_series(found[1], tmp_path).stored, voxels(seed=2))

    def test_two_attributes_together_make_parts(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = []
        for echo, kind in itertools.product((1, 2), ("M", "P")):
            image_type = ["ORIGINAL", "PRIMARY", kind]
            files += dicom_series(
                tmp_path, voxels(), SeriesInstanceUID="2.25.7", EchoNumbers=echo, ImageType=image_type
            )
        assert [each.problem for each in find_series(files)] == [None] * 4

    def test_planes_of_one_series_are_volumes_of_their_own(self, dicom_series: Writer, tmp_path: Path) -> None:
        sagittal = np.array([[0, 0, 3.0, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
        files = [
            *dicom_series(tmp_path, voxels(), SeriesInstanceUID="2.25.7"),
            *dicom_series(tmp_path, voxels(), SeriesInstanceUID="2.25.7", affine=sagittal),
        ]
        assert [each.problem for each in find_series(files)] == [None, None]

    def test_localizer_is_no_scan_and_does_not_hinder_the_volume(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels(), SeriesInstanceUID="2.25.7")
        for axes in itertools.permutations(range(3)):
            affine = np.eye(4)[:, [*axes, 3]]
            files += dicom_series(tmp_path, voxels(shape=(12, 10, 1)), SeriesInstanceUID="2.25.7", affine=affine)
        scouts, volume = sorted(find_series(files), key=lambda each: each.is_scan)
        assert (volume.problem, volume.is_scan, volume.shape) == (None, True, (12, 10, 6))
        assert not scouts.is_scan
        assert "localizer" in (scouts.problem or "")

    def test_copies_of_files_count_once(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels())
        copies = [(tmp_path / f"copy{number}") for number in range(3)]
        for file, copy in zip(files, copies, strict=False):
            copy.write_bytes(file.read_bytes())
        found = only([*files, *copies])
        assert found.problem is None
        assert found.shape == (12, 10, 6)


def sheared(k: int) -> list[float]:
    """Upright slices of a gantry tilted by 15 degrees."""
    return [0.0, 3 * k * float(np.tan(np.deg2rad(15))), 3.0 * k]


UPRIGHT = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("gantry tilt of 15 degrees", {**UPRIGHT, "ImagePositionPatient": sheared}),
    ("steps of 3 to 5 mm", {**UPRIGHT, "ImagePositionPatient": lambda k: [0, 0, 3 * k + 2 * (k == 5)]}),
    ("shift sideways", {**UPRIGHT, "ImagePositionPatient": lambda k: [9 * (k == 3), 0, 3 * k]}),
    ("place of another", {"ImagePositionPatient": [0, 0, 0]}),
    ("no ImagePositionPatient", {"ImagePositionPatient": None}),
    ("no ImagePositionPatient", {"ImagePositionPatient": [1, 2]}),
    ("no ImageOrientationPatient", {"ImageOrientationPatient": None}),
    ("no PixelSpacing", {"PixelSpacing": None}),
    ("found a PixelSpacing of 0 and 0 in ", {"PixelSpacing": [0, 0]}),
    ("found a PixelSpacing of -1 and 1 in ", {"PixelSpacing": [-1, 1]}),
    ("perpendicular", {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}),
    ("perpendicular", {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}),
    ("perpendicular", {"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]}),
    ("colour", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}),
    ("colour", {"PhotometricInterpretation": "PALETTE COLOR"}),
    ("MONOCHROME1", {"PhotometricInterpretation": "MONOCHROME1"}),
    ("Synthetic Data is YES", {"SyntheticData": "YES"}),
    ("mosaics", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}),
    ("look-up table", {"ModalityLUTSequence": lambda k: [pydicom.Dataset()]}),
    ("rescale slope of 0", {"RescaleSlope": "0"}),
    ("16 bits up to bit 11", {"HighBit": 11}),
    ("12 bits up to bit 15", {"BitsStored": 12}),
    ("0 bits", {"BitsStored": 0, "HighBit": None}),
    ("in 64", {"BitsAllocated": 64}),
    ("65535", {"Rows": 65535, "Columns": 65535}),
    ("expected the 2004000 that its header claims", {"Rows": 1002, "Columns": 1000}),
    ("0 x 10 pixels", {"Columns": 0}),
    ("1000000 frames", {"NumberOfFrames": 1000000, "Rows": 40000}),
    ("many frames without a position", {"NumberOfFrames": 2, "Rows": 5}),
]


class TestRefused:
    def test_slices_of_two_people_and_the_sentence_names_neither(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels(), PatientName=lambda k: "Smith^John" if k % 2 else "Doe^Jane")
        (series,) = find_series(files)
        assert "found slices of 2 different PatientName in one series, expected one person" in str(series.problem)
        assert "Smith" not in str(series.problem)
        assert "Doe" not in str(series.problem)

    @pytest.mark.parametrize(
        ("reason", "attributes"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
    )
    def test_reason_and_remedy(
        self, reason: str, attributes: dict[str, Any], dicom_series: Writer, tmp_path: Path
    ) -> None:
        files = dicom_series(tmp_path, voxels(), **attributes)
        found = only(files)
        with pytest.raises(ScanError, match=r"found .*expected") as refusal:
            read_series(found, tmp_path)
        assert reason in str(refusal.value)
        assert not any(secret in str(refusal.value) for secret in (*PATIENT, found.uid))

    @pytest.mark.parametrize(("missing", "places"), [((2,), "2 and 3"), ((1, 4), "1 and 2, 3 and 4")])
    def test_missing_slices_are_named(
        self, missing: tuple[int, ...], places: str, dicom_series: Writer, tmp_path: Path
    ) -> None:
        files = dicom_series(tmp_path, voxels(shape=(12, 10, 9)))
        problem = only([file for k, file in enumerate(files) if k not in missing]).problem
        assert f"slices {places}" in (problem or "")

    def test_missing_echo_slice_is_not_hidden_by_the_split(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = []
        for echo in (1, 2):
            files += dicom_series(tmp_path, voxels(), SeriesInstanceUID="2.25.7", EchoNumbers=echo)
        assert "place of another" in (only(files[:-2]).problem or "")

    def test_single_slice_is_no_volume(self, dicom_series: Writer, tmp_path: Path) -> None:
        found = only(dicom_series(tmp_path, voxels())[:1])
        assert "single slice" in (found.problem or "")
        assert not found.is_scan

    def test_different_images_with_one_uid(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels())
        copy = tmp_path / "copy.dcm"
        copy.write_bytes(files[0].read_bytes())
        rewrite(copy, lambda dataset: set_all(dataset, PixelData=bytes(len(dataset.PixelData))))
        assert "two different images with one SOP Instance UID" in (only([*files, copy]).problem or "")

    def test_enhanced_without_a_position_for_each_frame(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels(), multiframe=True)
        rewrite(files[0], lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop())
        assert "positions of 5 frames" in (only(files).problem or "")

    def test_constant_volume(self, dicom_series: Writer, tmp_path: Path) -> None:
        with pytest.raises(ScanError, match="constant"):
            read(dicom_series(tmp_path, np.full((4, 4, 3), 7, np.int16)))

    def test_series_whose_files_are_gone(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels())
        found = only(files)
        files[2].unlink()
        with pytest.raises(ScanError, match=r"damaged|changed"):
            read_series(found, tmp_path)


class TestDamage:
    def test_truncation_anywhere_is_never_taken_for_a_volume(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels())
        whole = files[3].read_bytes()
        for length in range(0, len(whole), 97):
            files[3].write_bytes(whole[:length])
            assert all(found.problem for found in find_series(files)), length

    def test_file_of_an_unknown_series_spoils_its_neighbours_only(self, dicom_series: Writer, tmp_path: Path) -> None:
        here, there = dicom_series(tmp_path / "a", voxels()), dicom_series(tmp_path / "b", voxels())
        here[0].write_bytes(b"damaged")
        found = {each.slices[0].file.parent.name: each.problem for each in find_series([*here, *there])}
        assert found["b"] is None
        assert f"damaged file {here[0].name}" in (found["a"] or "")

    @pytest.mark.parametrize("multiframe", [False, True])
    def test_flipped_bits_end_in_a_reason_or_a_series(
        self, multiframe: bool, dicom_series: Writer, tmp_path: Path
    ) -> None:
        files = dicom_series(tmp_path, voxels(shape=(4, 4, 3)), multiframe=multiframe)
        whole = files[-1].read_bytes()
        draw = random.Random(0)
        for _ in range(100):
            flipped = bytearray(whole)
            for _ in range(3):
                flipped[draw.randrange(128, len(whole))] ^= 1 << draw.randrange(8)
            files[-1].write_bytes(flipped)
            for found in find_series(files):
                assert found.problem is None or "expected" in found.problem

    def test_stream_that_crashes_the_decoder_is_one_sentence(
        self, dicom_series: Writer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        files = dicom_series(tmp_path, voxels())
        for file in files:
            rewrite(file, lambda dataset: dataset.compress(RLELossless))

        def without_segments(dataset: pydicom.Dataset) -> None:
            frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
            dataset.PixelData = encapsulate([b"\0" + frame[1:]])

        rewrite(files[2], without_segments)
        with pytest.raises(ScanError, match=rf"{files[2].name} (crashed the decoder|cannot be decoded).*copy it again"):
            read(files)
        assert capfd.readouterr() == ("", "")

    def test_truncated_compressed_stream(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels("int16", (64, 64, 2)))
        for file in files:
            compress(file, "JPEG")
        files[1].write_bytes(files[1].read_bytes()[:-2000])
        with pytest.raises(ScanError, match="copy it again"):
            read(files)

    def test_compressed_file_that_claims_gigabytes(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels())
        for file in files:
            rewrite(file, lambda dataset: dataset.compress(RLELossless))
            rewrite(file, lambda dataset: set_all(dataset, Rows=30000, Columns=30000))
        assert "claims" in (only(files).problem or "")

    def test_deflated_file_is_not_unpacked(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, voxels())
        rewrite(files[0], lambda dataset: set_all(dataset.file_meta, TransferSyntaxUID=DeflatedExplicitVRLittleEndian))
        assert "deflated" in (find_series(files)[0].problem or "")


@pytest.fixture(scope="module")
def scan(shared_data: Path) -> Scan:
    folder = shared_data / "dicom_t1"
    return read_series(only(sorted(folder.iterdir())), folder)


@pytest.mark.data
class TestRealScan:
    def test_values_are_those_of_pydicom(self, scan: Scan) -> None:
        assert scan.dicom is not None
        for k in (0, 17, 39):
            pixels = pydicom.dcmread(scan.dicom.slices[k].file).pixel_array
            np.testing.assert_array_equal(scan.stored[:, :, k], pixels.T)

    def test_series_is_described(self, scan: Scan) -> None:
        assert isinstance(scan.dicom, DicomSeries)
        assert (scan.shape, scan.dicom.modality, scan.dicom.number) == ((274, 384, 40), "MR", 401)

    @pytest.mark.skipif(which("dcm2niix") is None, reason="dcm2niix is not installed")
    def test_lies_where_dcm2niix_puts_it(self, scan: Scan, tmp_path: Path) -> None:
        subprocess.run(["dcm2niix", "-o", tmp_path, "-f", "theirs", scan.origin], check=True, capture_output=True)
        theirs = nib.as_closest_canonical(nib.load(tmp_path / "theirs.nii"))
        ours = nib.as_closest_canonical(nib.Nifti1Image(scan.stored, scan.affine, scan.header))
        np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
        corners = list(itertools.product(*((0, size - 1) for size in ours.shape)))
        np.testing.assert_allclose(apply_affine(ours.affine, corners), apply_affine(theirs.affine, corners), atol=1e-3)
