"""Pictures of slices, the way radiologists look at them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import OutputError
from pipeline.mosaic import (
    LESION_COLOUR,
    PANEL_PIXELS,
    TITLE_HEIGHT,
    difference,
    grey,
    mosaic,
    outlined,
    save_png,
)


class TestGrey:
    def test_anterior_is_up_and_right_is_at_the_left(self) -> None:
        axial_slice = np.zeros((20, 30))  # (right, anterior)
        axial_slice[-1, -1] = 1  # the person's right, in front
        picture = grey(axial_slice)
        assert picture.shape == (30, 20, 3)
        assert picture[0, 0].tolist() == [255, 255, 255]
        assert picture.sum() == 3 * 255

    def test_values_outside_the_window_are_black_and_white(self) -> None:
        assert sorted(grey(np.array([[-1.0, 0.5, 2.0]]))[..., 0].ravel().tolist()) == [0, 127, 255]

    def test_upper_end_can_be_chosen(self) -> None:
        assert grey(np.array([[2.0]]), high=2.0).max() == 255


class TestDifference:
    def test_what_was_taken_away_is_orange_and_what_was_added_is_blue(self) -> None:
        change = np.zeros((2, 2))
        change[1, 1], change[0, 0] = 0.5, -0.5
        picture = difference(change)
        orange, blue = picture[0, 0].tolist(), picture[1, 1].tolist()
        assert orange[0] == blue[2] == 255
        assert orange[2] == blue[0] == 0
        assert orange[1] == blue[1] == 114
        assert not picture[0, 1].any()
        assert not picture[1, 0].any()

    def test_full_colour_is_reached_at_the_given_difference(self) -> None:
        assert difference(np.array([[0.1]]), full=0.1)[0, 0, 0] == 255
        assert difference(np.array([[0.1]]), full=0.2)[0, 0, 0] == 127


class TestOutlined:
    def test_border_of_the_mask_is_yellow_and_its_inside_is_the_scan(self) -> None:
        mask = np.zeros((9, 9), bool)
        mask[2:7, 3:8] = True
        picture = outlined(np.full((9, 9), 0.5), mask)
        yellow = np.flip((picture == LESION_COLOUR).all(axis=2), axis=(0, 1)).T
        assert yellow.sum() == 16
        assert yellow[2:7, 3:8].sum() == 16
        assert not yellow[3:6, 4:7].any()

    def test_a_mask_that_touches_the_edge_is_closed_there(self) -> None:
        picture = outlined(np.zeros((4, 4)), np.ones((4, 4)))
        assert (picture == LESION_COLOUR).all(axis=2).sum() == 12

    def test_no_mask_changes_nothing(self) -> None:
        axial_slice = np.linspace(0, 1, 12).reshape(3, 4)
        np.testing.assert_array_equal(outlined(axial_slice, np.zeros((3, 4))), grey(axial_slice))


class TestMosaic:
    def test_panels_stand_under_their_titles_with_square_pixels(self) -> None:
        wide, tall = np.full((20, 40, 3), 200, np.uint8), np.full((40, 20, 3), 100, np.uint8)
        picture = np.asarray(mosaic(["input", "pseudo-healthy"], [[wide, tall]] * 3))
        assert picture.shape == (TITLE_HEIGHT + 3 * PANEL_PIXELS, 2 * PANEL_PIXELS, 3)
        assert picture[:TITLE_HEIGHT, :PANEL_PIXELS].any()
        assert picture[:TITLE_HEIGHT, PANEL_PIXELS:].any()
        for row in range(3):
            panels = picture[TITLE_HEIGHT + row * PANEL_PIXELS :][:PANEL_PIXELS]
            left, right = panels[:, :PANEL_PIXELS, 0] == 200, panels[:, PANEL_PIXELS:, 0] == 100
            assert (left.any(axis=1).sum(), left.any(axis=0).sum()) == (PANEL_PIXELS // 2, PANEL_PIXELS)
            assert (right.any(axis=1).sum(), right.any(axis=0).sum()) == (PANEL_PIXELS, PANEL_PIXELS // 2)

    def test_footer_has_a_line_of_its_own(self) -> None:
        panel = np.zeros((8, 8, 3), np.uint8)
        picture = np.asarray(mosaic(["a"], [[panel]], "SYNTHETIC"))
        assert picture.shape[0] == 2 * TITLE_HEIGHT + PANEL_PIXELS
        assert picture[-TITLE_HEIGHT:].any()
        assert not picture[TITLE_HEIGHT:-TITLE_HEIGHT].any()

    def test_the_colour_of_borders_is_named_where_one_is_drawn(self) -> None:
        image, mask = np.full((40, 40), 0.5), np.zeros((40, 40))
        mask[10:20, 10:20] = 1
        drawn = mosaic(["a"] * 3, [[grey(image), grey(image), outlined(image, mask)]], "SYNTHETIC")
        named = mosaic(["a"] * 3, [[grey(image)] * 3], "SYNTHETIC; yellow: border of the mask")
        bare = mosaic(["a"] * 3, [[grey(image), grey(image), outlined(image, np.zeros((40, 40)))]], "SYNTHETIC")
        footers = [np.asarray(picture)[-TITLE_HEIGHT:] for picture in (drawn, named, bare)]
        np.testing.assert_array_equal(footers[0], footers[1])
        assert not np.array_equal(footers[0], footers[2])


class TestSaving:
    def test_png_is_read_back(self, tmp_path: Path) -> None:
        picture = mosaic(["a"], [[np.full((8, 8, 3), 77, np.uint8)]])
        save_png(tmp_path / "new" / "a.png", picture)
        with Image.open(tmp_path / "new" / "a.png") as again:
            np.testing.assert_array_equal(np.asarray(again), np.asarray(picture))
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]

    def test_path_below_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError):
            save_png(tmp_path / "file" / "a.png", Image.new("RGB", (2, 2)))
