"""Methods side by side on the same slices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import ImageFont

from pipeline.comparison import Report
from pipeline.errors import UsageError
from pipeline.evaluation.twins import Twins, write_twins
from pipeline.mosaic import PANEL_PIXELS, TITLE_HEIGHT
from pipeline.reports.comparison_panel import ShownCase, _synthetic, choose_cases, panel

HEALTHINESS = {"sub-a": 0.2, "sub-b": 0.9, "sub-c": 0.5, "sub-d": 0.7, "sub-e:1": 0.6}


def images(subject: str) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Three slices, the lesion of the second is the largest."""
    image = np.zeros((3, 20, 24), np.float32)
    image[:, 4:16, 5:20] = 0.4
    lesion = np.zeros(image.shape, bool)
    for place, side in enumerate((1, 4, 2)):
        lesion[place, 6 : 6 + side, 8 : 8 + side] = True
    return image + np.float32(0.4) * lesion, lesion, image > 0


def report(
    folder: Path,
    method: str,
    change: Callable[[NDArray[np.float32], NDArray[np.bool_]], Any] = lambda image, lesion: image,
    controls: tuple[str, ...] = ("untouched input", "mean-filled lesion"),
) -> Report:
    for subject in HEALTHINESS:
        image, lesion, foreground = images(subject)
        twin = change(image, lesion)
        write_twins(folder / "twins", Twins(subject, np.array([2, 5, 6]), image, twin, lesion, foreground, (1.0, 1.0)))
    volumes = pd.DataFrame(
        [
            {"method": name, "subject": subject, "healthiness": healthiness}
            for name in (method, *controls)
            for subject, healthiness in HEALTHINESS.items()
        ]
    )
    return Report(folder, method, {}, volumes, {}, {})


def tiles(picture: Any, columns: int) -> list[list[NDArray[np.int64]]]:
    """The panels of a picture of one block, by row and column."""
    pixels = np.asarray(picture).astype(int)
    assert pixels.shape[1] == columns * PANEL_PIXELS
    rows = [pixels[TITLE_HEIGHT + PANEL_PIXELS * row :][:PANEL_PIXELS] for row in (0, 1)]
    return [np.split(row, columns, axis=1) for row in rows]


def coloured(tile: NDArray[np.int64]) -> bool:
    return bool((np.ptp(tile, axis=2) > 60).any())


class TestCases:
    def test_best_median_and_worst_volume_of_the_first_method(self, tmp_path: Path) -> None:
        chosen = choose_cases(report(tmp_path, "gvs"))
        assert [(case.title, case.subject, case.place) for case in chosen] == [
            ("best of gvs", "sub-b", None),
            ("median of gvs", "sub-e:1", None),
            ("worst of gvs", "sub-a", None),
        ]

    def test_wanted_subjects_and_slices_even_of_a_subject_with_a_colon(self, tmp_path: Path) -> None:
        chosen = choose_cases(report(tmp_path, "gvs"), ["sub-c", "sub-a:6", "sub-e:1", "sub-e:1:2"])
        assert [(case.subject, case.place) for case in chosen] == [
            ("sub-c", None),
            ("sub-a", 6),
            ("sub-e:1", None),
            ("sub-e:1", 2),
        ]

    @pytest.mark.parametrize("wanted", ["sub-x", "sub-a:", "sub-a:x", "sub-a:-1", ""])
    def test_what_is_no_subject_is_refused(self, tmp_path: Path, wanted: str) -> None:
        with pytest.raises(UsageError, match=r"is no SUBJECT or SUBJECT:SLICE of the reports.*sub-a"):
            choose_cases(report(tmp_path, "gvs"), [wanted])


class TestLayout:
    def test_each_case_is_a_block_of_two_rows_and_each_method_a_column_after_the_input(self, tmp_path: Path) -> None:
        reports = [report(tmp_path / name, name) for name in ("gvs", "vagan")]
        one = panel(reports, [ShownCase("chosen", "sub-a")])
        two = panel(reports, [ShownCase("chosen", "sub-a"), ShownCase("chosen", "sub-b")])
        assert one.width == two.width == 3 * PANEL_PIXELS
        assert one.height > TITLE_HEIGHT + 2 * PANEL_PIXELS
        assert two.height == 2 * one.height

    def test_the_lesion_is_outlined_beneath_the_input(self, tmp_path: Path) -> None:
        above, beneath = tiles(panel([report(tmp_path, "gvs")], [ShownCase("chosen", "sub-a")]), 2)
        assert not coloured(above[0])
        assert coloured(beneath[0])

    def test_beneath_a_twin_is_what_it_changed_and_nothing_is_black(self, tmp_path: Path) -> None:
        reports = [
            report(tmp_path / "same", "same"),
            report(tmp_path / "less", "less", lambda image, lesion: image - 0.4 * lesion),
            report(tmp_path / "more", "more", lambda image, lesion: image + 0.2 * lesion),
        ]
        above, beneath = tiles(panel(reports, [ShownCase("chosen", "sub-a")]), 4)
        assert np.array_equal(above[0], above[1])
        assert not beneath[1].any()
        assert beneath[2][..., 0].max() > 100 > beneath[2][..., 2].max()
        assert beneath[3][..., 2].max() > 80 > beneath[3][..., 0].max()

    def test_without_a_wanted_slice_the_one_with_the_largest_lesion_is_shown(self, tmp_path: Path) -> None:
        gvs = report(tmp_path, "gvs", lambda image, lesion: image - 0.4 * lesion)
        areas = {
            place: (tiles(panel([gvs], [ShownCase("chosen", "sub-a", place)]), 2)[1][1] > 60).sum()
            for place in (None, 2, 5, 6)
        }
        assert areas[None] == areas[5] > areas[6] > areas[2] > 0

    def test_controls_are_columns_when_asked_for_but_the_untouched_input_is_there_already(self, tmp_path: Path) -> None:
        picture = panel([report(tmp_path, "gvs")], [ShownCase("chosen", "sub-a")], controls=True)
        above, beneath = tiles(picture, 3)
        assert coloured(beneath[2])
        assert above[2].max() < above[0].max()

    def test_a_control_that_was_not_scored_is_not_shown(self, tmp_path: Path) -> None:
        gvs = report(tmp_path, "gvs", controls=())
        assert panel([gvs], [ShownCase("chosen", "sub-a")], controls=True).width == 2 * PANEL_PIXELS

    def test_every_twins_title_says_synthetic_and_fits_its_column(self) -> None:
        font = ImageFont.load_default(size=12)
        assert _synthetic("gvs") == "SYNTHETIC gvs"
        for name in ("W" * 200, "a b" * 90):
            title = _synthetic(name)
            assert title.startswith("SYNTHETIC ")
            assert title.endswith("…")
            assert font.getlength(title) <= PANEL_PIXELS - 8


class TestRefusals:
    def test_a_report_without_images(self, tmp_path: Path) -> None:
        gvs = report(tmp_path / "gvs", "gvs")
        (tmp_path / "old").mkdir()
        old = Report(tmp_path / "old", "old", {}, gvs.volumes, {}, {})
        with pytest.raises(UsageError, match=r"old: holds no folder twins.*evaluate. again, or give --no-panel"):
            panel([gvs, old], [ShownCase("chosen", "sub-a")])

    def test_a_slice_that_is_not_pathological(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="sub-a:3: is no pathological slice, expected one of 2, 5, 6"):
            panel([report(tmp_path, "gvs")], [ShownCase("chosen", "sub-a", 3)])

    def test_reports_of_other_images(self, tmp_path: Path) -> None:
        gvs, other = report(tmp_path / "gvs", "gvs"), report(tmp_path / "other", "other")
        image, lesion, foreground = images("sub-a")
        write_twins(
            tmp_path / "other" / "twins",
            Twins("sub-a", np.array([2, 5, 6]), image / np.float32(2), image, lesion, foreground, (1.0, 1.0)),
        )
        with pytest.raises(UsageError, match=r"other and .*gvs: show other images of sub-a"):
            panel([gvs, other], [ShownCase("chosen", "sub-a")])

    def test_a_damaged_volume(self, tmp_path: Path) -> None:
        gvs = report(tmp_path, "gvs")
        (tmp_path / "twins" / "sub-a.npz").write_bytes(b"PK\x03\x04")
        with pytest.raises(UsageError, match=r"sub-a\.npz: missing or damaged"):
            panel([gvs], [ShownCase("chosen", "sub-a")])
