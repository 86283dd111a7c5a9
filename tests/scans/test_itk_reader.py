"""ITK reads in a process of its own: its crashes, endless searches and hunger for memory are a word in a message."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from pipeline.scans import itk_reader
from pipeline.scans.itk_reader import read_with_itk


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.nrrd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)), str(path))
    return path


@pytest.fixture
def exchange(tmp_path: Path) -> Path:
    folder = tmp_path / "exchange"
    folder.mkdir()
    return folder


def test_images_come_in_order_up_to_the_first_that_cannot_be_read(image: Path, exchange: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.nrrd").write_bytes(b"NRRD0004\nnothing")
    images = read_with_itk([image, tmp_path / "damaged.nrrd", image], "", 1 << 20, exchange)
    np.testing.assert_array_equal(images[0].voxels.ravel(), np.arange(24))
    assert [each.problem for each in images] == [None, "cannot be decoded"]


def test_image_that_claims_more_than_allowed_is_not_read(image: Path, exchange: Path) -> None:
    (found,) = read_with_itk([image], "", 47, exchange)
    assert "48 bytes" in (found.problem or "")
    assert found.voxels.size == 0


def test_decoder_without_end_is_stopped(image: Path, exchange: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(itk_reader, "START_SECONDS", 0)
    (found,) = read_with_itk([image], "", 1 << 10, exchange)
    assert found.problem == "kept the decoder busy without end"


def test_decoder_that_dies_is_named(
    image: Path, exchange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("import os; os.abort()")
    monkeypatch.setattr(itk_reader, "WORKER", worker)
    (found,) = read_with_itk([image], "", 1 << 10, exchange)
    assert found.problem == "crashed the decoder"


def test_decoder_without_memory_gives_up(image: Path, exchange: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(itk_reader, "BASE_MEMORY", 1 << 20)
    (found,) = read_with_itk([image], "", 1 << 10, exchange)
    assert found.problem
