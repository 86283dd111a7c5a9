"""Masks and maps as DICOM objects: in the study and space of their scan, marked, and read alike by other programs."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 (its users know it so)
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from pipeline import __version__
from pipeline.errors import OutputError, ScanError
from pipeline.scans import Scan
from pipeline.scans.dicom import find_series, read_series
from pipeline.scans.dicom_objects import write_dicom_map, write_dicom_segmentation
from pipeline.scans.dicom_out import write_dicom
from pipeline.scans.lps import scan_from_lps

pytestmark = pytest.mark.slow

ABOUT = {"Bundle": "gvs", "BundleVersion": "1.2.0", "WeightsSha256": "ab12" * 16, "ConfigSha256": "cd34" * 16}
LESION = "SYNTHETIC lesion mask - NOT FOR DIAGNOSIS"
MAP = "SYNTHETIC uncertainty - NOT FOR DIAGNOSIS"
MEANING = "Standard deviation of the change"
SHAPE = (12, 10, 5)
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
OBLIQUE = np.eye(4)
OBLIQUE[:3] = np.column_stack(
    [Rotation.from_euler("xz", [12, -7], degrees=True).as_matrix() * [-0.9, -1.1, 3.0], [90, 110.5, -41.25]]
)
KEPT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "FrameOfReferenceUID")  # fmt: skip

Write = Callable[[Path, Scan], list[Path]]
Complaints = Callable[..., set[str]]


def mask_of(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """No plane of it is the mirror image of another, and two slices are empty."""
    mask = np.zeros(shape, bool)
    mask[3:7, 2:4, 1:3] = True
    mask[0, 0, 1] = mask[1, 5, 2] = mask[-1, 0, -2] = True
    return mask


def values_of(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def segmentation(folder: Path, scan: Scan) -> list[Path]:
    return write_dicom_segmentation(folder, mask_of(scan.shape), scan, LESION, ABOUT, "lesion")


def parametric_map(folder: Path, scan: Scan) -> list[Path]:
    return write_dicom_map(folder, values_of(scan.shape), scan, MAP, ABOUT, "HU", MEANING)


def lps(scan: Scan) -> NDArray[np.float64]:
    return TO_LPS @ scan.affine


@pytest.fixture
def make(dicom_series: Callable[..., list[Path]], tmp_path: Path) -> Callable[..., Scan]:
    """A scan that came as a series with these attributes."""

    def make(**attributes: Any) -> Scan:
        stored = np.random.default_rng(0).integers(0, 2000, SHAPE).astype(np.int16)
        (series,) = find_series(dicom_series(tmp_path / "source", stored, affine=OBLIQUE, **attributes))
        return scan_from_lps(stored, TO_LPS @ OBLIQUE, tmp_path / "source", dicom=series)

    return make


@pytest.fixture(params=["MR", "CT", "enhanced MR", "enhanced CT"])
def scan(request: pytest.FixtureRequest, make: Callable[..., Scan]) -> Scan:
    """Oblique, with names, instance numbers and frames in an order that says nothing of position."""
    return make(modality=request.param[-2:], multiframe="enhanced" in request.param)


@pytest.fixture
def plain(make: Callable[..., Scan]) -> Scan:
    return make()


@pytest.fixture(params=[segmentation, parametric_map])
def write(request: pytest.FixtureRequest) -> Write:
    written: Write = request.param
    return written


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "scan_label-lesion_mask"


def sources(scan: Scan) -> list[Dataset]:
    """Attributes of the file of each slice."""
    assert scan.dicom is not None
    return [pydicom.dcmread(place.file, stop_before_pixels=True) for place in scan.dicom.slices]


class TestPlace:
    def test_is_of_the_same_patient_study_and_space(self, scan: Scan, write: Write, out: Path) -> None:
        (file,) = write(out, scan)
        dataset = pydicom.dcmread(file)
        for keyword in KEPT:
            assert dataset[keyword] == sources(scan)[0][keyword]

    def test_each_frame_lies_in_the_plane_of_its_slice_and_names_it(self, scan: Scan, write: Write, out: Path) -> None:
        assert scan.dicom is not None
        dataset = pydicom.dcmread(*write(out, scan))
        values = mask_of(scan.shape) if write is segmentation else values_of(scan.shape)
        shared = dataset.SharedFunctionalGroupsSequence[0]
        assert list(map(float, shared.PixelMeasuresSequence[0].PixelSpacing)) == pytest.approx([1.1, 0.9])
        assert float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices) == pytest.approx(3)
        named = []
        for frame, pixels in zip(dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True):
            position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
            k = int(np.abs(lps(scan)[:3, 2] @ (position - lps(scan)[:3, 3]) / 9 - np.arange(SHAPE[2])).argmin())
            np.testing.assert_allclose(position, (lps(scan) @ [0, 0, k, 1])[:3], atol=1e-4)
            np.testing.assert_array_equal(pixels, values[:, :, k].T)
            (source,) = frame.DerivationImageSequence[0].SourceImageSequence
            assert source.ReferencedSOPInstanceUID == sources(scan)[k].SOPInstanceUID
            place = scan.dicom.slices[k].frame
            assert source.get("ReferencedFrameNumber") == (None if place is None else place + 1)
            named.append(k)
        assert named == list(range(SHAPE[2]))

    def test_refers_to_each_source_image_once(self, scan: Scan, write: Write, out: Path) -> None:
        dataset = pydicom.dcmread(*write(out, scan))
        (series,) = dataset.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == sources(scan)[0].SeriesInstanceUID
        for sequence in (dataset.SourceImageSequence, series.ReferencedInstanceSequence):
            referred = [item.ReferencedSOPInstanceUID for item in sequence]
            assert len(referred) == len(set(referred))
            assert set(referred) == {source.SOPInstanceUID for source in sources(scan)}

    def test_a_source_without_frame_of_reference_and_thickness_keeps_its_planes(
        self, make: Callable[..., Scan], write: Write, out: Path
    ) -> None:
        scan = make(FrameOfReferenceUID=None, SliceThickness=None)
        dataset = pydicom.dcmread(*write(out, scan))
        assert dataset.FrameOfReferenceUID.startswith("2.25.")
        assert float(dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness) == (
            pytest.approx(3)
        )


class TestMarks:
    """It cannot pass for something that a person drew or a scanner measured."""

    def test_says_that_it_is_synthetic_and_for_research(self, plain: Scan, write: Write, out: Path) -> None:
        dataset = pydicom.dcmread(*write(out, plain))
        assert dataset.ImageType[0] == "DERIVED"
        assert dataset.SyntheticData == "YES"
        assert dataset.ContentQualification == "RESEARCH"
        title = LESION if write is segmentation else MAP
        assert (dataset.SeriesDescription, dataset.ContentDescription) == (title, title)
        for said in (__version__, "gvs", "1.2.0", *list(ABOUT.values()), "NOT FOR DIAGNOSIS"):
            assert said in dataset.DerivationDescription

    def test_names_the_scanner_and_itself_as_equipment(self, plain: Scan, write: Write, out: Path) -> None:
        dataset = pydicom.dcmread(*write(out, plain))
        scanner, ours = dataset.ContributingEquipmentSequence
        assert (scanner.Manufacturer, ours.Manufacturer) == ("Nobody", "phs-pipeline")
        assert (dataset.Manufacturer, dataset.ManufacturerModelName) == ("phs-pipeline", "gvs")
        assert dataset.SoftwareVersions == [__version__, "bundle 1.2.0"]

    def test_uids_are_new_and_return_only_with_the_same_voxels(
        self, plain: Scan, write: Write, out: Path, tmp_path: Path
    ) -> None:
        def uids(file: Path) -> set[str]:
            dataset = pydicom.dcmread(file)
            (dimension,) = dataset.DimensionOrganizationSequence
            return {dataset.SeriesInstanceUID, dataset.SOPInstanceUID, dimension.DimensionOrganizationUID}

        first, again = uids(*write(out, plain)), uids(*write(out, plain))
        assert first == again
        other = [
            *write_dicom_segmentation(tmp_path / "1", ~mask_of(SHAPE), plain, LESION, ABOUT),
            *write_dicom_map(tmp_path / "2", values_of(SHAPE) + 1, plain, MAP, ABOUT, "HU", MEANING),
        ]
        assert not first & set().union(*map(uids, other))
        numbers = [pydicom.dcmread(file).SeriesNumber for file in (*write(out, plain), *other)]
        assert set(numbers) == {3004, 4004}

    def test_private_attributes_and_what_speaks_of_the_source_s_pixels_stay_behind(
        self, plain: Scan, write: Write, out: Path
    ) -> None:
        assert plain.dicom is not None
        for place in plain.dicom.slices:
            dataset = pydicom.dcmread(place.file)
            dataset.private_block(0x0029, "VENDOR", create=True).add_new(0x10, "LO", "secret")
            dataset.WindowCenter = "1"
            dataset.add_new("PixelPaddingValue", "SS", 7)
            dataset.save_as(place.file)
        (file,) = write(out, plain)
        assert b"secret" not in file.read_bytes()
        dataset = pydicom.dcmread(file)
        assert "WindowCenter" not in dataset
        assert "PixelPaddingValue" not in dataset


class TestSegmentation:
    def test_has_one_segment_with_coded_terms_and_its_algorithm(self, plain: Scan, out: Path) -> None:
        (file,) = write_dicom_segmentation(out, mask_of(SHAPE), plain, LESION, ABOUT, "white matter lesion")
        (segment,) = pydicom.dcmread(file).SegmentSequence
        assert (segment.SegmentNumber, segment.SegmentLabel) == (1, "white matter lesion")
        (category,) = segment.SegmentedPropertyCategoryCodeSequence
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        assert (category.CodeValue, kind.CodeValue, kind.CodingSchemeDesignator) == ("49755003", "52988006", "SCT")
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("gvs", "1.2.0")

    def test_an_empty_mask_is_written_whole(self, plain: Scan, out: Path) -> None:
        (file,) = write_dicom_segmentation(out, np.zeros(SHAPE, np.uint8), plain, LESION, ABOUT)
        pixels = pydicom.dcmread(file).pixel_array
        assert pixels.shape == (5, 10, 12)
        assert not pixels.any()

    def test_labels_above_one_are_inside(self, plain: Scan, out: Path) -> None:
        (file,) = write_dicom_segmentation(out, mask_of(SHAPE) * np.uint8(4), plain, LESION, ABOUT)
        assert pydicom.dcmread(file).pixel_array.sum() == mask_of(SHAPE).sum()


class TestMap:
    @pytest.mark.parametrize(
        ("units", "code"), [("1", "1"), ("", "1"), ("HU", "[hnsf'U]"), ("[hnsf'U]", "[hnsf'U]"), ("mm", "mm")]
    )
    def test_maps_stored_numbers_to_themselves_in_units(self, units: str, code: str, plain: Scan, out: Path) -> None:
        (file,) = write_dicom_map(out, values_of(SHAPE), plain, MAP, ABOUT, units, MEANING)
        shared = pydicom.dcmread(file).SharedFunctionalGroupsSequence[0]
        (mapping,) = shared.RealWorldValueMappingSequence
        (unit,) = mapping.MeasurementUnitsCodeSequence
        assert (unit.CodeValue, unit.CodingSchemeDesignator) == (code, "UCUM")
        assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
        assert mapping.LUTExplanation == MEANING
        assert mapping.DoubleFloatRealWorldValueFirstValueMapped == values_of(SHAPE).min()
        assert mapping.DoubleFloatRealWorldValueLastValueMapped == values_of(SHAPE).max()

    def test_a_constant_map_has_a_window(self, plain: Scan, out: Path) -> None:
        (file,) = write_dicom_map(out, np.zeros(SHAPE, np.float32), plain, MAP, ABOUT, "1", MEANING)
        dataset = pydicom.dcmread(file)
        assert dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0].WindowWidth == 1

    @pytest.mark.parametrize(("part", "code"), [("BRAIN", "12738006"), (None, "91723000")])
    def test_says_of_which_part_of_the_body_it_is(
        self, part: str | None, code: str, make: Callable[..., Scan], out: Path
    ) -> None:
        dataset = pydicom.dcmread(*parametric_map(out, make(BodyPartExamined=part)))
        (anatomy,) = dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence
        assert anatomy.AnatomicRegionSequence[0].CodeValue == code


class TestFolder:
    def test_a_series_of_ours_is_replaced_and_anything_else_left_alone(
        self, plain: Scan, write: Write, out: Path
    ) -> None:
        write_dicom(out, plain.stored, plain, LESION, ABOUT)
        assert [file.name for file in write(out, plain)] == [file.name for file in out.iterdir()] == ["IM_0001.dcm"]
        (out / "notes.txt").touch()
        with pytest.raises(OutputError, match=r"holds notes.txt, expected nothing but a DICOM series of ours"):
            write(out, plain)

    def test_a_scan_that_is_no_dicom_or_of_another_shape_is_refused(self, plain: Scan, write: Write, out: Path) -> None:
        with pytest.raises(ScanError, match="found no DICOM series"):
            write(out, replace(plain, dicom=None))
        with pytest.raises(ScanError, match=r"found a result of shape .*, expected"):
            write_dicom_segmentation(out, mask_of(SHAPE)[1:], plain, LESION, ABOUT)

    def test_a_source_that_is_gone_is_refused(self, plain: Scan, write: Write, out: Path) -> None:
        shutil.rmtree(plain.origin)
        with pytest.raises(ScanError, match=r"cannot be read again \(No such file or directory\)"):
            write(out, plain)


def in_space(image: sitk.Image, scan: Scan) -> NDArray[Any]:
    """Voxels of an image at the places of a scan's, shape (X, Y, Z); its grid is the scan's, or that turned over."""
    size = np.array(scan.shape)
    corners = [
        image.TransformPhysicalPointToContinuousIndex((lps(scan) @ [*at, 1])[:3]) for at in ((0, 0, 0), size - 1)
    ]
    np.testing.assert_allclose(np.sort(corners, axis=0), [(0, 0, 0), size - 1], atol=1e-2)
    turned = [axis for axis in range(3) if corners[0][axis] > corners[1][axis]]
    voxels: NDArray[Any] = np.flip(sitk.GetArrayFromImage(image).T, turned)
    return voxels


def dcmqi(program: str, file: Path, folder: Path) -> sitk.Image:
    """What a program of dcmqi makes of a file."""
    folder.mkdir()
    command = [program, "--inputDICOM", file, "--outputDirectory", folder]
    subprocess.run(command, check=True, capture_output=True)
    (image,) = folder.glob("*.nrrd")
    return sitk.ReadImage(str(image))


class TestOtherPrograms:
    def test_highdicom_reads_mask_and_grid(self, scan: Scan, out: Path) -> None:
        volume = hd.seg.segread(*segmentation(out, scan)).get_volume(combine_segments=True)
        on_scan = volume.match_geometry(_geometry(scan))
        np.testing.assert_array_equal(on_scan.array, mask_of(scan.shape).transpose(2, 1, 0))

    def test_highdicom_reads_map_and_grid(self, scan: Scan, out: Path) -> None:
        volume = hd.pm.ParametricMap.from_file(*parametric_map(out, scan)).get_volume()
        on_scan = volume.match_geometry(_geometry(scan))
        np.testing.assert_array_equal(on_scan.array, values_of(scan.shape).transpose(2, 1, 0))

    def test_dcmqi_reads_mask_and_grid(self, scan: Scan, out: Path, tmp_path: Path) -> None:
        image = dcmqi("segimage2itkimage", *segmentation(out, scan), tmp_path / "theirs")
        np.testing.assert_array_equal(in_space(image, scan), mask_of(scan.shape))

    def test_dcmqi_reads_map_and_grid(self, scan: Scan, out: Path, tmp_path: Path) -> None:
        image = dcmqi("paramap2itkimage", *parametric_map(out, scan), tmp_path / "theirs")
        np.testing.assert_array_equal(in_space(image, scan), values_of(scan.shape))

    def test_itk_reads_the_mask_on_the_grid(self, scan: Scan, out: Path) -> None:
        image = sitk.ReadImage(str(*segmentation(out, scan)))
        np.testing.assert_array_equal(in_space(image, scan) > 0, mask_of(scan.shape))

    @pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian's dicom3tools) is not installed")
    def test_dciodvfy_finds_no_error_that_the_source_does_not_have(
        self, scan: Scan, write: Write, out: Path, complaints: Complaints
    ) -> None:
        assert scan.dicom is not None
        assert complaints(*write(out, scan)) <= complaints(scan.dicom.slices[0].file)


def _geometry(scan: Scan) -> hd.VolumeGeometry:
    """A scan's grid in highdicom's order of axes: slices, rows, columns."""
    affine = lps(scan)[:, [2, 1, 0, 3]]
    return hd.VolumeGeometry(affine=affine, spatial_shape=scan.shape[::-1], coordinate_system="PATIENT")


@pytest.fixture(scope="module")
def real_scan(shared_data: Path) -> Scan:
    """The oblique T1 series of ../shared/data."""
    (found,) = find_series(sorted((shared_data / "dicom_t1").glob("*.dcm")))
    return read_series(found, shared_data / "dicom_t1")


@pytest.mark.data
class TestRealSeries:
    @pytest.fixture
    def scan(self, real_scan: Scan) -> Scan:
        return real_scan

    def test_other_programs_read_it_in_its_place(self, scan: Scan, tmp_path: Path) -> None:
        (mask,), (numbers,) = segmentation(tmp_path / "mask", scan), parametric_map(tmp_path / "map", scan)
        theirs = dcmqi("segimage2itkimage", mask, tmp_path / "1"), dcmqi("paramap2itkimage", numbers, tmp_path / "2")
        np.testing.assert_array_equal(in_space(theirs[0], scan), mask_of(scan.shape))
        np.testing.assert_array_equal(in_space(theirs[1], scan), values_of(scan.shape))

    @pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian's dicom3tools) is not installed")
    def test_dciodvfy_finds_no_error_that_the_source_does_not_have(
        self, scan: Scan, write: Write, tmp_path: Path, complaints: Complaints
    ) -> None:
        assert scan.dicom is not None
        assert complaints(*write(tmp_path / "out", scan)) <= complaints(scan.dicom.slices[0].file)
