"""A mask that leaves a rim of the lesion out is told from one that does not; a mask is grown in millimetres."""

import numpy as np
import pytest

from pipeline.inference.mask_check import check_mask, grown, rim_contrast, tightness_warning

MM = (4.0, 1.0, 1.0)
SHAPE = (5, 60, 60)


def disc(radius: float) -> np.ndarray:
    axes = np.meshgrid(np.arange(60) - 29.5, np.arange(60) - 29.5, indexing="ij")
    return np.repeat((np.hypot(*axes) <= radius)[None], 5, axis=0)


@pytest.fixture
def scan() -> np.ndarray:
    """Tissue of 100 with noise, and a lesion of radius 12 mm, brighter by 80."""
    noise = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32)
    return noise + 80 * disc(12).astype(np.float32)


HEAD = disc(28)


@pytest.mark.parametrize("sign", [1, -1], ids=["bright", "dark"])
@pytest.mark.parametrize(("radius", "tight"), [(9, True), (10, True), (12, False), (14, False)])
def test_a_rim_that_is_left_out_is_warned_of(scan, radius, tight, sign):
    rim = rim_contrast(sign * scan, disc(radius), HEAD, MM)
    warning = tightness_warning(rim)
    assert (warning is not None) == tight
    if warning:
        assert "the mask looks too tight: up to 2.5 mm outside it, tissue has" in warning
        assert "--grow 2" in warning


def test_a_lesion_that_does_not_stand_out_says_nothing_of_its_mask():
    noise = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32)
    assert rim_contrast(noise, disc(9), HEAD, MM) is None
    assert tightness_warning(None) is None


def test_a_lesion_without_tissue_around_it_says_nothing(scan):
    assert rim_contrast(scan, HEAD, HEAD, MM) is None


@pytest.mark.parametrize(("grow_mm", "radius"), [(2.0, 12), (4.0, 14)])
def test_a_mask_grows_in_millimetres_and_within_the_head(grow_mm, radius):
    mask = disc(10)
    mask[[0, 1, 3, 4]] = False
    larger = grown(mask, HEAD, MM, grow_mm)
    assert larger[mask].all()
    assert not (larger[2] & ~disc(radius + 0.5)[2]).any()
    assert larger[2].sum() == pytest.approx(disc(radius)[2].sum(), rel=0.1)
    # Slices lie 4 mm apart.
    assert larger[[1, 3]].any() == (grow_mm >= 4)
    assert not larger[[0, 4]].any()
    assert not (grown(HEAD & mask, disc(11), MM, 8.0) & ~disc(11)).any()


class TestWhatIsOddAboutAMask:
    def check(self, mask, mm=MM):
        checked = check_mask(TISSUE, TISSUE / 200, mask, HEAD, mm)
        return {figure.name: figure.value for figure in checked.figures}, checked.warnings

    def test_a_whole_mask_in_the_middle_of_tissue_is_not_warned_of(self):
        mask = disc(9)
        mask[[0, -1]] = False
        figures, warnings = self.check(mask)
        assert (figures["Pieces"], figures["EnclosedMl"], figures["OutsidePercent"]) == (1, 0, 0)
        assert figures["AroundPercent"] == 100
        assert warnings == []

    def test_voxels_that_it_encloses(self):
        mask = disc(9)
        mask[[0, -1]] = False
        mask[2, 29:31, 30] = False
        figures, warnings = self.check(mask)
        assert figures["EnclosedMl"] == pytest.approx(2 * 4 / 1000)
        assert any("the mask encloses 2 voxels (0.008 ml)" in warning for warning in warnings)

    def test_specks_beside_a_lesion(self):
        mask = disc(9)
        mask[[0, -1]] = False
        mask[2, 30, 50] = mask[2, 10, 30] = True
        figures, warnings = self.check(mask)
        assert figures["Pieces"] == 3
        assert any("2 of the mask's 3 pieces are specks of fewer than 4 voxels" in warning for warning in warnings)

    def test_a_mask_that_reaches_into_air(self):
        mask = np.roll(disc(9), 24, axis=1)
        mask[[0, -1]] = False
        figures, warnings = self.check(mask)
        assert figures["OutsidePercent"] == pytest.approx(100 * (mask & ~HEAD).sum() / mask.sum())
        assert any("of the mask lies outside head or body, expected at most 5%" in warning for warning in warnings)

    def test_a_mask_with_little_tissue_around(self):
        """Through all slices, and up to the border of the head on most sides."""
        mask = disc(40) & HEAD
        mask[:, :12] = False
        figures, warnings = self.check(mask)
        assert figures["AroundPercent"] < 75
        assert any("of the mask's surface touches tissue, expected at least 75%" in warning for warning in warnings)

    @pytest.mark.parametrize(("mm", "large"), [((4.0, 3.0, 3.0), False), ((12.0, 4.5, 4.5), True)])
    def test_a_lesion_larger_than_those_of_which_a_fill_was_near_the_truth(self, mm, large):
        mask = disc(9)
        mask[[0, -1]] = False
        _, warnings = self.check(mask, mm)
        assert any("the mask's largest piece has" in warning for warning in warnings) == large


TISSUE = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32) * HEAD
