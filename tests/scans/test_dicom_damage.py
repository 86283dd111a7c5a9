"""Series that are not whole: what is refused in the middle is refused at an end, by name; nothing is lost unsaid.

Each case changes some slices of a good series of twelve; what comes out is all twelve, or a refusal that says why.
"""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from pipeline.errors import ScanError, UsageError
from pipeline.scans import Scan
from pipeline.scans.dicom import find_series, read_series
from pipeline.scans.sources import open_sources

pytestmark = pytest.mark.slow

SLICES = 12
VOLUME: NDArray[np.int16] = np.random.default_rng(0).integers(0, 200, (12, 10, SLICES)).astype(np.int16)
Change = Callable[[pydicom.Dataset], None]
Writer = Callable[..., list[Path]]

LAST, FIRST, ENDS, HALF, MIDDLE, EVERY_OTHER = [11], [0], [0, 11], range(6), [5], range(0, 12, 2)


def bytes_of_8_bits(dataset: pydicom.Dataset) -> None:
    pixels = dataset.pixel_array.astype(np.uint8).tobytes()
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.add_new("PixelData", "OB", pixels)


def colours(dataset: pydicom.Dataset) -> None:
    bytes_of_8_bits(dataset)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = dataset.PixelData * 3


def smaller(dataset: pydicom.Dataset) -> None:
    dataset.PixelData = dataset.pixel_array[:8].tobytes()
    dataset.Rows = 8


def turned(dataset: pydicom.Dataset) -> None:
    row, column = np.reshape(dataset.ImageOrientationPatient, (2, 3)).astype(float)
    dataset.ImageOrientationPatient = [f"{value:.6f}" for value in (*column, *row)]


def tilted(degrees: float) -> Change:
    def tilt(dataset: pydicom.Dataset) -> None:
        row, column = np.reshape(dataset.ImageOrientationPatient, (2, 3)).astype(float)
        angle = np.deg2rad(degrees)
        column = column * np.cos(angle) + np.cross(row, column) * np.sin(angle)
        dataset.ImageOrientationPatient = [f"{value:.8f}" for value in (*row, *column)]

    return tilt


def value(**attributes: Any) -> Change:
    def change(dataset: pydicom.Dataset) -> None:
        for keyword, of_slice in attributes.items():
            if of_slice is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, of_slice)

    return change


def moved(mm: float) -> Change:
    def move(dataset: pydicom.Dataset) -> None:
        row, column = np.reshape(dataset.ImageOrientationPatient, (2, 3)).astype(float)
        position = np.array(dataset.ImagePositionPatient, float) + mm * np.cross(row, column)
        dataset.ImagePositionPatient = [f"{number:.6f}" for number in position]

    return move


REFUSED: dict[str, tuple[Change, Any, str]] = {
    "8 bits, last": (bytes_of_8_bits, LAST, "bits or sign"),
    "8 bits, first": (bytes_of_8_bits, FIRST, "bits or sign"),
    "8 bits, both ends": (bytes_of_8_bits, ENDS, "bits or sign"),
    "8 bits, half": (bytes_of_8_bits, HALF, "bits or sign"),
    "8 bits, every other": (bytes_of_8_bits, EVERY_OTHER, "bits or sign"),
    "8 bits, in the middle": (bytes_of_8_bits, MIDDLE, "bits or sign"),
    "another sign, last": (value(PixelRepresentation=0), LAST, "bits or sign"),
    "another sign, half": (value(PixelRepresentation=0), HALF, "bits or sign"),
    "another sign, last three": (value(PixelRepresentation=0), [9, 10, 11], "bits or sign"),
    "no position, last": (value(ImagePositionPatient=None), LAST, "no ImagePositionPatient"),
    "no position, both ends": (value(ImagePositionPatient=None), ENDS, "no ImagePositionPatient"),
    "no orientation, last": (value(ImageOrientationPatient=None), LAST, "no ImageOrientationPatient"),
    "no spacing, half": (value(PixelSpacing=None), HALF, "no PixelSpacing"),
    "empty spacing, last": (value(PixelSpacing=""), LAST, "no PixelSpacing"),
    "spacing off by 0.002, last": (value(PixelSpacing=["1.102", "0.902"]), LAST, "pixel spacing"),
    "spacing of one axis off, last": (value(PixelSpacing=["1.1", "0.95"]), LAST, "pixel spacing"),
    "spacing twice as large, half": (value(PixelSpacing=["2.2", "1.8"]), HALF, "pixel spacing"),
    "tilted by 0.1 degrees, last": (tilted(0.1), LAST, "orientation"),
    "tilted by 2 degrees, last": (tilted(2), LAST, "orientation"),
    "tilted by 80 degrees where the next slice should lie": (tilted(80), LAST, "orientation"),
    "tilted by 10 degrees, in the middle": (tilted(10), MIDDLE, "orientation"),
    "tilted by 10 degrees, last two": (tilted(10), [10, 11], "orientation"),
    "rows for columns, last": (turned, LAST, "orientation"),
    "fewer rows, last": (smaller, LAST, "size"),
    "fewer rows, half": (smaller, HALF, "size"),
    "colour, last": (colours, LAST, "colour"),
    "colour, both ends": (colours, ENDS, "colour"),
    "inverted, last": (value(PhotometricInterpretation="MONOCHROME1"), LAST, "MONOCHROME1"),
    "synthetic, last": (value(SyntheticData="YES"), LAST, "Synthetic Data"),
    "a mosaic, last": (value(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), LAST, "mosaics"),
    "no bits, last": (value(BitsStored=0, HighBit=None), LAST, "0 bits"),
    "no rescale, last": (value(RescaleSlope="0", RescaleIntercept="0"), LAST, "rescale slope of 0"),
    "no series, last": (value(SeriesInstanceUID=None), LAST, "without a Series Instance UID"),
    "a series of its own, last": (value(SeriesInstanceUID="2.25.99"), LAST, "2 Series Instance UIDs"),
    "a series of its own, in the middle": (value(SeriesInstanceUID="2.25.99"), MIDDLE, "2 Series Instance UIDs"),
    "a series and number of its own, last": (value(SeriesInstanceUID="2.25.99", SeriesNumber=99), LAST, "2 Series"),
    "a series of their own, every other": (value(SeriesInstanceUID="2.25.99"), EVERY_OTHER, "2 Series"),
    "a series of their own, half": (value(SeriesInstanceUID="2.25.99"), HALF, "2 Series"),
    "a series and number of their own, last two": (
        value(SeriesInstanceUID="2.25.99", SeriesNumber=99),
        [10, 11],
        "2 Series",
    ),
    "another modality, last": (value(Modality="CT"), LAST, "modalities CT and MR"),
    "called a segmentation, last": (value(Modality="SEG"), LAST, "no intensities"),
    "another person, last": (value(PatientID="other"), LAST, "2 different PatientID"),
    "no space, last": (value(FrameOfReferenceUID=None), LAST, "2 different FrameOfReferenceUID"),
    "on the place of another, last": (moved(-3), LAST, "place of another"),
    "a gap before the last": (moved(0.5), LAST, "steps of"),
    "many frames, last": (value(NumberOfFrames=2, Rows=5), LAST, "many frames|size"),
}


@pytest.fixture
def series(dicom_series: Writer, tmp_path: Path) -> Callable[..., Path]:
    """A folder of slices called IM0000, … by position, some of them changed; the names end with `ending`."""

    def write(change: Change, which: Any, ending: str = "") -> Path:
        folder = tmp_path / "series"
        for k, file in enumerate(dicom_series(folder, VOLUME)):
            if k in which:
                dataset = pydicom.dcmread(file)
                change(dataset)
                dataset.save_as(file)
            file.rename(folder / f"IM{k:04d}{ending}")
        return folder

    return write


def read(folder: Path) -> Scan:
    with open_sources([folder]) as (source,):
        return source.read()


def nothing(_: pydicom.Dataset) -> None:
    """Leave it as it is."""


class TestSlicesUnlikeTheOthers:
    @pytest.mark.parametrize("case", REFUSED)
    def test_refuse_the_series_with_the_reason(self, case: str, series: Callable[..., Path]) -> None:
        change, which, reason = REFUSED[case]
        folder = series(change, which)
        with pytest.raises((ScanError, UsageError), match=f"found .*({reason}).*expected"):
            read(folder)

    @pytest.mark.parametrize("case", REFUSED)
    def test_give_no_scan_in_a_folder_of_others(self, case: str, series: Callable[..., Path]) -> None:
        change, which, _ = REFUSED[case]
        folder = series(change, which)
        with open_sources([folder.parent]) as sources:
            for source in sources:
                with pytest.raises(ScanError):
                    source.read()
                with pytest.raises(ScanError):
                    source.sha256()  # what `verify --source` compares

    def test_are_named(self, series: Callable[..., Path]) -> None:
        with pytest.raises(ScanError, match=r"\(IM0000, IM0001, IM0002 and 3 more\)"):
            read(series(bytes_of_8_bits, HALF))
        with pytest.raises(ScanError, match=r"\(in IM0011\)"):
            read(series(value(ImagePositionPatient=None), LAST))

    @pytest.mark.parametrize("number", [3, SLICES])
    def test_a_series_instance_uid_for_each_slice_is_the_reason_given(
        self, number: int, series: Callable[..., Path]
    ) -> None:
        def own(dataset: pydicom.Dataset) -> None:
            dataset.SeriesInstanceUID = generate_uid()

        with pytest.raises(ScanError, match=r"found \d+ Series Instance UIDs in one stack of 12 slices, expected one"):
            read(series(own, range(SLICES - number, SLICES) if number < SLICES else range(SLICES)))

    def test_two_acquisitions_that_follow_each_other_unevenly_are_no_two_volumes(
        self, dicom_series: Writer, tmp_path: Path
    ) -> None:
        files = dicom_series(tmp_path, VOLUME, AcquisitionNumber=lambda k: 1 + (k > 5))
        for file in files[6:]:
            dataset = pydicom.dcmread(file)
            moved(1.0)(dataset)
            dataset.save_as(file)
        (found,) = find_series(files)
        assert found.problem is not None


class TestFilesThatCannotBeSlices:
    @pytest.mark.parametrize("ending", ["", ".dcm", ".ima", ".001"])
    @pytest.mark.parametrize(
        "content", [b"", b"\0" * 5000, b"<html>", b"DICM"], ids=["empty", "zeros", "html", "short"]
    )
    @pytest.mark.parametrize("k", [0, 5, 11])
    def test_called_like_the_slices_refuse_the_series(
        self, k: int, content: bytes, ending: str, series: Callable[..., Path]
    ) -> None:
        folder = series(nothing, [], ending)
        (folder / f"IM{k:04d}{ending}").write_bytes(content)
        with pytest.raises((ScanError, UsageError), match=f"found the damaged file IM{k:04d}{ending}"):
            read(folder)

    @pytest.mark.parametrize("k", [0, 5, 11])
    @pytest.mark.parametrize("make", [lambda file: file.symlink_to("nowhere"), os.mkfifo], ids=["link", "pipe"])
    def test_links_to_nothing_and_pipes_among_slices_refuse_the_series(
        self, k: int, make: Callable[[Path], None], series: Callable[..., Path]
    ) -> None:
        folder = series(nothing, [])
        file = folder / f"IM{k:04d}"
        file.unlink()
        make(file)
        with pytest.raises(
            (ScanError, UsageError), match=rf"found the damaged file IM{k:04d} \(a broken link, or a pipe"
        ):
            read(folder)

    @pytest.mark.parametrize("more", [".part", ".crdownload", ".tmp"])
    def test_half_copied_ones_refuse_the_series(self, more: str, series: Callable[..., Path]) -> None:
        folder = series(nothing, [], ".dcm")
        (folder / "IM0011.dcm").rename(folder / f"IM0011.dcm{more}")
        np.testing.assert_array_equal(read(folder).stored, VOLUME)
        (folder / f"IM0011.dcm{more}").write_bytes(b"")
        with pytest.raises((ScanError, UsageError), match=f"found the damaged file IM0011.dcm{more}"):
            read(folder)

    def test_a_damaged_index_of_a_disc_is_passed_over(self, series: Callable[..., Path]) -> None:
        folder = series(nothing, [])
        (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM\0\0")
        np.testing.assert_array_equal(read(folder).stored, VOLUME)

    def test_packed_alone_are_named_so(self, series: Callable[..., Path]) -> None:
        folder = series(nothing, [])
        last = folder / "IM0011"
        (folder / "IM0011.gz").write_bytes(gzip.compress(last.read_bytes()))
        last.unlink()
        with pytest.raises((ScanError, UsageError), match=r"found the packed file IM0011.gz, expected plain DICOM"):
            read(folder)

    @pytest.mark.parametrize("length", [0, 100, 140, 600, 1000])
    def test_truncated_anywhere_refuse_the_series(self, length: int, series: Callable[..., Path]) -> None:
        folder = series(nothing, [])
        last = folder / "IM0011"
        last.write_bytes(last.read_bytes()[:length])
        with pytest.raises((ScanError, UsageError), match="IM0011"):
            read(folder)

    @pytest.mark.parametrize("name", ["README", "notes.txt", "Thumbs.db", "index.html", "LICENSE"])
    def test_of_other_names_are_passed_over(self, name: str, series: Callable[..., Path]) -> None:
        folder = series(nothing, [])
        (folder / name).write_bytes(b"\0hello")
        np.testing.assert_array_equal(read(folder).stored, VOLUME)

    def test_screenshots_and_images_at_the_places_of_slices_are_passed_over(
        self, dicom_series: Writer, tmp_path: Path
    ) -> None:
        files = dicom_series(tmp_path, VOLUME, SeriesInstanceUID="2.25.7")
        (shot, over) = dicom_series(tmp_path, VOLUME[:, :, :2], SeriesInstanceUID="2.25.7", ImagePositionPatient=None)
        for file, change in (
            (shot, value(SOPClassUID=SecondaryCaptureImageStorage)),
            (over, value(ImagePositionPatient=pydicom.dcmread(files[3]).ImagePositionPatient)),
        ):
            dataset = pydicom.dcmread(file)
            change(dataset)
            colours(dataset)
            dataset.save_as(file)
        volumes = [found for found in find_series([*files, shot, over]) if found.is_scan]
        assert [(found.shape, found.problem) for found in volumes] == [((12, 10, SLICES), None)]

    def test_a_localizer_with_a_parallel_plane_is_passed_over(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, VOLUME, affine=np.diag([-0.9, -1.1, 3.0, 1.0]), SeriesInstanceUID="2.25.7")
        for axes in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
            affine = np.diag([3.0, 3.0, 3.0, 1.0])[:, [*axes, 3]]
            files += dicom_series(tmp_path, VOLUME[:, :, :1], affine=affine, SeriesInstanceUID="2.25.7")
        volumes = [found for found in find_series(files) if found.is_scan]
        assert [(found.shape, found.problem) for found in volumes] == [((12, 10, SLICES), None)]

    def test_stations_that_follow_each_other_are_two(self, series: Callable[..., Path]) -> None:
        folder = series(value(SeriesInstanceUID="2.25.99", SeriesNumber=99), HALF)
        assert [found.problem for found in find_series(sorted(folder.iterdir()))] == [None, None]

    def test_two_complete_volumes_of_one_place_are_two(self, dicom_series: Writer, tmp_path: Path) -> None:
        files = dicom_series(tmp_path, VOLUME, SeriesInstanceUID="2.25.7")
        files += dicom_series(tmp_path, VOLUME.astype(np.uint8), SeriesInstanceUID="2.25.7")
        assert [found.problem for found in find_series(files)] == [None, None]


class TestWithoutPreamble:
    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
    @pytest.mark.parametrize("which", [LAST, MIDDLE, range(SLICES)])
    @pytest.mark.parametrize("ending", ["", ".dcm"])
    def test_nor_meta_header_slices_are_read(
        self, syntax: str, which: Any, ending: str, series: Callable[..., Path]
    ) -> None:
        folder = series(nothing, [], ending)
        for k in which:
            file = folder / f"IM{k:04d}{ending}"
            dataset = pydicom.dcmread(file)
            dataset.decode()
            if syntax == ExplicitVRBigEndian:
                dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
            bare = pydicom.Dataset(dataset)
            implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
            pydicom.dcmwrite(file, bare, implicit_vr=implicit, little_endian=little, force_encoding=True)
            assert file.read_bytes()[128:132] != b"DICM"
        np.testing.assert_array_equal(read(folder).stored, VOLUME)

    @pytest.mark.parametrize("lacking", [128, 132], ids=["preamble", "preamble and DICM"])
    @pytest.mark.parametrize("which", [LAST, MIDDLE, range(SLICES)])
    def test_but_with_a_meta_header_slices_are_read(
        self, lacking: int, which: Any, series: Callable[..., Path]
    ) -> None:
        folder = series(nothing, [])
        for k in which:
            file = folder / f"IM{k:04d}"
            file.write_bytes(file.read_bytes()[lacking:])
        np.testing.assert_array_equal(read(folder).stored, VOLUME)

    def test_compressed_pixels_need_to_say_how(self, series: Callable[..., Path]) -> None:
        folder = series(lambda dataset: dataset.compress(RLELossless), LAST)
        file = folder / "IM0011"
        bare = pydicom.Dataset(pydicom.dcmread(file))
        pydicom.dcmwrite(file, bare, implicit_vr=False, little_endian=True, force_encoding=True)
        with pytest.raises((ScanError, UsageError), match=r"no transfer syntax that says how|IM0011"):
            read(folder)


class TestPadding:
    """Pixel Padding Value: nothing was measured there, whatever number stands for that."""

    @pytest.mark.parametrize("padding", [32000, -32000])
    def test_has_the_intensity_of_air_and_keeps_its_stored_value(
        self, padding: int, dicom_series: Writer, tmp_path: Path
    ) -> None:
        padded = VOLUME.copy()
        padded[:2] = padding
        files = dicom_series(tmp_path, padded)
        for file in files:
            dataset = pydicom.dcmread(file)
            dataset.add_new("PixelPaddingValue", "SS", padding)
            dataset.save_as(file)
        (found,) = find_series(files)
        scan = read_series(found, tmp_path)
        np.testing.assert_array_equal(scan.stored, padded)
        least = VOLUME[2:].min() if padding > 0 else padding
        assert set(np.unique(scan.intensities()[:2])) == {least}
        np.testing.assert_array_equal(scan.intensities()[2:], VOLUME[2:])

    def test_may_be_a_range_and_stated_with_the_other_sign(self, dicom_series: Writer, tmp_path: Path) -> None:
        padded = VOLUME.astype(np.uint16)
        padded[0], padded[1] = 63536, 65535
        files = dicom_series(tmp_path, padded)
        for file in files:
            dataset = pydicom.dcmread(file)
            dataset.add_new("PixelPaddingValue", "SS", -2000)
            dataset.add_new("PixelPaddingRangeLimit", "SS", -1)
            dataset.save_as(file)
        (found,) = find_series(files)
        assert read_series(found, tmp_path).intensities().max() == VOLUME[2:].max()
