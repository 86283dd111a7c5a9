"""DICOM out: a new series beside the source, in the same place, that says what it is; and other programs agree."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 (its users know it so)
from numpy.typing import NDArray
from pydicom.dataset import Dataset, PrivateBlock
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from pipeline import __version__
from pipeline.errors import OutputError, ScanError
from pipeline.scans import Scan
from pipeline.scans.dicom import find_series, read_series
from pipeline.scans.dicom_objects import write_dicom_segmentation
from pipeline.scans.dicom_out import write_dicom

DESCRIPTION = "SYNTHETIC pseudo-healthy - NOT FOR DIAGNOSIS"
WEIGHTS = "ab12" * 16
PROVENANCE = {"Bundle": "gvs", "BundleVersion": "1.2.0", "WeightsSha256": WEIGHTS, "ConfigSha256": "cd34" * 16}
SHAPE = (12, 10, 5)
KEPT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "Rows", "Columns", "PatientPosition", "SOPClassUID", "Modality", "EchoTime",
    "RepetitionTime", "AcquisitionNumber")  # fmt: skip
# dciodvfy forbids in derived enhanced MR an attribute that "may be present otherwise" (PS3.3 table C.8-87).
ALLOWED = "Conditional Element=<MRAcquisitionType>"

Complaints = Callable[..., set[str]]


def volume(dtype: str = "int16", top: int = 2000) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, top, SHAPE).astype(dtype)


@pytest.fixture
def make(dicom_series: Callable[..., list[Path]], tmp_path: Path) -> Callable[..., Scan]:
    """A scan that came as a series of these stored values."""

    def make(
        stored: NDArray[np.generic], slope: float = 1.0, intercept: float = 0.0, seen: Any = None, **attributes: Any
    ) -> Scan:
        files = dicom_series(tmp_path / "source", stored, **attributes)
        header = nib.Nifti1Header()
        header.set_data_shape(stored.shape)
        header.set_sform(np.eye(4), 1)
        (series,) = find_series(files)
        return Scan(stored if seen is None else seen, slope, intercept, header, tmp_path / "source", series)

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "scan_desc-pseudohealthy"


def write(
    folder: Path, stored: NDArray[np.generic], scan: Scan, difference: bool = False, **facts: Any
) -> list[Dataset]:
    return list(map(pydicom.dcmread, write_dicom(folder, stored, scan, DESCRIPTION, PROVENANCE | facts, difference)))


def templates(scan: Scan) -> list[Dataset]:
    assert scan.dicom is not None
    return [pydicom.dcmread(place.file) for place in scan.dicom.slices]


def edit(scan: Scan, change: Callable[[Dataset], None]) -> None:
    """Change the source's files before they are used."""
    assert scan.dicom is not None
    for place in scan.dicom.slices:
        dataset = pydicom.dcmread(place.file)
        change(dataset)
        dataset.save_as(place.file)


def intensities(dataset: Dataset) -> NDArray[np.float64]:
    values: NDArray[np.float64] = dataset.pixel_array.astype(float) * float(dataset.get("RescaleSlope", 1)) + float(
        dataset.get("RescaleIntercept", 0)
    )
    return values


class TestPlace:
    def test_is_of_the_same_patient_study_and_space_slice_by_slice(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        written = write(out, scan.stored, scan)
        assert len(written) == SHAPE[2]
        for after, before in zip(written, templates(scan), strict=True):
            for keyword in KEPT:
                assert after[keyword] == before[keyword]

    def test_files_and_instance_numbers_follow_position(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        files = write_dicom(out, scan.stored, scan, DESCRIPTION, PROVENANCE)
        assert [file.name for file in files] == [f"IM_000{number}.dcm" for number in range(1, 6)]
        written = list(map(pydicom.dcmread, files))
        assert [dataset.InstanceNumber for dataset in written] == [1, 2, 3, 4, 5]
        heights = [dataset.ImagePositionPatient[2] for dataset in written]
        assert heights == sorted(heights)


class TestNewSeries:
    def test_has_uids_and_a_number_of_its_own(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        twin = write(out, scan.stored, scan)
        anomaly = write(out.with_name("anomaly"), scan.stored, scan, difference=True)
        sources = templates(scan)
        for series in (twin, anomaly):
            assert len({dataset.SeriesInstanceUID for dataset in series}) == 1
            for dataset in series:
                assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
                assert dataset.SOPInstanceUID.is_valid
                assert dataset.SeriesInstanceUID.startswith("2.25.")
        uids = [dataset.SOPInstanceUID for dataset in (*twin, *anomaly, *sources)]
        assert len(set(uids)) == len(uids)
        assert len({series[0].SeriesInstanceUID for series in (twin, anomaly, sources)}) == 3
        assert [series[0].SeriesNumber for series in (sources, twin, anomaly)] == [4, 1004, 2004]

    def test_made_again_it_has_the_same_uids_and_anything_else_has_others(
        self, make: Callable[..., Scan], out: Path
    ) -> None:
        scan = make(volume())
        other = scan.stored.copy()
        other[0, 0, 0] += 1
        variants: list[tuple[NDArray[Any], dict[str, Any]]] = [
            (scan.stored, {}),
            (scan.stored, {}),
            (other, {}),
            (scan.stored, {"WeightsSha256": "ef" * 32}),
        ]
        first, again, changed, reweighted = (
            {(dataset.SeriesInstanceUID, dataset.SOPInstanceUID) for dataset in write(out, stored, scan, **facts)}
            for stored, facts in variants
        )
        assert first == again
        assert not first & changed
        assert not first & reweighted

    @pytest.mark.parametrize(("number", "expected"), [(None, 1000), (2**31 - 1, 2**31 - 1)])
    def test_a_source_without_a_number_or_with_the_largest_one(
        self, number: int | None, expected: int, make: Callable[..., Scan], out: Path
    ) -> None:
        scan = make(volume(), SeriesNumber=number)
        assert write(out, scan.stored, scan)[0].SeriesNumber == expected

    def test_dates_are_those_of_its_making_in_the_time_zone_of_the_source(
        self, make: Callable[..., Scan], out: Path
    ) -> None:
        scan = make(volume(), TimezoneOffsetFromUTC="-0930", AcquisitionDate="20200102", AcquisitionTime="101112")
        dataset = write(out, scan.stored, scan)[0]
        for keyword in ("InstanceCreation", "Series", "Content"):
            made = datetime.strptime(
                dataset[f"{keyword}Date"].value + dataset[f"{keyword}Time"].value + "-0930", "%Y%m%d%H%M%S.%f%z"
            )
            assert abs(datetime.now(timezone.utc) - made) < timedelta(minutes=5)
        assert (dataset.AcquisitionDate, dataset.AcquisitionTime) == ("20200102", "101112")


class TestMarks:
    """It cannot pass for an original."""

    def test_says_that_it_is_derived_synthetic_and_for_research(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        for dataset in write(out, scan.stored, scan):
            assert dataset.ImageType == ["DERIVED", "SECONDARY", "OTHER"]
            assert dataset.SyntheticData == "YES"
            assert dataset.ContentQualification == "RESEARCH"
            assert dataset.SeriesDescription == DESCRIPTION
            for said in (__version__, "gvs", "1.2.0", WEIGHTS, PROVENANCE["ConfigSha256"], "NOT FOR DIAGNOSIS"):
                assert said in dataset.DerivationDescription

    def test_names_its_source_image_and_how_it_was_derived(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        for difference, code in ((False, "113042"), (True, "113062")):
            for after, before in zip(write(out, scan.stored, scan, difference), templates(scan), strict=True):
                (source,) = after.SourceImageSequence
                assert source.ReferencedSOPInstanceUID == before.SOPInstanceUID
                assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
                assert [item.CodeValue for item in after.DerivationCodeSequence] == [code]
                (series,) = after.ReferencedSeriesSequence
                assert series.SeriesInstanceUID == before.SeriesInstanceUID
                assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID

    def test_names_the_scanner_and_itself_as_equipment(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume(), ManufacturerModelName="Scanner 3", StationName="ROOM1")
        dataset = write(out, scan.stored, scan)[0]
        scanner, processor = dataset.ContributingEquipmentSequence
        assert (scanner.Manufacturer, scanner.ManufacturerModelName, scanner.StationName) == (
            "Nobody",
            "Scanner 3",
            "ROOM1",
        )
        assert scanner.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Acquisition Equipment"
        assert (processor.Manufacturer, processor.ManufacturerModelName) == ("phs-pipeline", "gvs")
        assert processor.SoftwareVersions == [__version__, "bundle 1.2.0"]
        assert processor.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert dataset.Manufacturer == "phs-pipeline"
        assert dataset.DeviceSerialNumber == WEIGHTS
        assert "StationName" not in dataset

    def test_a_derived_source_names_no_acquisition_equipment(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume(), ImageType=["DERIVED", "SECONDARY"])
        maker, _ = write(out, scan.stored, scan)[0].ContributingEquipmentSequence
        assert maker.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"

    def test_texts_are_cut_and_cleaned_of_what_dicom_forbids(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        provenance = PROVENANCE | {"Bundle": "my\\b\u00fcndle\n" + 80 * "x"}
        (file, *_) = write_dicom(out, scan.stored, scan, 80 * "d", provenance)
        dataset = pydicom.dcmread(file)
        assert dataset.SeriesDescription == 64 * "d"
        assert dataset.ManufacturerModelName.startswith("my b?ndle x")
        assert len(dataset.ManufacturerModelName) == 64


class TestLeftOut:
    @pytest.fixture
    def burdened(self, make: Callable[..., Scan]) -> Scan:
        scan = make(volume(), SOPInstanceStatus="OR", InstanceCreatorUID="1.2.3", LargestImagePixelValue=7)

        def burden(dataset: Dataset) -> None:
            private: PrivateBlock = dataset.private_block(0x0029, "VENDOR", create=True)
            private.add_new(0x10, "LO", "vendor's secret")
            item = Dataset()
            item.CodeMeaning = "nested"
            item.private_block(0x0029, "VENDOR", create=True).add_new(0x10, "LO", "nested secret")
            dataset.AnatomicRegionSequence = [item]
            dataset.add_new(0x60000010, "US", 10)
            dataset.add_new(0x60003000, "OW", bytes(16))
            dataset.add_new(0x50000020, "CS", "ECG")
            dataset.add_new(0x00880200, "SQ", [item])
            dataset.add_new(0x04000500, "SQ", [item])
            dataset.add_new(0xFFFAFFFA, "SQ", [item])
            dataset.add_new(0xFFFCFFFC, "OB", bytes(8))

        edit(scan, burden)
        return scan

    def test_private_attributes_overlays_icons_signatures_and_claims_of_the_source(
        self, burdened: Scan, out: Path
    ) -> None:
        (file, *_) = write_dicom(out, burdened.stored, burdened, DESCRIPTION, PROVENANCE)
        assert b"secret" not in file.read_bytes()
        dataset = pydicom.dcmread(file)
        assert dataset.AnatomicRegionSequence[0].CodeMeaning == "nested"
        groups = {element.tag.group for element in dataset.iterall()}
        assert not groups & {0x0029, 0x5000, 0x6000, 0x0088, 0x0400, 0xFFFA, 0xFFFC}
        for keyword in ("SOPInstanceStatus", "InstanceCreatorUID", "LargestImagePixelValue"):
            assert keyword not in dataset

    def test_what_is_lossy_stays_lossy(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume(), LossyImageCompression="01", LossyImageCompressionRatio="12")
        dataset = write(out, scan.stored, scan)[0]
        assert (dataset.LossyImageCompression, dataset.LossyImageCompressionRatio) == ("01", 12)

    def test_a_lossy_source_that_does_not_say_so_is_called_lossy(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume("uint8", 255))
        assert scan.dicom is not None
        for place in scan.dicom.slices:  # only the header is read again
            dataset = pydicom.dcmread(place.file)
            dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
            dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
            dataset["PixelData"].is_undefined_length = True
            dataset.save_as(place.file)
        assert write(out, scan.stored, scan)[0].LossyImageCompression == "01"


class TestValues:
    @pytest.mark.parametrize("modality", ["MR", "CT"])
    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32"])
    def test_all_stored_values_return_in_the_type_of_the_source(
        self, dtype: str, modality: str, make: Callable[..., Scan], out: Path
    ) -> None:
        limits = np.iinfo(dtype)
        stored = np.linspace(limits.min, limits.max, np.prod(SHAPE)).astype(dtype).reshape(SHAPE)
        scan = make(stored, modality=modality)
        written = write(out, stored, scan)
        for k, (after, before) in enumerate(zip(written, templates(scan), strict=True)):
            assert after.pixel_array.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(after.pixel_array.T, stored[:, :, k])
            for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
                assert after[keyword].value == before[keyword].value
        assert written[0].file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"

    def test_values_beyond_the_bits_of_the_source_widen_them_in_all_slices(
        self, make: Callable[..., Scan], out: Path
    ) -> None:
        scan = make(volume("uint16"), BitsStored=12, HighBit=11)
        brighter = scan.stored.copy()
        brighter[0, 0, 0] = 5000
        written = write(out, brighter, scan)
        assert {(dataset.BitsStored, dataset.HighBit) for dataset in written} == {(16, 15)}
        assert written[0].pixel_array[0, 0] == 5000

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_differences_are_signed(self, dtype: str, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume(dtype, 200))
        change = (scan.stored.astype(np.int16) - 100) * 2
        dataset = write(out, change, scan, difference=True)[2]
        assert (dataset.BitsAllocated, dataset.PixelRepresentation) == (16, 1)
        np.testing.assert_array_equal(dataset.pixel_array.T, change[:, :, 2])

    @pytest.mark.parametrize(("low", "high", "lost"), [(-10, 60000, 0), (-60000, 65535, 1), (-65535, 65535, 1)])
    def test_differences_beyond_16_bits_are_shifted_or_rounded_and_zero_stays_zero(
        self, low: int, high: int, lost: int, make: Callable[..., Scan], out: Path
    ) -> None:
        scan = make(volume("uint16"), RescaleSlope="0.5", RescaleIntercept="-7", slope=0.5, intercept=-7.0)
        change = np.random.default_rng(1).integers(low, high, SHAPE, endpoint=True).astype(np.int32)
        change[0, 0, :3] = low, 0, high
        written = write(out, change, scan, difference=True)
        assert {dataset.BitsAllocated for dataset in written} == {16}
        found = np.stack([intensities(dataset).T for dataset in written], axis=-1)
        assert np.abs(found - 0.5 * change).max() == pytest.approx(0.5 * lost, abs=1e-9)
        assert (found[change == 0] == 0).all()

    def test_a_ct_difference_has_no_intercept(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume(), modality="CT", RescaleSlope="2", RescaleIntercept="-1024", slope=2.0, intercept=-1024.0)
        twin = write(out, scan.stored, scan)[0]
        assert (twin.RescaleSlope, twin.RescaleIntercept, twin.RescaleType) == (2, -1024, "HU")
        anomaly = write(out, scan.stored, scan, difference=True)[0]
        assert (anomaly.RescaleSlope, anomaly.RescaleIntercept, anomaly.RescaleType) == (2, 0, "HU")

    def test_mr_without_a_rescale_gets_none(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        for difference in (False, True):
            assert "RescaleSlope" not in write(out, scan.stored, scan, difference)[0]

    def test_slices_that_differ_in_their_rescale_keep_it_and_untouched_voxels_their_stored_value(
        self, make: Callable[..., Scan], out: Path
    ) -> None:
        stored = volume("uint16", 4096)
        slopes = np.array([0.37, 1.21, 0.055, 2.0, 7.3])
        seen = (stored * slopes + 11.0).astype(np.float32)
        scan = make(
            stored, seen=seen, RescaleSlope=lambda k: str(slopes[k]), RescaleIntercept="11", BitsStored=12, HighBit=11
        )
        twin = seen.copy()
        twin[3, 4, :] -= 20
        written = write(out, twin, scan)
        anomaly = write(out.with_name("anomaly"), seen - twin, scan, difference=True)
        for k, (after, difference) in enumerate(zip(written, anomaly, strict=True)):
            untouched = np.ones(SHAPE[:2], bool)
            untouched[3, 4] = False
            np.testing.assert_array_equal(after.pixel_array.T[untouched], stored[:, :, k][untouched])
            assert after.RescaleSlope == slopes[k]
            assert abs(intensities(after)[4, 3] - twin[3, 4, k]) <= slopes[k] / 2 + 1e-3
            assert abs(intensities(difference)[4, 3] - 20) <= slopes[k] / 2 + 1e-3
            assert (intensities(difference).T[untouched] == 0).all()

    def test_padding_keeps_its_meaning_or_goes(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume(), PixelPaddingValue=-2000)
        assert write(out, scan.stored, scan)[0].PixelPaddingValue == -2000
        assert "PixelPaddingValue" not in write(out, scan.stored, scan, difference=True)[0]


class TestWindow:
    def test_is_found_anew_and_shows_the_twin(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume(), WindowCenter=["1", "2"], WindowWidth=["3", "4"], VOILUTFunction="SIGMOID")
        written = write(out, scan.stored, scan)
        low, high = np.percentile(scan.stored.astype(float), (0.5, 99.5))
        assert {(float(dataset.WindowCenter), float(dataset.WindowWidth)) for dataset in written} == {
            ((low + high) / 2, high - low)
        }
        assert "VOILUTFunction" not in written[0]

    def test_of_a_difference_has_zero_in_the_middle(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        change = np.zeros(SHAPE, np.int16)
        change[0, 0, 0] = -300
        dataset = write(out, change, scan, difference=True)[0]
        assert (dataset.WindowCenter, dataset.WindowWidth) == (0, 600)

    def test_no_difference_has_a_window_too(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        dataset = write(out, np.zeros(SHAPE, np.int16), scan, difference=True)[0]
        assert dataset.WindowWidth == 1

    def test_narrower_than_one_is_called_exact(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume(), slope=1e-4, RescaleSlope="0.0001", RescaleIntercept="0")
        dataset = write(out, scan.stored, scan)[0]
        assert dataset.WindowWidth < 1
        assert dataset.VOILUTFunction == "LINEAR_EXACT"

    def test_in_hounsfield_units_stays_as_it_was_set(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume(), modality="CT", WindowCenter="40", WindowWidth="80")
        dataset = write(out, scan.stored, scan)[0]
        assert (dataset.WindowCenter, dataset.WindowWidth) == (40, 80)
        assert write(out, scan.stored, scan, difference=True)[0].WindowCenter == 0


class TestMultiframe:
    @pytest.mark.parametrize("modality", ["MR", "CT"])
    def test_gives_one_file_with_the_frames_in_order_of_position(
        self, modality: str, make: Callable[..., Scan], out: Path
    ) -> None:
        scan = make(volume(), modality=modality, multiframe=True, RescaleSlope="1", RescaleIntercept="-1024")
        (dataset,) = write(out, scan.stored, scan)
        (before,) = {dataset.SOPInstanceUID: dataset for dataset in templates(scan)}.values()
        assert dataset.NumberOfFrames == SHAPE[2]
        np.testing.assert_array_equal(dataset.pixel_array, scan.stored.transpose(2, 1, 0))
        assert dataset.ImageType == ["DERIVED", "PRIMARY", "AXIAL", "ADDITION"]
        heights = []
        for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            (source,) = group.DerivationImageSequence[0].SourceImageSequence
            assert source.ReferencedSOPInstanceUID == before.SOPInstanceUID
            of_source = before.PerFrameFunctionalGroupsSequence[source.ReferencedFrameNumber - 1]
            assert of_source.PlanePositionSequence == group.PlanePositionSequence
            np.testing.assert_array_equal(before.pixel_array[source.ReferencedFrameNumber - 1].T, scan.stored[:, :, k])
            assert group.PixelValueTransformationSequence[0].RescaleIntercept == -1024
            heights.append(group.PlanePositionSequence[0].ImagePositionPatient[2])
        assert heights == sorted(heights)
        (study,) = dataset.SourceImageEvidenceSequence
        assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == before.SeriesInstanceUID
        assert "FrameVOILUTSequence" in dataset.SharedFunctionalGroupsSequence[0]

    def test_a_difference_has_its_rescale_in_each_frame(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume(), multiframe=True, RescaleSlope="2", RescaleIntercept="-1024")
        (dataset,) = write(out, scan.stored, scan, difference=True)
        assert dataset.ImageType[3] == "SUBTRACTION"
        for group in dataset.PerFrameFunctionalGroupsSequence:
            (rescale,) = group.PixelValueTransformationSequence
            assert (rescale.RescaleSlope, rescale.RescaleIntercept) == (2, 0)


class TestFolder:
    def test_a_series_of_ours_is_replaced(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        write(out, scan.stored, scan)
        less = make_shorter(scan)
        assert len(write(out, less.stored, less)) == len(list(out.iterdir())) == 3

    @pytest.mark.parametrize("name", ["IM_0001.dcm", "notes.txt"])
    def test_anything_else_is_left_alone(self, name: str, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        assert scan.dicom is not None
        out.mkdir(parents=True)
        shutil.copy(scan.dicom.slices[0].file, out / name)
        before = (out / name).read_bytes()
        with pytest.raises(OutputError, match=f"holds {name}, expected nothing but a DICOM series of ours"):
            write(out, scan.stored, scan)
        assert (out / name).read_bytes() == before
        assert [path.name for path in out.parent.iterdir()] == [out.name]

    def test_nothing_is_left_of_a_series_that_cannot_be_finished(
        self, make: Callable[..., Scan], out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scan = make(volume())
        saved = iter([None, None])

        def save(self: Dataset, path: Path, **_: Any) -> None:
            Path(path).write_bytes(b"")
            next(saved, OSError(28, "No space left on device"))
            if not list(saved):
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(Dataset, "save_as", save)
        with pytest.raises(OutputError, match="no space is left"):
            write(out, scan.stored, scan)
        assert not list(out.parent.iterdir())

    def test_a_scan_that_is_no_dicom_is_refused(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        plain = Scan(scan.stored, 1.0, 0.0, scan.header, scan.origin)
        with pytest.raises(ScanError, match="found no DICOM series"):
            write(out, plain.stored, plain)

    def test_a_source_that_is_gone_is_refused(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume())
        shutil.rmtree(scan.origin)
        with pytest.raises(ScanError, match=r"cannot be read again \(No such file or directory\)"):
            write(out, scan.stored, scan)

    def test_a_broken_attribute_is_refused_without_its_value(self, make: Callable[..., Scan], out: Path) -> None:
        scan = make(volume(), PatientWeight="70")
        assert scan.dicom is not None
        for place in scan.dicom.slices:
            content = place.file.read_bytes()
            place.file.write_bytes(content.replace(b"\x10\x00\x30\x10DS\x02\x0070", b"\x10\x00\x30\x10FD\x02\x0070"))
        with pytest.raises(ScanError, match="found attributes that cannot be written again") as refusal:
            write(out, scan.stored, scan)
        assert "70" not in str(refusal.value).replace(str(scan.origin), "")
        assert not out.parent.exists() or not list(out.parent.iterdir())


def make_shorter(scan: Scan) -> Scan:
    """The first three slices."""
    assert scan.dicom is not None
    header = scan.header.copy()
    header.set_data_shape((*SHAPE[:2], 3))
    series = replace(scan.dicom, slices=scan.dicom.slices[:3])
    return replace(scan, stored=scan.stored[:, :, :3], header=header, dicom=series)


def converted(folder: Path, name: str) -> nib.Nifti1Image:
    """What dcm2niix makes of a series."""
    (folder.parent / name).mkdir()
    subprocess.run(
        ["dcm2niix", "-z", "n", "-f", "scan", "-o", folder.parent / name, folder], check=True, capture_output=True
    )
    (image,) = (folder.parent / name).glob("*.nii")
    return nib.load(image)


class TestOtherPrograms:
    @pytest.fixture(params=["MR", "CT", "enhanced MR", "enhanced CT"])
    def scan(self, request: pytest.FixtureRequest, make: Callable[..., Scan]) -> Scan:
        enhanced = "enhanced" in request.param
        modality = request.param[-2:]
        # dcm2niix turns three-dimensional acquisitions to the patient's axes.
        kind = {"MRAcquisitionType": "2D"} if modality == "MR" else {}
        return make(volume(), modality=modality, multiframe=enhanced, **kind)

    @pytest.fixture
    def twin(self, scan: Scan) -> NDArray[Any]:
        twin: NDArray[Any] = scan.stored.copy()
        twin[4:8, 4:8, 1:4] //= 2
        return twin

    @pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian's dicom3tools) is not installed")
    def test_dciodvfy_finds_no_error_that_the_source_does_not_have(
        self, scan: Scan, twin: NDArray[Any], out: Path, complaints: Complaints
    ) -> None:
        assert scan.dicom is not None
        known = complaints(scan.dicom.slices[0].file, ALLOWED)
        for difference in (False, True):
            for file in write_dicom(out, twin, scan, DESCRIPTION, PROVENANCE, difference):
                assert complaints(file, ALLOWED) <= known

    @pytest.mark.skipif(not shutil.which("dcm2niix"), reason="dcm2niix is not installed")
    def test_dcm2niix_puts_it_exactly_on_the_source(self, scan: Scan, twin: NDArray[Any], out: Path) -> None:
        write(out, twin, scan)
        before, after = converted(scan.origin, "before"), converted(out, "after")
        assert after.shape == before.shape
        # It measures the distance of slices from the end where instance numbers begin; the source's begin at the top.
        np.testing.assert_allclose(after.affine, before.affine, rtol=0, atol=1e-5)
        changed = np.asarray(after.dataobj) - np.asarray(before.dataobj)
        # dcm2niix counts rows from below.
        np.testing.assert_array_equal(changed, (twin - scan.stored)[:, ::-1])

    def test_itk_reads_the_same_grid_and_the_new_values(self, scan: Scan, twin: NDArray[Any], out: Path) -> None:
        assert scan.dicom is not None
        files = write_dicom(out, twin, scan, DESCRIPTION, PROVENANCE)
        after = sitk.ReadImage([str(file) for file in files] if len(files) > 1 else str(files[0]))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(after), twin.transpose(2, 1, 0))
        if len(files) > 1:  # ITK takes the frames of the source in the order in which they are stored
            before = sitk.ReadImage([str(place.file) for place in scan.dicom.slices])
            for grid in ("GetOrigin", "GetSpacing", "GetDirection"):
                assert getattr(after, grid)() == getattr(before, grid)()


@pytest.fixture(scope="module")
def real_series(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scan, Any, Path]:
    """The oblique T1 series of ../shared/data, a made-up twin of it, and the twin's series."""
    folder = shared_data / "dicom_t1"
    (found,) = find_series(sorted(folder.glob("*.dcm")))
    scan = read_series(found, folder)
    twin = scan.stored.copy()
    twin[100:150, 150:200, 10:30] //= 2
    out = tmp_path_factory.mktemp("real") / "twin"
    write_dicom(out, twin, scan, DESCRIPTION, PROVENANCE)
    return scan, twin, out


@pytest.mark.data
class TestRealSeries:
    @pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian's dicom3tools) is not installed")
    def test_dciodvfy_finds_no_error_that_the_source_does_not_have(
        self, real_series: tuple[Scan, Any, Path], complaints: Complaints
    ) -> None:
        scan, _, out = real_series
        assert scan.dicom is not None
        files = sorted(out.iterdir())
        assert len(files) == len(scan.dicom.slices) == 40
        for file, place in zip(files[::13], scan.dicom.slices[::13], strict=True):
            assert complaints(file, ALLOWED) <= complaints(place.file, ALLOWED)

    @pytest.mark.skipif(not shutil.which("dcm2niix"), reason="dcm2niix is not installed")
    def test_dcm2niix_puts_it_exactly_on_the_source(self, real_series: tuple[Scan, Any, Path], tmp_path: Path) -> None:
        scan, twin, out = real_series
        shutil.copytree(scan.origin, tmp_path / "source")
        before, after = converted(tmp_path / "source", "before"), converted(out, "after")
        assert after.shape == before.shape == (274, 384, 40)
        np.testing.assert_array_equal(after.affine, before.affine)
        changed = np.asarray(after.dataobj) - np.asarray(before.dataobj)
        np.testing.assert_array_equal(changed, (twin - scan.stored)[:, ::-1])


class TestTextAsItCame:
    """A name whose bytes are not of the character set that its file names: the new series has the same bytes."""

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    @pytest.mark.parametrize(
        ("charset", "raw"),
        [
            ("ISO_IR 192", "Müller^Zoë".encode("latin-1")),
            ("ISO_IR 192", "Müller^Zoë".encode()),
            ("ISO_IR 100", "Müller^Zoë".encode("latin-1")),
            ("GB18030", b"\xff\xffM^\x80Z"),
        ],
    )
    def test_in_a_name_and_a_text(
        self, charset: str, raw: bytes, syntax: str, make: Callable[..., Scan], out: Path
    ) -> None:
        scan = make(volume(), SpecificCharacterSet=charset, PatientName="Q" * len(raw), StudyDescription="W" * len(raw))
        edit(scan, lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", syntax))
        assert scan.dicom is not None
        for place in scan.dicom.slices:
            content = place.file.read_bytes()
            place.file.write_bytes(content.replace(b"Q" * len(raw), raw).replace(b"W" * len(raw), raw))
        for file in (
            *write_dicom(out, scan.stored, scan, DESCRIPTION, PROVENANCE),
            *write_dicom_segmentation(out.with_name("mask"), scan.stored > 9, scan, DESCRIPTION, PROVENANCE),
        ):
            assert file.read_bytes().count(raw) == 2
