"""The table of all slices: the same as one in memory, of which memory holds little."""

import io
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from pipeline.errors import OutputError
from pipeline.evaluation import slice_table
from pipeline.evaluation.scores import score_volumes
from pipeline.evaluation.slice_table import SliceTable
from pipeline.files import table_csv, write_table
from pipeline.metrics import METRICS

WANTED = [METRICS[name] for name in ("healthiness", "psnr_normal", "ssim_normal", "healthiness_pooled")]


def rows(method: str, number: int, slices: int = 3, **own: float) -> list[dict[str, Any]]:
    """Some slices of one volume; a control's PSNR is infinite, and one slice has nothing to compare."""
    return [
        {
            "method": method,
            "patient": f"p{number // 2}",
            "subject": f"s{number}",
            "slice": place,
            "psnr_normal": math.inf if method == "=control" else 20.0 + number / (place + 1),
            "ssim_normal": math.nan if place == 1 else 1 / (number + place + 1),
            "lesion_pixels": 7 * place,
            "predicted_pixels": 2 * place,
            **own,
        }
        for place in range(slices)
    ]


def volumes(count: int) -> list[list[dict[str, Any]]]:
    return [part for number in range(count) for part in (rows("gvs", number, own_found=0.5), rows("=control", number))]


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_table, "FRAME_ROWS", 10)


@pytest.mark.usefixtures("small_frames")
def test_it_is_the_table_and_has_the_volumes_of_rows_that_are_all_in_memory(tmp_path: Any) -> None:
    parts, table = volumes(6), SliceTable()
    for part in parts:
        table.add(part)
    whole = pd.DataFrame([row for part in parts for row in part])
    frames = list(table.frames())
    assert len(frames) == 3
    assert len(table) == len(whole) == 36
    assert_frame_equal(pd.concat(frames, ignore_index=True), whole)
    assert_frame_equal(table.volumes(WANTED), score_volumes(whole, WANTED))
    write_table(tmp_path / "slices.csv", table.frames())
    text = (tmp_path / "slices.csv").read_text()
    assert text == table_csv(whole)
    assert pd.read_csv(io.StringIO(text))["method"].unique().tolist() == ["gvs", "'=control"]


def test_tables_of_every_other_volume_join_to_the_table_of_all(tmp_path: Path) -> None:
    """Each is written and read between, as shares of an evaluation are."""
    parts, whole = volumes(5), SliceTable()
    for part in parts:
        whole.add(part)
    shares = []
    for first in range(2):
        share = SliceTable()
        for part in parts:
            if int(part[0]["subject"][1:]) % 2 == first:
                share.add(part)
        about = json.loads(json.dumps(share.write(tmp_path / f"{first}.rows")))
        shares.append(SliceTable.read(tmp_path / f"{first}.rows", about))
    joined = SliceTable.joined(shares, [f"s{number}" for number in range(5)])
    assert_frame_equal(pd.concat(joined.frames()), pd.concat(whole.frames()))
    (tmp_path / "0.rows").write_bytes(b"short")
    with pytest.raises(ValueError, match="another size"):
        SliceTable.read(tmp_path / "0.rows", whole.write(tmp_path / "whole.rows"))


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    whole = SliceTable()
    whole.add(rows("gvs", 0))
    about = whole.write(tmp_path / "whole.rows")
    request.getfixturevalue("full_disk")
    with pytest.raises(OutputError, match=r"no space left on device.*TMPDIR"):
        SliceTable().add(rows("gvs", 0))
    with pytest.raises(OutputError, match=r"no space left on device.*TMPDIR"):
        SliceTable.read(tmp_path / "whole.rows", about)


def test_memory_does_not_grow_with_the_slices() -> None:
    def kept(slices: int) -> int:
        tracemalloc.start()
        table = SliceTable()
        for number in range(20):
            table.add(rows("gvs", number, slices))
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(table) == 20 * slices
        return size

    kept(10)
    assert kept(200) - kept(10) < 50_000  # 3,800 rows in memory are a megabyte and more
