"""A study's folder: resumed with the same settings, refused with others, and a table in the end."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import UsageError
from pipeline.studies.study import mean_sd, once, open_study, over_seeds, write_study


def test_a_study_goes_on_with_the_same_settings_and_refuses_others(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    open_study(folder, {"split": "validation", "size": (64, 64)})
    (folder / "part.json").write_text("{}")
    open_study(folder, {"split": "validation", "size": (64, 64)})
    with pytest.raises(UsageError, match=r"other settings \(size, split\)"):
        open_study(folder, {"split": "test", "size": (32, 32)})
    assert json.loads((folder / "study.json").read_text()) == {"split": "validation", "size": [64, 64]}


def test_where_nothing_was_finished_the_settings_may_be_corrected(tmp_path: Path) -> None:
    open_study(tmp_path, {"preset": "lptop"})
    open_study(tmp_path, {"preset": "laptop"})
    assert json.loads((tmp_path / "study.json").read_text()) == {"preset": "laptop"}


def test_a_folder_or_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for target in (tmp_path, file):
        with pytest.raises(UsageError, match="is no study"):
            open_study(target, {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_part_is_computed_once(tmp_path: Path) -> None:
    made: list[int] = []

    def compute() -> dict[str, int]:
        made.append(1)
        return {"dice": 1}

    assert once(tmp_path / "part.json", compute) == once(tmp_path / "part.json", compute) == {"dice": 1}
    assert made == [1]


def test_a_part_that_was_stopped_leaves_nothing(tmp_path: Path) -> None:
    def stop() -> dict[str, int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(tmp_path / "part.json", stop)
    assert list(tmp_path.iterdir()) == []


def test_means_and_deviations_over_seeds_leave_out_what_could_not_be_measured() -> None:
    results = [
        {"loss": "ce", "dice": 0.5, "hd95": 3.0},
        {"loss": "dice", "dice": 0.2, "hd95": None},
        {"loss": "ce", "dice": 0.7, "hd95": None},
    ]
    ce, dice = over_seeds(results, ["loss"], ["dice", "hd95"]).to_dict("records")
    assert ce["dice"] == pytest.approx(0.6)
    assert ce["dice_sd"] == pytest.approx(0.02**0.5)  # (0.1² + 0.1²) / (2 − 1)
    assert (ce["dice_n"], ce["hd95"], ce["hd95_n"]) == (2, 3.0, 1)
    assert pd.isna(ce["hd95_sd"])
    assert pd.isna(dice["hd95"])
    assert dice["hd95_n"] == 0


def test_cells_show_a_deviation_where_there_is_one() -> None:
    row = pd.Series({"a": 0.61264, "a_sd": 0.0496, "b": 3.0, "b_sd": float("nan"), "c": float("nan"), "c_sd": 0.0})
    assert mean_sd(row, "a", 3) == "0.613 ± 0.050"
    assert mean_sd(row, "b", 1) == "3.0"
    assert mean_sd(row, "c", 1, missing="identical") == "identical"


def test_the_summary_is_valid_json_with_settings_table_and_results(tmp_path: Path) -> None:
    open_study(tmp_path, {"split": "test"})
    frame = pd.DataFrame({"alpha": [0.5], "dice": [0.25], "dice_sd": [float("nan")]})
    write_study(tmp_path, "page", frame, [{"dice": 0.25}], lambda path: path.write_bytes(b"picture"))
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["settings"] == {"split": "test"}
    assert summary["table"] == [{"alpha": 0.5, "dice": 0.25, "dice_sd": None}]
    assert summary["results"] == [{"dice": 0.25}]
    assert (tmp_path / "table.csv").read_text() == "alpha,dice,dice_sd\n0.5,0.25,\n"
    assert (tmp_path / "table.md").read_text().startswith("page\n\nResearch use only, not for diagnosis.")
    assert (tmp_path / "plot.png").read_bytes() == b"picture"
