"""Shares of an evaluation: all of one number, of one evaluation, and whole, or a sentence that says which is not."""

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.evaluation.shares import FOLDER, Share, has_shares, read_shares, remove_shares, write_share
from pipeline.evaluation.slice_table import SliceTable

WANTED = {"cohort": "a", "method": {"name": "gvs", "provenance": ("b",)}}


def share(subject: str, **wanted: object) -> Share:
    table = SliceTable()
    table.add([{"method": "gvs", "patient": "p", "subject": subject, "slice": 0, "psnr_normal": 20.0}])
    return Share({**WANTED, **wanted}, table, {"available": ["twin"]})


@pytest.fixture
def report(tmp_path: Path) -> Path:
    for part, subject in enumerate(("s0", "s1")):
        write_share(tmp_path, (part, 2), share(subject))
    return tmp_path


def test_they_come_back_in_order_and_are_gone_when_the_report_is_made(report: Path) -> None:
    first, second = read_shares(report, WANTED)
    assert [*first.slices.subjects, *second.slices.subjects] == ["s0", "s1"]
    assert next(second.slices.frames())[["subject", "psnr_normal"]].to_numpy().tolist() == [["s1", 20.0]]
    assert second.sums == {"available": ["twin"]}
    remove_shares(report)
    assert not has_shares(report)
    assert not (report / FOLDER).exists()


def test_one_that_is_measured_again_takes_the_place_of_the_first(report: Path) -> None:
    write_share(report, (1, 2), share("s3"))
    assert read_shares(report, WANTED)[1].slices.subjects == ["s3"]


def test_what_is_missing_damaged_or_of_another_evaluation_is_named(report: Path) -> None:
    with pytest.raises(UsageError, match="share 0 was measured with another cohort than is asked for"):
        read_shares(report, {**WANTED, "cohort": "c"})
    (report / FOLDER / "1_of_2.rows").write_bytes(b"")
    with pytest.raises(UsageError, match=r"1_of_2.json: damaged, .* --num-parts 2 --part-id 1 again"):
        read_shares(report, WANTED)
    (report / FOLDER / "1_of_2.json").unlink()
    with pytest.raises(UsageError, match="share 1 of 2 is missing"):
        read_shares(report, WANTED)
    write_share(report, (0, 3), share("s0"))
    with pytest.raises(UsageError, match="holds shares of 2 and of 3, expected those of one number"):
        read_shares(report, WANTED)
