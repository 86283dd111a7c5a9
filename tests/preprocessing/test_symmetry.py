"""Slices mirrored about the line that halves a head."""

import math

import pytest
import torch

from pipeline.preprocessing.symmetry import mid_sagittal_line, mirrored_about


def test_about_the_middle_a_slice_is_flipped():
    slices = torch.rand(2, 3, 8, 6)
    torch.testing.assert_close(mirrored_about(slices, 0.0, 0.0), slices.flip(2))


def test_about_a_line_beside_the_middle_rows_move_and_beyond_the_image_there_is_nothing():
    slices = torch.arange(1.0, 9)[None, None, :, None].expand(1, 1, 8, 4)
    # Row h goes to row 9 − h: the line lies one pixel beyond the middle, between rows 4 and 5.
    mirrored = mirrored_about(slices, 0.0, 1.0)[0, 0, :, 0]
    assert mirrored.tolist() == pytest.approx([0, 0, 8, 7, 6, 5, 4, 3])


@pytest.mark.parametrize(
    ("tilt", "position"), [(0.0, 0.0), (0.0, 5.0), (math.radians(8), -3.0), (math.radians(-12), 4.0)]
)
def test_a_tilted_symmetric_head_is_its_own_mirror_image_about_its_line(tilt, position):
    h, w = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    across = h * math.cos(tilt) + w * math.sin(tilt) - position
    along = -h * math.sin(tilt) + w * math.cos(tilt)
    spots = torch.exp(-((across.abs() - 9) ** 2 + (along - 6) ** 2) / 18)
    head = (torch.exp(-((across / 20) ** 4) - (along / 25) ** 4) * (0.4 + 0.5 * spots))[None, None]
    found_tilt, found_position = mid_sagittal_line(head, torch.zeros_like(head))
    assert float(found_tilt) == pytest.approx(tilt, abs=math.radians(2))
    assert float(found_position) == pytest.approx(position, abs=1.0)
    assert (mirrored_about(head, float(found_tilt), float(found_position)) - head).abs().mean() < 0.02
