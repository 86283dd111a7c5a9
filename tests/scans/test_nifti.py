"""NIfTI in and out: the same grid, header codes and bytes; and one sentence about every file that cannot be used."""

import gzip
import logging
import math
import random
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk  # type: ignore[import-untyped]
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.errors import OutputError, PipelineError, ScanError, UsageError
from pipeline.scans import is_nifti, read_nifti, stem, write_nifti
from pipeline.scans.nifti import is_marked

DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "float32", "float64")
KEPT_FIELDS = ("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b",
    "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "datatype", "bitpix")  # fmt: skip


@st.composite
def rigid_affines(draw: st.DrawFn) -> NDArray[np.float64]:
    """Any rotation, flips and swaps of axes, any spacing, any origin."""
    angles = [draw(st.floats(-180, 180)) for _ in range(3)]
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    swaps = np.eye(3)[:, draw(st.permutations(range(3)))] * [draw(st.sampled_from((-1, 1))) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ swaps @ np.diag([draw(st.floats(0.2, 8)) for _ in range(3)])
    affine[:3, 3] = [draw(st.floats(-300, 300)) for _ in range(3)]
    return affine


@st.composite
def images(draw: st.DrawFn) -> nib.Nifti1Image:
    """A file as scanners and converters write it, with slope and codes of every kind."""
    shape = tuple(draw(st.integers(2, 6)) for _ in range(3)) + (1,) * draw(st.integers(0, 1))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if dtype.kind == "f":
        stored = rng.normal(100, 50, shape).astype(dtype)
    else:  # every bit pattern is an integer
        stored = np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
    header = nib.Nifti1Header(endianness=draw(st.sampled_from("<>")))
    header.set_data_dtype(dtype)
    header.set_xyzt_units(*draw(st.sampled_from((("mm", "sec"), ("mm", "msec"), ("unknown", "unknown")))))
    header["descrip"] = b"a converter"
    affine = draw(rigid_affines())
    image = nib.Nifti1Image(stored, None, header)
    image.header.set_qform(affine, code=draw(st.integers(1, 4)))
    image.header.set_sform(affine, code=draw(st.integers(0, 4)))
    # scl_slope 0 and NaN mean "not scaled".
    image.header["scl_slope"] = draw(st.sampled_from((0.0, 1.0, 0.5, 0.1, -2.0)))
    image.header["scl_inter"] = draw(st.sampled_from((0.0, -1024.0, 0.25)))
    return image


def as_written_by_a_scanner(image: nib.Nifti1Image, path: Path) -> Path:
    """Header and stored voxels as they are: nibabel's own writer would choose another slope."""
    header = image.header.copy()
    header["vox_offset"], header["magic"] = 352, b"n+1"
    stored = np.asarray(image.dataobj).astype(header.get_data_dtype())
    raw = header.binaryblock + bytes(4) + stored.tobytes(order="F")
    path.write_bytes(gzip.compress(raw, 1) if path.name.endswith(".gz") else raw)
    return path


def placed(path: Path) -> tuple[list[float], ...]:
    image = SimpleITK.ReadImage(str(path))
    return list(image.GetOrigin()), list(image.GetDirection()), list(image.GetSpacing())


def placed_by_itk(path: Path) -> tuple[list[float], ...]:
    io = itk.NiftiImageIO.New(FileName=str(path))
    io.ReadImageInformation()
    axes = range(3)
    return (
        [io.GetOrigin(axis) for axis in axes],
        [part for axis in axes for part in io.GetDirection(axis)[:3]],
        [io.GetSpacing(axis) for axis in axes],
    )


class TestSameGrid:
    @pytest.mark.slow
    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(image=images(), suffix=st.sampled_from((".nii", ".nii.gz")))
    def test_what_is_read_and_written_is_the_same_for_every_program(
        self, image: nib.Nifti1Image, suffix: str, tmp_path: Path
    ) -> None:
        source = as_written_by_a_scanner(image, tmp_path / f"source{suffix}")
        copy = tmp_path / f"copy{suffix}"
        scan = read_nifti(source)
        write_nifti(copy, scan.stored, scan)
        before, after = nib.load(source), nib.load(copy)
        for field in KEPT_FIELDS:
            assert before.header[field].tobytes() == after.header[field].tobytes(), field
        assert before.affine.tobytes() == after.affine.tobytes()
        assert before.shape == after.shape
        stored = [np.asarray(each.dataobj.get_unscaled()) for each in (before, after)]
        assert stored[0].dtype == stored[1].dtype
        assert stored[0].tobytes() == stored[1].tobytes()
        np.testing.assert_array_equal(np.asarray(before.dataobj), np.asarray(after.dataobj))
        assert placed(source) == placed(copy)
        assert placed_by_itk(source) == placed_by_itk(copy)

    @settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(image=images())
    def test_difference_of_two_volumes_lies_where_they_lie(self, image: nib.Nifti1Image, tmp_path: Path) -> None:
        source, copy = as_written_by_a_scanner(image, tmp_path / "source.nii.gz"), tmp_path / "copy.nii.gz"
        scan = read_nifti(source)
        darkest = scan.stored.min()
        difference = scan.stored.astype(np.float64) - float(darkest)
        write_nifti(copy, difference, scan, difference=True)
        after = nib.load(copy)
        expected = difference * scan.slope  # the intercept has cancelled
        np.testing.assert_allclose(np.asarray(after.dataobj).reshape(scan.shape), expected, rtol=1e-6)
        assert nib.load(source).affine.tobytes() == after.affine.tobytes()
        assert placed(source) == placed(copy)
        # The volume is one for ITK too, with the values that nibabel sees.
        seen = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(copy))).squeeze()
        np.testing.assert_allclose(seen.T, expected.squeeze(), rtol=1e-6, atol=1e-6)

    def test_nifti_2_stays_nifti_2(self, tmp_path: Path) -> None:
        affine = np.diag([1 / 3, 1 / 7, 2, 1])  # needs the 64 bits of NIfTI-2
        nib.save(nib.Nifti2Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), affine), tmp_path / "source.nii")
        scan = read_nifti(tmp_path / "source.nii")
        write_nifti(tmp_path / "copy.nii", scan.stored, scan)
        copy = nib.load(tmp_path / "copy.nii")
        assert isinstance(copy, nib.Nifti2Image)
        np.testing.assert_array_equal(copy.affine, affine)

    def test_sform_is_preferred_to_qform_as_everywhere(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), None)
        image.header.set_qform(np.diag([2.0, 2, 2, 1]), code=1)
        image.header.set_sform(np.diag([3.0, 3, 3, 1]), code=2)
        scan = read_nifti(as_written_by_a_scanner(image, tmp_path / "a.nii"))
        assert scan.spacing_mm == (3, 3, 3)
        assert scan.notes == ("the header's qform and sform lie up to 1.73 mm apart; the sform was taken",)

    def test_nothing_is_noted_of_forms_that_agree_or_of_one_alone(self, tmp_path: Path) -> None:
        for code in (0, 1):
            image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), None)
            image.header.set_qform(np.diag([-2.0, 2, 2, 1]), code=code)
            image.header.set_sform(np.diag([-2.0, 2, 2, 1]), code=1)
            assert read_nifti(as_written_by_a_scanner(image, tmp_path / "a.nii")).notes == ()

    def test_a_qform_that_is_no_rotation_is_noted(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
        image.header["qform_code"] = 1
        image.header["quatern_b"] = 7
        (note,) = read_nifti(as_written_by_a_scanner(image, tmp_path / "a.nii")).notes
        assert "qform is damaged" in note

    def test_the_same_voxels_give_the_same_bytes(self, tmp_path: Path) -> None:
        scan = read_nifti(save(tmp_path / "a.nii.gz", volume()))
        for name in ("b.nii.gz", "c.nii.gz"):
            write_nifti(tmp_path / name, scan.stored, scan)
        assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()

    def test_text_of_the_source_is_not_carried_over(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(volume(), np.eye(4))
        image.header["cal_max"] = 1
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Erika Mustermann"))
        for field in ("descrip", "db_name", "aux_file", "intent_name"):
            image.header[field] = b"Mustermann"
        nib.save(image, tmp_path / "a.nii")
        scan = read_nifti(tmp_path / "a.nii")
        write_nifti(tmp_path / "b.nii", scan.stored, scan)
        assert b"Mustermann" not in (tmp_path / "b.nii").read_bytes()
        assert nib.load(tmp_path / "b.nii").header["cal_max"] == 0

    def test_what_is_written_says_that_it_is_synthetic(self, tmp_path: Path) -> None:
        scan = read_nifti(save(tmp_path / "a.nii", volume()))
        write_nifti(tmp_path / "b.nii.gz", scan.stored, scan)
        header = read_nifti(tmp_path / "b.nii.gz").header
        assert header["descrip"].item() == b"SYNTHETIC by phs-pipeline - NOT FOR DIAGNOSIS"
        assert is_marked(header)
        assert not is_marked(scan.header)

    def test_another_mark_says_something_else(self, tmp_path: Path) -> None:
        scan = read_nifti(save(tmp_path / "a.nii", volume()))
        write_nifti(tmp_path / "b.nii.gz", scan.stored, scan, mark=b"PLANTED")
        header = read_nifti(tmp_path / "b.nii.gz").header
        assert header["descrip"].item() == b"PLANTED"
        assert not is_marked(header)

    @pytest.mark.parametrize("name", ["A.NII", "A.NII.GZ"])
    def test_names_may_be_in_capitals(self, name: str, tmp_path: Path) -> None:
        save(tmp_path / "a.nii", volume())
        content = (tmp_path / "a.nii").read_bytes()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
        assert stem(Path(name)) == "A"
        np.testing.assert_array_equal(read_nifti(tmp_path / name).stored, volume())

    def test_output_below_a_file_is_refused(self, tmp_path: Path) -> None:
        scan = read_nifti(save(tmp_path / "a.nii.gz", volume()))
        with pytest.raises(OutputError, match="cannot be written"):
            write_nifti(tmp_path / "a.nii.gz" / "b.nii.gz", scan.stored, scan)


def volume(dtype: str = "int16") -> NDArray[np.generic]:
    return np.arange(60).reshape(3, 4, 5).astype(dtype)


def save(path: Path, voxels: NDArray[np.generic], affine: NDArray[np.float64] | None = None) -> Path:
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine, dtype=voxels.dtype), path)
    return path


def many_voxels() -> NDArray[np.int16]:
    """More than nibabel reads ahead to tell a file's kind."""
    return np.random.default_rng(0).integers(0, 999, (20, 20, 20), dtype=np.int16)


def cut(path: Path) -> None:
    save(path, many_voxels())
    path.write_bytes(path.read_bytes()[:6000])


def flipped(path: Path) -> None:
    """As a failing disk or memory leaves it: what is packed unpacks to as many bytes, one of them another."""
    raw = gzip.decompress(save(path, many_voxels()).read_bytes())
    other = raw[:-1] + bytes([raw[-1] ^ 1])
    path.write_bytes(gzip.compress(other)[:-8] + gzip.compress(raw)[-8:])


def without_checksum(path: Path) -> None:
    save(path, many_voxels())
    path.write_bytes(path.read_bytes()[:-8])


def with_header(**fields: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save(path.with_name("whole.nii"), volume())
        raw = path.with_name("whole.nii").read_bytes()
        header = nib.Nifti1Header(raw[:348], check=False)
        for name, value in fields.items():
            header[name] = value
        path.write_bytes(gzip.compress(header.binaryblock + raw[348:]))

    return write


def with_nan(path: Path) -> None:
    voxels = volume("float32")
    voxels[1, 1, 1] = np.nan
    save(path, voxels)


def with_infinity(path: Path) -> None:
    voxels = volume("float32")
    voxels[1, 1, 1] = -np.inf
    save(path, voxels)


def rgb(path: Path) -> None:
    save(path, np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (cut, "found voxels that cannot be read .* truncated or damaged, copy it again"),
    "flipped bit": (flipped, "found voxels that cannot be read .*CRC check failed.* truncated or damaged, copy it"),
    "cut at its end": (without_checksum, "found voxels that cannot be read .* truncated or damaged, copy it again"),
    "text": (lambda path: path.write_text("not a scan"), "found no readable header .*, expected a NIfTI file"),
    "zipped text": (lambda path: path.write_bytes(gzip.compress(b"not a scan" * 99)), "found no readable header"),
    "nothing": (lambda path: path.write_bytes(b""), "found no readable header"),
    "no voxels": (with_header(dim=[3, 3, 0, 5, 1, 1, 1, 1]), "array of shape .*expected a volume with three axes"),
    "negative size": (with_header(dim=[3, -3, -4, 5, 1, 1, 1, 1]), "expected a volume with three axes"),
    "one slice": (lambda path: save(path, volume()[..., 0]), r"array of shape \(3, 4\), expected a volume"),
    "constant": (lambda path: save(path, np.full((3, 4, 5), 7, np.int16)), r"constant volume \(every voxel is 7\)"),
    "NaN": (with_nan, "found 1 voxels that are NaN or infinite, expected finite"),
    "infinite": (with_infinity, "found 1 voxels that are NaN or infinite, expected finite"),
    "volumes": (lambda path: save(path, np.stack([volume()] * 3, -1)), "found 3 volumes .*, expected one; split"),
    "colour": (rgb, r"found colour \(RGB\), expected one real number a voxel"),
    "complex": (lambda path: save(path, volume("complex64")), "found complex64 values, expected one real number"),
    "no affine": (
        with_header(sform_code=0, qform_code=0, pixdim=[1, 0, 0, 0, 0, 0, 0, 0]),
        "found an affine .*0 x 0 x 0 mm",
    ),
    "huge spacing": (lambda path: save(path, volume(), np.diag([1e6, 1, 1, 1])), r"voxels of 1e\+06 x 1 x 1 mm"),
    "affine of NaN": (with_header(srow_x=[math.nan] * 4), "found an affine .* repair the header"),
    "lies about size": (with_header(dim=[3, 9999, 9999, 99, 1, 1, 1, 1]), "bytes its header claims"),
    "absurd offset": (with_header(vox_offset=3e9), "bytes its header claims"),
    "unknown data type": (with_header(datatype=77), "found no readable header .*77"),
}


class TestUnusable:
    @pytest.mark.parametrize("kind", UNUSABLE)
    def test_file_is_told_in_one_sentence(self, kind: str, tmp_path: Path) -> None:
        make, reason = UNUSABLE[kind]
        path = tmp_path / "sub-01_FLAIR.nii.gz"
        make(path)
        with pytest.raises(ScanError, match=reason) as raised:
            read_nifti(path)
        sentence = str(raised.value)
        assert sentence.startswith(f"{path}: found ")
        assert "expected" in sentence
        assert "\n" not in sentence
        assert ";" in sentence or "," in sentence

    @pytest.mark.parametrize(
        "behind", [b"garbage", bytes(512), gzip.compress(b"more")], ids=["text", "zeros", "packed"]
    )
    def test_what_other_programs_leave_behind_the_voxels_does_not_matter(self, behind: bytes, tmp_path: Path) -> None:
        path = save(tmp_path / "a.nii.gz", many_voxels())
        path.write_bytes(path.read_bytes() + behind)
        np.testing.assert_array_equal(read_nifti(path).stored, many_voxels())

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"absent\.nii\.gz: no such file; check the path"):
            read_nifti(tmp_path / "absent.nii.gz")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"found a folder, expected a NIfTI file \(\.nii or \.nii\.gz\)"):
            read_nifti(tmp_path)

    def test_other_formats_are_not_opened(self, tmp_path: Path) -> None:
        save(tmp_path / "a.mgz", volume())
        with pytest.raises(ScanError, match=r"a\.mgz: found a file of another kind, expected NIfTI"):
            read_nifti(tmp_path / "a.mgz")

    def test_empty_mask_is_constant_and_accepted_where_asked(self, tmp_path: Path) -> None:
        save(tmp_path / "mask.nii.gz", np.zeros((3, 4, 5), np.uint8))
        assert not read_nifti(tmp_path / "mask.nii.gz", constant_ok=True).stored.any()

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_header_that_claims_gigabytes_allocates_nothing(self, suffix: str, tmp_path: Path) -> None:
        header = nib.Nifti1Header()
        header.set_data_shape((2000, 2000, 2000))
        header["vox_offset"], header["magic"] = 352, b"n+1"
        raw = header.binaryblock + bytes(700)
        path = tmp_path / f"a{suffix}"
        path.write_bytes(gzip.compress(raw) if suffix == ".nii.gz" else raw)
        tracemalloc.start()
        try:
            with pytest.raises(ScanError, match=re.escape(f"{8 * 10**9 * 4 + 352} bytes its header claims")):
                read_nifti(path)
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()

    def test_no_damage_to_the_header_ends_in_anything_but_a_sentence(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.CRITICAL, "nibabel")
        raw = save(tmp_path / "whole.nii", volume()).read_bytes()
        path = tmp_path / "damaged.nii"
        dice = random.Random(0)
        sentences = 0
        for _ in range(400):
            damaged = bytearray(raw)
            for _ in range(dice.choice((1, 2, 4))):
                damaged[dice.randrange(352)] = dice.choice((0, 127, 128, 255, dice.randrange(256)))
            path.write_bytes(damaged)
            try:
                scan = read_nifti(path)
            except PipelineError:
                sentences += 1
            else:
                assert np.isfinite(scan.intensities()).all()
                assert np.isfinite(scan.affine).all()
        assert 50 < sentences < 350


class TestHeaderThatMisleads:
    @pytest.mark.parametrize(("kind", "at", "offset"), [(nib.Nifti1Image, 108, "<f4"), (nib.Nifti2Image, 168, "<i8")])
    @pytest.mark.parametrize("packed", [False, True])
    def test_voxels_begin_behind_the_header_where_it_does_not_count_itself(
        self, kind: Any, at: int, offset: str, packed: bool, tmp_path: Path
    ) -> None:
        voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
        nib.save(kind(voxels, np.eye(4)), tmp_path / "right.nii")
        raw = bytearray((tmp_path / "right.nii").read_bytes())
        size = np.dtype(offset).itemsize
        raw[at : at + size] = bytes(size)
        path = tmp_path / ("wrong.nii.gz" if packed else "wrong.nii")
        path.write_bytes(gzip.compress(bytes(raw)) if packed else bytes(raw))
        np.testing.assert_array_equal(read_nifti(path).stored, voxels)

    @pytest.mark.parametrize(("code", "scale", "named"), [(3, 1e3, "micrometres"), (1, 1e-3, "metres")])
    def test_lengths_in_other_units_are_the_reason_given(
        self, code: int, scale: float, named: str, tmp_path: Path
    ) -> None:
        affine = np.diag([2 * scale, 2 * scale, 5 * scale, 1])
        image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), affine)
        image.header["xyzt_units"] = code
        nib.save(image, tmp_path / "a.nii")
        with pytest.raises(ScanError, match=rf"found voxels of .* {named}.*expected millimetres"):
            read_nifti(tmp_path / "a.nii")

    def test_millimetres_under_another_name_are_millimetres(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([2.0, 2.0, 5.0, 1]))
        image.header["xyzt_units"] = 3
        nib.save(image, tmp_path / "a.nii")
        assert read_nifti(tmp_path / "a.nii").spacing_mm == (2, 2, 5)

    @pytest.mark.parametrize("name", ["x.nii.GZ", "x.Nii.Gz", "x.NII", "x.nii"])
    def test_letters_of_the_ending_may_be_large(self, name: str, tmp_path: Path) -> None:
        voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
        plain = "x.nii.gz" if name.lower().endswith("gz") else "x.nii"
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / plain)
        (tmp_path / plain).rename(tmp_path / name)
        assert is_nifti(tmp_path / name)
        assert stem(tmp_path / name) == "x"
        np.testing.assert_array_equal(read_nifti(tmp_path / name).stored, voxels)
