"""The panels of one slice: right pixels, right sizes, marked as what they are."""

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.inference.enhance import enhance
from pipeline.inference.products import Product, Result
from pipeline.reports import slice_view as module
from pipeline.reports.plane import AXIAL, CORONAL, SAGITTAL, Plane
from pipeline.reports.slice_view import HEAT_COLOURS, layers, slice_view
from pipeline.reports.survey import survey


def view(result: Result, plane: Plane = AXIAL, index: int = 6) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    drawn = slice_view(plane, index, result, layers(result), survey(result))
    pictures: dict[str, Image.Image] = {
        panel["id"].split("-")[-1]: Image.open(io.BytesIO(base64.b64decode(panel["uri"].partition(",")[2])))
        for panel in drawn["panels"]
    }
    return drawn, pictures


def rgb(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"))


# Within the box, which starts 2 pixels from the front and 1 from the right.
LESION = (slice(6, 12), slice(6, 10))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PSR"])
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -100.0)])
def test_pixels_are_the_scan_in_its_window(
    make_result: Callable[..., Result], axes: str, slope: float, intercept: float
) -> None:
    _, pictures = view(make_result(axes, np.int32, slope, intercept))
    before, after = np.asarray(pictures["input"]), np.asarray(pictures["image0"])
    assert before.dtype == np.uint8
    assert before.shape == (32, 28)
    assert (before[LESION] == round(0.9 * 255)).all()
    assert (after[LESION] == round(0.4 * 255)).all()
    assert before[0, 0] == 0
    outside = np.ones(before.shape, dtype=bool)
    outside[LESION] = False
    assert (before == after)[outside].all()


def test_the_difference_is_red_where_taken_away_blue_where_added_and_black_where_equal(
    make_result: Callable[..., Result],
) -> None:
    def brighten(stored: np.ndarray, made: np.ndarray) -> None:
        made[8, 8, 6] += 400
        made[10, 8, 6] += 75  # a quarter of full colour

    picture = rgb(view(make_result(mend=brighten))[1]["difference0"])
    assert (picture[LESION] == (255, 114, 0)).all()
    row, column = 36 - 1 - 8 - 2, 30 - 1 - 8 - 1
    assert picture[row, column].tolist() == [0, 114, 255]
    assert 60 <= picture[row, column - 2, 2] <= 67
    assert not picture[16, 14].any()


def test_a_pixel_is_as_large_as_in_the_body(result: Result) -> None:
    for plane, index, size in ((AXIAL, 6, (56, 64)), (CORONAL, 24, (56, 60)), (SAGITTAL, 20, (64, 60))):
        drawn, _ = view(result, plane, index)
        assert (drawn["width_mm"], drawn["height_mm"]) == size
        assert drawn["drawn_mm"] == size


def test_the_lesion_is_outlined_on_the_input_alone(result: Result) -> None:
    drawn, _ = view(result)
    borders = [panel["outlines"] for panel in drawn["panels"]]
    assert borders == [[("M6 6h4M6 12h4M6 6v6M10 6v6", "rgb(255,196,0)")], [], []]
    assert "lesion mask 1.0 cm²" in drawn["caption"]  # 4 × 6 pixels of 2 × 2 mm


def test_pictures_of_synthetic_pixels_say_so_and_carry_it_in_the_file(
    make_result: Callable[..., Result], lesion: np.ndarray
) -> None:
    drawn, pictures = view(make_result(deviation=np.zeros(lesion.shape, dtype=np.float32)))
    assert [panel["synthetic"] for panel in drawn["panels"]] == [False, True, True, True]
    assert ["SYNTHETIC" in panel["alt"] for panel in drawn["panels"]] == [False, True, True, True]
    assert ["Warning" in picture.info for picture in pictures.values()] == [False, True, True, True]


def test_uncertainty_is_brightest_at_a_tenth_of_the_window(
    make_result: Callable[..., Result], lesion: np.ndarray
) -> None:
    picture = rgb(view(make_result(deviation=np.where(lesion, np.float32(100), np.float32(0))))[1]["map0"])
    assert (picture[LESION] == (252, 255, 164)).all()
    assert not picture[0, 0].any()


def test_large_slices_are_averaged_and_keep_their_size_in_millimetres(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_SIDE", 10)
    drawn, pictures = view(result)
    assert pictures["input"].size == (10, 8)  # 28 columns by 3, 32 rows by 4
    assert (drawn["width_mm"], drawn["height_mm"]) == (56, 64)
    assert drawn["drawn_mm"] == (60, 64)
    assert np.asarray(pictures["input"])[2, 3] == pytest.approx(round((0.4 + 0.5 / 3) * 255), abs=1)


def test_the_side_of_a_sagittal_slice_is_told(result: Result) -> None:
    assert "11 mm to the right of the body's middle" in view(result, SAGITTAL, 20)[0]["caption"]
    assert "9 mm to the left of the body's middle" in view(result, SAGITTAL, 10)[0]["caption"]


def test_ends_of_what_was_edited_are_marked_across_the_slices(result: Result) -> None:
    assert view(result, AXIAL)[0]["slab_mm"] == []
    assert view(result, CORONAL, 24)[0]["slab_mm"] == [15, 45]  # slices 3 to 8 of 0 to 11, from the top


def test_letters_are_doubted_where_the_header_does_not_tell_sides(make_result: Callable[..., Result]) -> None:
    assert view(make_result())[0]["ends"] == ("R", "L", "A", "P")
    assert view(make_result(codes=0))[0]["ends"] == ("R?", "L?", "A?", "P?")


class TestKinds:
    def test_masks_and_maps_without_an_image_have_panels_and_each_mask_a_border_of_its_colour(
        self, segmented: Result
    ) -> None:
        drawn, pictures = view(segmented)
        assert list(pictures) == ["input", "mask0", "mask1", "map0", "map1"]
        assert [panel["synthetic"] for panel in drawn["panels"]] == [False, True, True, True, True]
        colours = [colour for _, colour in drawn["panels"][0]["outlines"]]
        assert colours == ["rgb(255,196,0)", "rgb(86,180,233)"]
        mask = rgb(pictures["mask0"])
        assert (mask[LESION] == (255, 196, 0)).all()
        assert (mask == (255, 196, 0)).all(axis=2).sum() == 24
        assert not mask[0, 0].any()
        assert (rgb(pictures["mask1"])[LESION] == (86, 180, 233)).all()

    def test_a_probability_of_1_has_full_colour(self, segmented: Result) -> None:
        assert [layer.full for layer in layers(segmented)] == [1, 1, 1, 1]
        picture = rgb(view(segmented)[1]["map0"])
        assert np.abs(picture[LESION].astype(int) - HEAT_COLOURS[-1]).max() <= 3
        assert picture[0, 0].max() <= 3

    def test_a_map_in_other_units_has_full_colour_at_its_largest_value(self, result: Result) -> None:
        values = result.region * np.float32(7)
        thickness = Product("thickness", "map", values, "mm", "thickness", "Thickness of the skull")
        (layer,) = layers(replace(result, products=(thickness,)))
        assert layer.full == 7

    def test_of_a_number_there_is_the_input_alone(self, scored: Result) -> None:
        drawn, pictures = view(scored)
        assert list(pictures) == ["input"]
        assert drawn["caption"] == "Axial slice 7 of 12"

    def test_products_that_are_only_shown_have_panels_too(self, result: Result) -> None:
        _, pictures = view(enhance(result, 1.0))
        assert list(pictures) == ["input", "image0", "image1", "difference0"]
        assert (np.asarray(pictures["image0"])[LESION] == 255).all()
        assert (np.asarray(pictures["image1"])[LESION] == round(0.4 * 255)).all()
