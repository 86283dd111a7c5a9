"""The panels of one slice: right pixels, right sizes, marked as what they are."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.inference.translator import Twin
from pipeline.reports import slice_view as module
from pipeline.reports.plane import AXIAL, CORONAL, SAGITTAL, Plane
from pipeline.reports.slice_view import slice_view
from pipeline.reports.survey import survey


def view(
    twin: Twin, plane: Plane = AXIAL, place: int = 6, uncertainty: np.ndarray | None = None
) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    lesion = twin.scan.stored != twin.stored
    drawn = slice_view(plane, place, twin, lesion, uncertainty, survey(twin, lesion))
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
    make_twin: Callable[..., Twin], axes: str, slope: float, intercept: float
) -> None:
    _, pictures = view(make_twin(axes, np.int32, slope, intercept))
    before, after = np.asarray(pictures["input"]), np.asarray(pictures["twin"])
    assert before.dtype == np.uint8
    assert before.shape == (32, 28)
    assert (before[LESION] == round(0.9 * 255)).all()
    assert (after[LESION] == round(0.4 * 255)).all()
    assert before[0, 0] == 0
    outside = np.ones(before.shape, dtype=bool)
    outside[LESION] = False
    assert (before == after)[outside].all()


def test_the_difference_is_red_where_taken_away_blue_where_added_and_black_where_equal(twin: Twin) -> None:
    twin.stored[8, 8, 6] += 400
    twin.stored[10, 8, 6] += 75  # a quarter of full colour
    picture = rgb(view(twin)[1]["difference"])
    assert (picture[LESION] == (255, 114, 0)).all()
    row, column = 36 - 1 - 8 - 2, 30 - 1 - 8 - 1
    assert picture[row, column].tolist() == [0, 114, 255]
    assert 60 <= picture[row, column - 2, 2] <= 67
    assert not picture[16, 14].any()


def test_a_pixel_is_as_large_as_in_the_body(twin: Twin) -> None:
    for plane, place, size in ((AXIAL, 6, (56, 64)), (CORONAL, 24, (56, 60)), (SAGITTAL, 20, (64, 60))):
        drawn, _ = view(twin, plane, place)
        assert (drawn["width_mm"], drawn["height_mm"]) == size
        assert drawn["drawn_mm"] == size


def test_the_lesion_is_outlined_on_the_input_alone(twin: Twin) -> None:
    drawn, _ = view(twin)
    borders = [panel["outline"] for panel in drawn["panels"]]
    assert borders == ["M6 6h4M6 12h4M6 6v6M10 6v6", "", ""]
    assert "1.0 cm² taken for disease" in drawn["caption"]  # 4 × 6 pixels of 2 × 2 mm


def test_pictures_of_synthetic_pixels_say_so_and_carry_it_in_the_file(twin: Twin) -> None:
    drawn, pictures = view(twin, uncertainty=np.zeros(twin.stored.shape, dtype=np.float32))
    assert [panel["synthetic"] for panel in drawn["panels"]] == [False, True, True, True]
    assert ["SYNTHETIC" in panel["alt"] for panel in drawn["panels"]] == [False, True, True, True]
    assert ["Warning" in picture.info for picture in pictures.values()] == [False, True, True, True]


def test_uncertainty_is_brightest_at_a_tenth_of_the_window(twin: Twin) -> None:
    uncertainty = np.zeros(twin.stored.shape, dtype=np.float32)
    uncertainty[19:23, 22:28, 6] = 100
    picture = rgb(view(twin, uncertainty=uncertainty)[1]["uncertainty"])
    assert (picture[LESION] == (252, 255, 164)).all()
    assert not picture[0, 0].any()


def test_large_slices_are_averaged_and_keep_their_size_in_millimetres(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_SIDE", 10)
    drawn, pictures = view(twin)
    assert pictures["input"].size == (10, 8)  # 28 columns by 3, 32 rows by 4
    assert (drawn["width_mm"], drawn["height_mm"]) == (56, 64)
    assert drawn["drawn_mm"] == (60, 64)
    assert np.asarray(pictures["input"])[2, 3] == pytest.approx(round((0.4 + 0.5 / 3) * 255), abs=1)


def test_the_side_of_a_sagittal_slice_is_told(twin: Twin) -> None:
    assert "11 mm to the right of the body's middle" in view(twin, SAGITTAL, 20)[0]["caption"]
    assert "9 mm to the left of the body's middle" in view(twin, SAGITTAL, 10)[0]["caption"]


def test_ends_of_what_was_edited_are_marked_across_the_slices(twin: Twin) -> None:
    assert view(twin, AXIAL)[0]["slab_mm"] == []
    assert view(twin, CORONAL, 24)[0]["slab_mm"] == [15, 45]  # slices 3 to 8 of 0 to 11, from the top


def test_letters_are_doubted_where_the_header_does_not_tell_sides(make_twin: Callable[..., Twin]) -> None:
    assert view(make_twin())[0]["ends"] == ("R", "L", "A", "P")
    assert view(make_twin(codes=0))[0]["ends"] == ("R?", "L?", "A?", "P?")
