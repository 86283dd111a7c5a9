"""A mask that leaves a rim of the lesion out is told from one that does not; a mask is grown in millimetres."""

import numpy as np
import pytest

from pipeline.inference.mask_check import grown, rim_contrast, tightness_warning

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
