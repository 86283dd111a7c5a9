"""FreeSurfer's volumes: read onto their own grid, refused where they are damaged or say nothing of space."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import ScanError, UsageError
from pipeline.scans.freesurfer import read_mgh, write_mgh

# As recon-all conforms: left, inferior, anterior.
AFFINE = np.array([[-1.0, 0, 0, 16], [0, 0, 1, -12], [0, -1, 0, 10], [0, 0, 0, 1]])


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2036, (8, 9, 10)).astype(np.int32)


@pytest.fixture
def path(labels: np.ndarray, tmp_path: Path) -> Path:
    nib.save(nib.MGHImage(labels, AFFINE), tmp_path / "aseg.mgz")
    return tmp_path / "aseg.mgz"


def test_voxels_and_place_are_those_of_the_file(path: Path, labels: np.ndarray) -> None:
    scan = read_mgh(path)
    np.testing.assert_array_equal(scan.stored, labels)
    np.testing.assert_allclose(scan.affine, AFFINE)
    assert scan.stored.dtype.isnative


@pytest.mark.parametrize("name", ["out.mgz", "out.mgh"])
def test_what_is_written_is_read_again(path: Path, labels: np.ndarray, tmp_path: Path, name: str) -> None:
    write_mgh(tmp_path / name, labels + 1, read_mgh(path))
    again = nib.load(tmp_path / name)
    np.testing.assert_array_equal(np.asarray(again.dataobj), labels + 1)
    np.testing.assert_allclose(again.affine, AFFINE, atol=1e-5)


def cut(content: bytes) -> bytes:
    return gzip.compress(gzip.decompress(content)[:-500])


def huge(content: bytes) -> bytes:
    return gzip.compress(content[:4] + (100_000).to_bytes(4, "big") * 3 + content[16:])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "cannot be read as a FreeSurfer volume"),
        (lambda content: content[: len(content) // 2], "cannot be read as a FreeSurfer volume"),
        (lambda content: content[:-8] + bytes(4) + content[-4:], "CRC check failed"),
        (lambda content: b"no volume", "cannot be read as a FreeSurfer volume"),
        (lambda content: huge(gzip.decompress(content)), "where its header claims"),
        (lambda content: gzip.compress(without_space(gzip.decompress(content))), "does not say how it lies in space"),
        (lambda content: gzip.compress(several(gzip.decompress(content))), "expected a single one with three axes"),
    ],
    ids=["cut", "cut archive", "checksum", "other", "huge", "without space", "several"],
)
def test_a_damaged_file_is_refused_in_a_sentence(path: Path, damage: Callable[[bytes], bytes], said: str) -> None:
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ScanError, match=said):
        read_mgh(path)


def without_space(content: bytes) -> bytes:
    return content[:28] + bytes(2) + content[30:]


def several(content: bytes) -> bytes:
    return content[:16] + (2).to_bytes(4, "big") + content[20:]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_mgh(tmp_path / "gone.mgz")
