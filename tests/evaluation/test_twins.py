"""The images of an evaluation survive the way to disk and back."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.evaluation.twins import Twins, read_twins, write_twins


def twins() -> Twins:
    draw = np.random.default_rng(0)
    image, twin = draw.random((2, 3, 5, 7)).astype(np.float32)
    return Twins("sub-1", np.array([2, 5, 9]), image, twin, image > 0.8, image > 0.1, (1.0, 0.5))


def test_images_come_back_to_a_level_of_16_bits_and_masks_exactly(tmp_path: Path) -> None:
    written = twins()
    write_twins(tmp_path, written)
    found = read_twins(tmp_path / "sub-1.npz")
    assert (found.subject, found.spacing_mm) == ("sub-1", (1.0, 0.5))
    np.testing.assert_array_equal(found.places, written.places)
    np.testing.assert_array_equal(found.lesion, written.lesion)
    np.testing.assert_array_equal(found.foreground, written.foreground)
    for name in ("image", "twin"):
        np.testing.assert_allclose(getattr(found, name), getattr(written, name), atol=0.5 / 65535 + 1e-7)
        assert getattr(found, name).dtype == np.float32


@pytest.mark.parametrize("damage", [b"", b"no archive"])
def test_a_damaged_or_missing_file_is_said_in_a_sentence(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "sub-1.npz"
    with pytest.raises(UsageError, match=r"sub-1\.npz: missing or damaged"):
        read_twins(path)
    path.write_bytes(damage)
    with pytest.raises(UsageError, match=r"sub-1\.npz: missing or damaged"):
        read_twins(path)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "sub-1.npz"
    np.savez(path, places=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UsageError, match="missing or damaged"):
        read_twins(path)


def damaged(path: Path, **changes: object) -> Path:
    write_twins(path.parent, twins())
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez_compressed(path, **{**arrays, **changes})
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"places": np.array([[1, 2, 3]])},
        {"places": np.array([1.5, 2.0, 3.0])},
        {"image": np.zeros((3, 5, 6), np.uint16)},
        {"twin": np.zeros((2, 5, 7), np.uint16)},
        {"image": np.full((3, 5, 7), np.nan)},
        {"lesion": np.zeros((3, 5, 7), np.float32)},
        {"spacing_mm": np.array([1.0, np.nan])},
        {"spacing_mm": np.array([1e9, 1.0])},
        {"spacing_mm": np.array([1.0, 1.0, 1.0])},
    ],
    ids=str,
)
def test_arrays_that_are_no_volume_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"sub-1\.npz: missing or damaged"):
        read_twins(damaged(tmp_path / "sub-1.npz", **changes))


def test_a_small_file_that_would_fill_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = damaged(tmp_path / "sub-1.npz", more=np.zeros(1 << 24, np.uint8))
    assert path.stat().st_size < 1 << 16
    monkeypatch.setattr("pipeline.evaluation.twins.MOST_BYTES", 1 << 22)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(UsageError, match="missing or damaged"):
        read_twins(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "sub-1.npz")
    with pytest.raises(UsageError, match="missing or damaged"):
        read_twins(tmp_path / "sub-1.npz")
