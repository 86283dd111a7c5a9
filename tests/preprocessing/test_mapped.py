"""Arrays in a file: what was written is read, by whichever process, and memory is not what holds it."""

import gc
import operator
import os
import tempfile
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import Dataset

from pipeline.errors import OutputError
from pipeline.phantoms.lesion_slices import LABELS, LesionSlices
from pipeline.preprocessing.degradation import ThickSlices
from pipeline.preprocessing.degraded import DegradedDataset
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.hole_slices import HoleDataset
from pipeline.preprocessing.mapped import DiskArray, Mapped
from pipeline.preprocessing.slices import SliceDataset

GRID = Grid(2.0, (96, 112))


def written(*parts: np.ndarray, inner: tuple[int, ...] = (3, 4)) -> Mapped:
    array = DiskArray(np.uint16, inner)
    for part in parts:
        array.append(part)
    return array.mapped()


def test_parts_lie_one_after_the_other() -> None:
    parts = [np.full((count, 3, 4), count, np.uint16) for count in (2, 0, 5)]
    array = DiskArray(np.uint16, (3, 4))
    assert [array.append(part) for part in parts] == [slice(0, 2), slice(2, 2), slice(2, 7)]
    mapped = array.mapped()
    np.testing.assert_array_equal(mapped.array, np.concatenate(parts))
    assert not mapped.array.flags.writeable


def test_nothing_at_all_is_an_empty_array() -> None:
    assert written().array.shape == (0, 3, 4)


def test_a_part_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected parts of shape \(N, 3, 4\), found \(2, 4, 3\)"):
        written(np.zeros((2, 4, 3)))


def test_the_file_has_no_name_that_a_killed_process_could_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mapped = written(np.ones((2, 3, 4)))
    assert list(tmp_path.iterdir()) == []
    assert mapped.array.sum() == 24


def test_a_folder_without_room_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(OutputError, match=r"absent: cannot be written .*TMPDIR"):
        written()


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_told_whenever_it_fills() -> None:
    with pytest.raises(OutputError, match=r"no space left on device.*TMPDIR"):
        written(np.ones((1, 3, 4)))
    with pytest.raises(OutputError, match=r"no space left on device.*TMPDIR"):
        DiskArray(np.uint16, (1000, 1000)).append(np.ones((1, 1000, 1000)))


@pytest.mark.skipif(os.name == "nt", reason="there the array is copied")
def test_a_process_that_is_started_gets_the_file_and_no_copy() -> None:
    mapped = written(np.arange(2 * 3 * 4).reshape(2, 3, 4))
    large = written(np.zeros((20_000, 3, 4)))
    assert len(ForkingPickler.dumps(large)) < 2_000
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(operator.attrgetter("array"), mapped).result().tolist() == mapped.array.tolist()


def test_memory_does_not_hold_what_was_written() -> None:
    part = np.ones((1000, 64, 64), np.uint16)  # 8 MB
    tracemalloc.start()
    array = DiskArray(np.uint16, (64, 64))
    for _ in range(8):
        array.append(part)
    mapped = array.mapped()
    assert mapped.array[-1].sum() == 64 * 64
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "make",
    [
        lambda cohort: SliceDataset(cohort, "training", GRID, LABELS),
        lambda cohort: HoleDataset(cohort, "training", GRID),
        lambda cohort: LesionSlices(cohort, "training", GRID),
        lambda cohort: DegradedDataset(cohort, "training", GRID, ThickSlices(2, thickest_mm=20.0)),
    ],
    ids=["slices", "holes", "lesions", "thick slices"],
)
def test_what_a_dataset_keeps_in_memory_is_little_of_its_slices(
    make: Callable[[Path], Dataset[Any]], phantom_cohort: Path
) -> None:
    make(phantom_cohort)  # loads what is kept for all
    gc.collect()
    tracemalloc.start()
    kept = make(phantom_cohort)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept) > 0  # type: ignore[arg-type]
    pixels = 4 * 12 * GRID.size[0] * GRID.size[1]
    assert size < pixels / 2  # the images are two bytes of each, a region one
