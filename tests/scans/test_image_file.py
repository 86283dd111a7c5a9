"""Formats that SimpleITK reads: values and geometry stay, and files that lie are refused before they are believed."""

import gzip
import os
import random
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from nibabel.affines import apply_affine

from pipeline.errors import ScanError
from pipeline.scans import read_nifti
from pipeline.scans.image_file import files_of, read_image, suffix

RAW_HEADER = (
    b"NRRD0004\ntype: short\ndimension: 3\nsizes: %s\nencoding: %s\nendian: little\nspace: left-posterior-superior\n\
space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n%s\n"
)


def image(dtype: str = "int16") -> SimpleITK.Image:
    """5 x 4 x 3 voxels, oblique, anisotropic, away from the origin."""
    voxels = np.random.default_rng(0).integers(0, 100, (3, 4, 5)).astype(dtype)
    made = SimpleITK.GetImageFromArray(voxels)
    made.SetSpacing((0.5, 0.75, 4.0))
    made.SetOrigin((-12.5, 7.0, 99.0))
    made.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    return made


def written(made: SimpleITK.Image, path: Path, compress: bool = False) -> Path:
    SimpleITK.WriteImage(made, str(path), useCompression=compress)
    return path


class TestVolume:
    @pytest.mark.parametrize("compress", [False, True])
    @pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nhdr", ".mhd"])
    def test_values_and_places_are_kept(self, ending: str, compress: bool, tmp_path: Path) -> None:
        made = image()
        scan = read_image(written(made, tmp_path / f"scan{ending}", compress))
        assert scan.stored.dtype == np.int16
        np.testing.assert_array_equal(scan.stored, SimpleITK.GetArrayFromImage(made).T)
        corner = made.TransformIndexToPhysicalPoint((4, 3, 2))
        np.testing.assert_allclose(apply_affine(scan.affine, (4, 3, 2)), np.multiply(corner, (-1, -1, 1)), atol=1e-5)
        assert (int(scan.header["qform_code"]), int(scan.header["sform_code"])) == (1, 1)

    @pytest.mark.usefixtures("names_of_any_bytes")
    @pytest.mark.parametrize("name", [b"m\xfcller.nrrd", b"m\xfcller/scan.mhd"])
    def test_names_may_be_of_any_bytes(self, name: bytes, tmp_path: Path) -> None:
        made = image()
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        for file in files_of(written(made, tmp_path / f"scan{path.suffix}")):
            file.rename(path if file.suffix == path.suffix else path.with_name(file.name))
        np.testing.assert_array_equal(read_image(path).stored, SimpleITK.GetArrayFromImage(made).T)

    def test_nifti_pair_lies_where_nibabel_puts_it(self, tmp_path: Path) -> None:
        written(image("float32"), tmp_path / "whole.nii")
        whole = nib.load(tmp_path / "whole.nii")
        nib.save(nib.Nifti1Pair(np.asarray(whole.dataobj), whole.affine), tmp_path / "pair.hdr")
        scan = read_image(tmp_path / "pair.hdr")
        np.testing.assert_array_equal(scan.stored, np.asarray(whole.dataobj))
        np.testing.assert_allclose(scan.affine, whole.affine, atol=1e-4)

    @pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (1, 4)])
    @pytest.mark.parametrize("large", [False, True])
    def test_nifti_pair_lies_where_the_single_file_does(
        self, codes: tuple[int, int], large: bool, tmp_path: Path
    ) -> None:
        affine = np.array([[-2, 0.1, 0, 90], [0.1, 2, 0, -100], [0, 0, 3, -50], [0, 0, 0, 1.0]])
        for kind, name in ((nib.Nifti1Image, "whole.nii"), (nib.Nifti1Pair, "pair.img")):
            made = kind(np.arange(210, dtype=np.int16).reshape(6, 7, 5), affine)
            made.set_qform(affine, codes[0])
            made.set_sform(affine, codes[1])
            nib.save(made, tmp_path / name)
        pair = tmp_path / "pair.hdr"
        if large:
            (tmp_path / "pair.img").rename(tmp_path / "PAIR.IMG")
            pair = pair.rename(tmp_path / "PAIR.HDR")
        scan, whole = read_image(pair), read_nifti(tmp_path / "whole.nii")
        np.testing.assert_array_equal(scan.stored, whole.stored)
        np.testing.assert_allclose(scan.affine, whole.affine, atol=1e-4)
        assert bool(scan.notes) == (codes == (0, 0))

    @pytest.mark.parametrize(("name", "ending"), [("a.b.NRRD", ".nrrd"), ("x.gipl.gz", ".gipl.gz"), ("x.nii", "")])
    def test_formats_are_known_by_their_names(self, name: str, ending: str) -> None:
        assert suffix(Path(name)) == ending

    def test_voxels_beside_their_header_belong_to_it(self, tmp_path: Path) -> None:
        header = written(image(), tmp_path / "scan.mhd")
        assert files_of(header) == [header, tmp_path / "scan.raw"]


class TestRefused:
    @pytest.mark.parametrize(
        ("made", "reason"),
        [
            (SimpleITK.Image([5, 4, 3], SimpleITK.sitkVectorFloat32, 3), "3 values a voxel"),
            (SimpleITK.Image([5, 4], SimpleITK.sitkInt16), r"shape \(5, 4\)"),
            (SimpleITK.JoinSeries([image(), image()]), r"shape \(5, 4, 3, 2\)"),
            (SimpleITK.Image([5, 4, 3], SimpleITK.sitkInt16), "constant"),
            (image("float32") / 0 - image("float32") / 0, "NaN"),
        ],
        ids=["vectors", "a picture", "a series", "a constant", "NaN"],
    )
    def test_what_is_no_finite_volume_of_numbers(self, made: SimpleITK.Image, reason: str, tmp_path: Path) -> None:
        with pytest.raises(ScanError, match=reason):
            read_image(written(made, tmp_path / "scan.mha"))

    @pytest.mark.parametrize("encoding", [b"raw", b"gzip"])
    def test_header_that_claims_gigabytes(self, encoding: bytes, tmp_path: Path) -> None:
        path = tmp_path / "liar.nrrd"
        path.write_bytes(RAW_HEADER % (b"1000 1000 1000", encoding, b"") + gzip.compress(bytes(100)))
        with pytest.raises(ScanError, match="2000000000 bytes"):
            read_image(path)

    @pytest.mark.parametrize("elsewhere", [b"/etc/passwd", b"../voxels.raw", b"voxels%03d.raw 1 3 1", b"LIST"])
    def test_voxels_that_lie_elsewhere(self, elsewhere: bytes, tmp_path: Path) -> None:
        path = tmp_path / "scan.nhdr"
        path.write_bytes(RAW_HEADER % (b"5 4 3", b"raw", b"data file: " + elsewhere + b"\n"))
        with pytest.raises(ScanError, match="in other files"):
            read_image(path)

    def test_voxels_that_are_missing(self, tmp_path: Path) -> None:
        header = written(image(), tmp_path / "scan.mhd")
        (tmp_path / "scan.raw").unlink()
        with pytest.raises(ScanError, match=r"no scan\.raw beside it"):
            read_image(header)

    def test_analyze_does_not_say_which_side_is_left(self, tmp_path: Path) -> None:
        nib.save(nib.AnalyzeImage(np.ones((5, 4, 3), np.int16), np.eye(4)), tmp_path / "scan.img")
        with pytest.raises(ScanError, match="which side is left"):
            read_image(tmp_path / "scan.hdr")

    def test_truncation(self, tmp_path: Path) -> None:
        path = written(image(), tmp_path / "scan.nrrd")
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ScanError, match="copy it again"):
            read_image(path)

    @pytest.mark.parametrize("damage", ["flipped bit", "cut"])
    @pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nhdr", ".mhd"])
    def test_packed_voxels_are_held_against_their_checksum(self, ending: str, damage: str, tmp_path: Path) -> None:
        path = written(image(), tmp_path / f"scan{ending}", compress=True)
        voxels = files_of(path)[-1]
        packed = bytearray(voxels.read_bytes())
        packed[-20] ^= 4
        voxels.write_bytes(packed if damage == "flipped bit" else voxels.read_bytes()[:-20])
        with pytest.raises(ScanError, match="copy"):
            read_image(path)

    def test_what_lies_behind_packed_voxels_does_not_matter(self, tmp_path: Path) -> None:
        path = written(image(), tmp_path / "scan.mha", compress=True)
        before = read_image(path).stored
        path.write_bytes(path.read_bytes() + b"more")
        np.testing.assert_array_equal(read_image(path).stored, before)

    @pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mnc", ".gipl", ".hdr", ".gipl.gz"])
    def test_noise(self, ending: str, tmp_path: Path) -> None:
        path = tmp_path / f"scan{ending}"
        path.write_bytes(random.Random(0).randbytes(2000))
        with pytest.raises(ScanError, match="found"):
            read_image(path)


NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 3 4 5\nendian: little\nencoding: raw\n{}\n"
MHA = (
    "ObjectType = Image\nNDims = 3\nDimSize = 3 4 5\nElementType = MET_SHORT\nBinaryData = True\n"
    "BinaryDataByteOrderMSB = False\n{}ElementDataFile = LOCAL\n"
)
DIRECTIONS = "space directions: (2,0,0) (0,2,0) (0,0,5)\n"


def bare(name: str, header: str, lines: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(header.format(lines).encode() + np.arange(60, dtype="<i2").tobytes())
    return path


@pytest.mark.parametrize(
    ("name", "header", "lines", "note"),
    [
        ("x.nrrd", NRRD, f"Space: LPS\n{DIRECTIONS}", None),
        ("x.nrrd", NRRD, f'space: LPS\n{DIRECTIONS}space units: "mm" "mm" "mm"\n', None),
        ("x.nrrd", NRRD, "spacings: 2 2 5\n", "in which space"),
        ("x.mha", MHA, "TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementSpacing = 2 2 5\n", None),
        ("x.mha", MHA, "ElementSpacing = 2 2 5\n", "where its axes point"),
        ("x.mha", MHA, "ElementSize = 2 2 5\nAnatomicalOrientation = RAI\n", "where its axes point"),
    ],
)
def test_headers_that_do_not_say_how_they_lie_get_a_note(
    name: str, header: str, lines: str, note: str | None, tmp_path: Path
) -> None:
    scan = read_image(bare(name, header, lines, tmp_path))
    np.testing.assert_allclose(scan.spacing_mm, (2, 2, 5))
    assert len(scan.notes) == bool(note)
    assert all(note in found for found in scan.notes)


def test_gipl_never_says_so(tmp_path: Path) -> None:
    (note,) = read_image(written(image(), tmp_path / "x.gipl")).notes
    assert "where its axes point" in note


@pytest.mark.parametrize(
    ("name", "header", "lines", "reason"),
    [
        ("x.nrrd", NRRD, "", "without spacings, expected the size of the voxels"),
        ("x.nrrd", NRRD, "space: LPS\nspace origin: (0,0,0)\n", "without spacings"),
        ("x.mha", MHA, "TransformMatrix = 1 0 0 0 1 0 0 0 1\n", "without spacings"),
        ("x.nrrd", NRRD, f'space: LPS\n{DIRECTIONS}space units: "cm" "cm" "cm"\n', "lengths in 'cm', expected milli"),
        ("x.nrrd", NRRD, 'spacings: 2000 2000 5000\nunits: "um" "um" "um"\n', "lengths in 'um', expected milli"),
    ],
)
def test_headers_without_sizes_or_in_other_units_are_refused(
    name: str, header: str, lines: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ScanError, match=f"{name}: found .*{reason}"):
        read_image(bare(name, header, lines, tmp_path))


@pytest.mark.parametrize("space", ["", "space: left-posterior-superior\n"])
def test_nrrd_that_names_no_space_says_what_was_assumed(space: str, tmp_path: Path) -> None:
    directions = "space directions: (2,0,0) (0,2,0) (0,0,5)\n" if space else "spacings: 2 2 5\n"
    header = f"NRRD0004\ntype: short\ndimension: 3\n{space}sizes: 3 4 5\n{directions}endian: little\nencoding: raw\n\n"
    path = tmp_path / "x.nrrd"
    path.write_bytes(header.encode() + np.arange(60, dtype="<i2").tobytes())
    notes = read_image(path).notes
    assert bool(notes) == (not space)
    assert not notes or "does not say in which space" in notes[0]
