"""Bad input by the hundred, of each kind of file: a sentence or a result, never a traceback, a hang or a partial file.

Each case is bytes on disk, as a broken disk, a hostile sender or a careless conversion leaves them.
"""

import gzip
import io
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK

from pipeline.cli.main import main

pytestmark = pytest.mark.slow

SECONDS = 60
FLIPS, CUTS = 36, 16


@pytest.fixture
def attempt(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., int]:
    """Run `synthesize` on a path, within bounded time, and check what every case promises."""

    def run(path: Path, *options: str) -> int:
        out = tmp_path / "out"

        def hang(*_: object) -> None:
            raise TimeoutError

        former = signal.signal(signal.SIGALRM, hang)
        signal.alarm(SECONDS)
        try:
            with pytest.raises(SystemExit) as stop:
                main(
                    [
                        "synthesize",
                        str(path),
                        "-b",
                        str(trained),
                        "-o",
                        str(out),
                        "--no-page",
                        "--device",
                        "cpu",
                        *options,
                    ]
                )
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, former)
        code = int(stop.value.code or 0)
        said = capfd.readouterr().err
        assert code in (0, 1, 2)
        assert "Traceback" not in said
        written = [file for file in out.rglob("*") if file.is_file()]
        assert not [file for file in written if ".partial" in file.name]
        if code:
            assert "rror: " in said or "failed: " in said
            assert not [file for file in written if file.suffix in (".gz", ".dcm")]
        return code

    return run


def head(dtype: type = np.int16) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in (20, 24, 8)), indexing="ij"))
    noise = np.random.default_rng(0).integers(0, 60, grid.shape[1:])
    return (((grid**2).sum(axis=0) < 0.8) * (60 + noise)).astype(dtype)


def nifti(voxels: np.ndarray, affine: np.ndarray | None = None) -> bytes:
    image = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 2.0, 1.0]) if affine is None else affine)
    return bytes(image.to_bytes())


def metaimage(folder: Path) -> bytes:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(head().T), str(folder / "a.mha"))
    return (folder / "a.mha").read_bytes()


def nrrd(folder: Path) -> bytes:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(head().T), str(folder / "a.nrrd"))
    return (folder / "a.nrrd").read_bytes()


def damaged(whole: bytes, header: int) -> Iterator[tuple[str, bytes]]:
    """Truncations everywhere, and bit flips of which half lie in the header."""
    for cut in np.linspace(0, len(whole) - 1, CUTS, dtype=int):
        yield f"cut at {cut}", whole[:cut]
    rng = np.random.default_rng(len(whole))
    for place in range(FLIPS):
        at = int(rng.integers(0, header if place % 2 else len(whole)))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(0, 8))
        yield f"bit of byte {at}", bytes(flipped)


@pytest.mark.parametrize("kind", [".nii", ".nii.gz", ".mha", ".nrrd", ".dcm", ".zip"])
def test_truncated_and_bit_flipped(
    kind: str, attempt: Callable[..., int], dicom_series: Callable[..., list[Path]], tmp_path: Path
) -> None:
    make = tmp_path / "whole"
    make.mkdir()
    series = dicom_series(make / "series", head(), affine=np.diag([-1.0, -1.0, 2.0, 1.0]))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in series:
            archive.write(file, file.name)
    whole, header = {
        ".nii": (nifti(head()), 352),
        ".nii.gz": (gzip.compress(nifti(head()), mtime=0), 60),
        ".mha": (metaimage(make), 300),
        ".nrrd": (nrrd(make), 300),
        ".dcm": (series[3].read_bytes(), 1500),
        ".zip": (buffer.getvalue(), 60),
    }[kind]
    codes = []
    for place, (_, content) in enumerate(damaged(whole, header)):
        folder = tmp_path / f"case{place}"
        if kind == ".dcm":
            shutil.copytree(make / "series", folder)
            (folder / series[3].name).write_bytes(content)
        else:
            folder.mkdir()
            (folder / f"scan{kind}").write_bytes(content)
        codes.append(attempt(folder if kind == ".dcm" else folder / f"scan{kind}", "--overwrite"))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.rmtree(folder)
    assert len(codes) == CUTS + FLIPS
    assert 1 in codes or 2 in codes


def claiming(voxels: int) -> bytes:
    """A file of 1 kB whose header claims `voxels` cubed of 2 bytes."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["dim"] = [3, voxels, voxels, voxels, 1, 1, 1, 1]
    header["sform_code"], header["vox_offset"], header["magic"] = 1, 352, b"n+1"
    header["srow_x"], header["srow_y"], header["srow_z"] = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)
    return bytes(header.binaryblock) + b"\0" * 700


KINDS = (".nii", ".nii.gz", ".mha", ".nrrd", "dicom", ".zip")


@pytest.fixture
def save(dicom_series: Callable[..., list[Path]], tmp_path: Path) -> Callable[..., Path]:
    """Write voxels as a scan of some kind, in a folder of its own."""

    def write(kind: str, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
        affine = np.diag([-1.0, -1.0, 2.0, 1.0]) if affine is None else affine
        folder = tmp_path / "given"
        folder.mkdir()
        path = folder / f"scan{kind}"
        if kind in (".nii", ".nii.gz"):
            content = nifti(voxels, affine)
            path.write_bytes(gzip.compress(content) if kind == ".nii.gz" else content)
        elif kind in (".mha", ".nrrd"):
            image = SimpleITK.GetImageFromArray(np.moveaxis(voxels, (0, 1, 2), (-1, -2, -3)))
            image.SetSpacing([*np.abs(np.diag(affine)[:3]), 1.0][: image.GetDimension()])
            SimpleITK.WriteImage(image, str(path))
        else:
            files = dicom_series(folder / "series", voxels, affine=affine)
            if kind == "dicom":
                return folder / "series"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in files:
                    archive.write(file, file.name)
            shutil.rmtree(folder / "series")
        return path

    return write


def with_value(value: float) -> np.ndarray:
    voxels = head(np.float32)
    voxels[3, 4, 5] = value
    return voxels


UNUSABLE: dict[str, np.ndarray] = {
    "all zero": np.zeros((20, 24, 8), np.int16),
    "constant": np.full((20, 24, 8), 700, np.int16),
    "smaller than the network's stride": head()[:3, :3],
    "NaN": with_value(np.nan),
    "infinite": with_value(-np.inf),
    "many volumes": np.stack([head()] * 3, axis=-1),
}


# A DICOM series of images holds neither NaN nor a fourth axis.
UNUSABLE_BY_KIND = [
    (case, kind)
    for case, voxels in UNUSABLE.items()
    for kind in KINDS
    if kind not in ("dicom", ".zip") or (voxels.ndim == 3 and voxels.dtype.kind == "i")
]


@pytest.mark.parametrize(("case", "kind"), UNUSABLE_BY_KIND)
def test_voxels_that_are_no_scan_are_refused_whatever_the_kind_of_file(
    case: str, kind: str, attempt: Callable[..., int], save: Callable[..., Path]
) -> None:
    assert attempt(save(kind, UNUSABLE[case])) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing_mm", [1e-4, 1e5])
def test_voxels_of_absurd_size_are_refused(
    spacing_mm: float, kind: str, attempt: Callable[..., int], save: Callable[..., Path]
) -> None:
    assert attempt(save(kind, head(), np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1]))) in (1, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 4096, b"not a scan\n" * 99, b"\x1f\x8b", b"PK\x03\x04", b"NRRD0004\n"]
)
def test_files_of_anything_else_are_refused(
    content: bytes, kind: str, attempt: Callable[..., int], tmp_path: Path
) -> None:
    path = tmp_path / "given" / ("series" if kind == "dicom" else "") / f"scan{'.dcm' if kind == 'dicom' else kind}"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert attempt(path.parent if kind == "dicom" else path) in (1, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_or_a_folder_instead_of_a_file_is_refused(
    kind: str, attempt: Callable[..., int], tmp_path: Path
) -> None:
    path = tmp_path / "given" / f"scan{kind}"
    assert attempt(path) == 2
    path.mkdir(parents=True)
    assert attempt(path) == 2
    if hasattr(os, "mkfifo"):
        os.mkfifo(path.parent / f"pipe{kind}")
        assert attempt(path.parent / f"pipe{kind}") in (1, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", ["--mask", "--brain-mask"])
def test_a_mask_on_another_grid_or_of_nothing_is_refused(
    option: str, kind: str, attempt: Callable[..., int], save: Callable[..., Path], tmp_path: Path
) -> None:
    path = save(kind, head())
    for name, voxels in (("other", np.ones((9, 9, 9), np.uint8)), ("text", None)):
        mask = tmp_path / f"{name}.nii"
        mask.write_bytes(b"text" if voxels is None else nifti(voxels))
        assert attempt(path, option, str(mask)) in (1, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_folder_that_cannot_be_written_is_refused(
    kind: str, trained: Path, save: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(kind, head())
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        main(["synthesize", str(path), "-b", str(trained), "-o", str(tmp_path / "file" / "out"), "--device", "cpu"])
    assert stop.value.code in (1, 2)
    said = capfd.readouterr().err
    assert "choose a writable output folder" in said
    assert "Traceback" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of the system")
@pytest.mark.parametrize("kind", [".nii", "dicom"])
def test_a_disk_that_is_full_leaves_nothing_half_written(
    kind: str, trained: Path, save: Callable[..., Path], tmp_path: Path
) -> None:
    """A limit on the size of files stands in for the disk: the first large file cannot be finished."""
    noise = np.random.default_rng(0).integers(300, 900, (60, 60, 20)).astype(np.int16)
    path = save(kind, np.where(np.pad(np.ones((50, 50, 20)), ((5, 5), (5, 5), (0, 0))) > 0, noise, 0).astype(np.int16))
    limited = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)); "
        "runpy.run_module('pipeline.cli', run_name='__main__', alter_sys=True)"
    )
    arguments = ["synthesize", path, "-b", trained, "-o", tmp_path / "out", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", limited, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert "file too large" in done.stderr or "free some" in done.stderr
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]


SHAPES = {
    "one voxel": (1, 1, 1),
    "one slice": (40, 40, 1),
    "one column": (1, 40, 40),
    "tiny slices": (3, 3, 30),
    "wide": (600, 600, 2),
    "long": (24, 24, 300),
    "2000 x 2000": (2000, 2000, 1),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_unusual_shapes_in_all_data_types(
    shape: tuple[int, int, int], dtype: type, attempt: Callable[..., int], tmp_path: Path
) -> None:
    voxels = np.random.default_rng(0).integers(20, 120, shape).astype(dtype)
    (tmp_path / "scan.nii").write_bytes(nifti(voxels, np.eye(4)))
    attempt(tmp_path / "scan.nii", "--whole")


def test_a_scan_of_512_x_512_x_1200_is_made_in_bounded_memory(trained: Path, tmp_path: Path) -> None:
    """A process of its own tells its peak: 315 million voxels, some of them in several arrays of 4 bytes."""
    shape = (512, 512, 1200)
    voxels = np.zeros(shape, np.uint8)
    voxels[100:400, 100:400, 100:1100] = np.random.default_rng(0).integers(60, 120, (300, 300, 1000), np.uint8)
    (tmp_path / "scan.nii").write_bytes(nifti(voxels, np.diag([-0.4, -0.4, 0.15, 1.0])))
    del voxels
    measured = (
        "import resource, runpy\ntry:\n runpy.run_module('pipeline.cli', run_name='__main__', alter_sys=True)\n"
        "finally:\n print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    arguments = ["synthesize", tmp_path / "scan.nii", "-b", trained, "-o", tmp_path / "out", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", measured, *map(str, [*arguments, "--no-page"])],
        capture_output=True,
        text=True,
        timeout=10 * SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert nib.load(tmp_path / "out" / "scan_desc-pseudohealthy.nii.gz").shape == shape
    if sys.platform == "linux":  # in KiB there
        assert int(done.stdout.split()[-1]) < 10 << 20


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize(
    ("low", "high"), [(-1, 1), (0, 1), (0.9, 1), (-1, -0.5)], ids=["both ends", "from zero", "near the top", "negative"]
)
def test_intensities_at_the_ends_of_the_type(
    dtype: type, low: float, high: float, attempt: Callable[..., int], tmp_path: Path
) -> None:
    limits = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(np.float32)
    ends = np.clip(np.array([low, high]) * float(limits.max), float(limits.min), float(limits.max))
    share = head(np.float64) / head(np.float64).max()
    voxels = ends[0] + share * (ends[1] - ends[0])
    (tmp_path / "scan.nii").write_bytes(nifti(np.clip(voxels, float(limits.min), float(limits.max)).astype(dtype)))
    attempt(tmp_path / "scan.nii", "--whole")


@pytest.mark.parametrize("voxels", [1000, 1024, 4000, 32767])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_header_that_claims_gigabytes_allocates_none(
    voxels: int, suffix: str, attempt: Callable[..., int], tmp_path: Path
) -> None:
    content = claiming(voxels)
    (tmp_path / f"scan{suffix}").write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    assert attempt(tmp_path / f"scan{suffix}") == 1


ATTRIBUTES: dict[str, dict[str, object]] = {
    "no position": {"ImagePositionPatient": None},
    "no orientation": {"ImageOrientationPatient": None},
    "no spacing": {"PixelSpacing": None},
    "all in one place": {"ImagePositionPatient": [0.0, 0.0, 0.0]},
    "orientation of zeros": {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
    "skewed orientation": {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
    "negative spacing": {"PixelSpacing": [-1, -1]},
    "spacing of zero": {"PixelSpacing": [0, 0]},
    "one instance UID": {"SOPInstanceUID": "1.2.3"},
    "inverted": {"PhotometricInterpretation": "MONOCHROME1"},
    "colour": {"PhotometricInterpretation": "RGB"},
    "no rows": {"Rows": None},
    "rows of another image": {"Rows": 9999},
    "bits that do not fit": {"BitsStored": 40},
    "slope of zero": {"RescaleSlope": 0, "RescaleIntercept": 0},
    "synthetic": {"SyntheticData": "YES"},
    "mixed orientations": {"ImageOrientationPatient": lambda k: [1, 0, 0, 0, 1, 0] if k % 2 else [0, 1, 0, 0, 0, 1]},
}


@pytest.mark.parametrize("attributes", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_series_whose_attributes_place_them_nowhere_or_are_no_image(
    attributes: dict[str, object],
    attempt: Callable[..., int],
    dicom_series: Callable[..., list[Path]],
    tmp_path: Path,
) -> None:
    dicom_series(tmp_path / "series", head(), affine=np.diag([-1.0, -1.0, 2.0, 1.0]), **attributes)
    assert attempt(tmp_path / "series") in (1, 2)


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_series_of_two_people_studies_or_spaces_is_refused(
    keyword: str, attempt: Callable[..., int], dicom_series: Callable[..., list[Path]], tmp_path: Path
) -> None:
    for file in dicom_series(tmp_path / "series", head(), affine=np.diag([-1.0, -1.0, 2.0, 1.0]))[4:]:
        dataset = pydicom.dcmread(file)
        setattr(dataset, keyword, "9.8.7654")
        dataset.save_as(file)
    assert attempt(tmp_path / "series") in (1, 2)


@pytest.mark.parametrize("missing", range(1, 7))
def test_a_series_with_a_slice_missing_is_refused(
    missing: int, attempt: Callable[..., int], dicom_series: Callable[..., list[Path]], tmp_path: Path
) -> None:
    files = dicom_series(tmp_path / "series", head(), affine=np.diag([-1.0, -1.0, 2.0, 1.0]))
    files[missing].unlink()
    assert attempt(tmp_path / "series") in (1, 2)


@pytest.mark.parametrize("name", ["../evil.dcm", "/evil.dcm", "a/../../evil.dcm", "..\\evil.dcm", "C:\\evil.dcm"])
def test_a_zip_whose_members_lead_out_writes_nothing_outside(
    name: str, attempt: Callable[..., int], dicom_series: Callable[..., list[Path]], tmp_path: Path
) -> None:
    files = dicom_series(tmp_path / "series", head(), affine=np.diag([-1.0, -1.0, 2.0, 1.0]))
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "scan.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
        archive.write(files[0], name)
    attempt(tmp_path / "in" / "scan.zip")
    assert not list(tmp_path.rglob("*evil*"))
    assert not Path("/evil.dcm").exists()


def test_a_zip_bomb_and_a_link_are_refused(attempt: Callable[..., int], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.dcm", b"\0" * (200 << 20))
    assert attempt(tmp_path / "bomb.zip") in (1, 2)
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert attempt(tmp_path / "link.zip") in (1, 2)


def test_a_dicom_file_that_claims_gigabytes_is_refused(
    attempt: Callable[..., int], dicom_series: Callable[..., list[Path]], tmp_path: Path
) -> None:
    for file in dicom_series(tmp_path / "series", head(), affine=np.diag([-1.0, -1.0, 2.0, 1.0])):
        dataset = pydicom.dcmread(file)
        dataset.Rows = dataset.Columns = 32000
        dataset.save_as(file)
    assert attempt(tmp_path / "series") in (1, 2)
