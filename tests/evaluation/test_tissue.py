"""Three tissues told apart by a mixture of Gaussians: which is which depends on the contrast."""

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.evaluation.tissue import Tissues

SHAPE = (10, 40, 50)
SIZES = {"dark": 4_000, "middle": 6_000, "bright": 10_000}


def three_tissues() -> np.ndarray:
    """Voxels of three brightnesses, noisy, in a known number of each."""
    levels = np.repeat([0.2, 0.5, 0.8], list(SIZES.values()))
    noise = np.random.default_rng(0).normal(0, 0.02, levels.size)
    return np.random.default_rng(1).permutation(levels + noise).reshape(SHAPE).astype(np.float32)


@pytest.mark.parametrize(
    ("contrast", "dark", "middle", "bright"),
    [
        ("T1w", "CSF", "GM", "WM"),
        ("contrast-enhanced T1w", "CSF", "GM", "WM"),
        ("T2w", "WM", "GM", "CSF"),
        ("FLAIR", "CSF", "WM", "GM"),
    ],
)
def test_the_contrast_decides_which_tissue_is_bright(contrast: str, dark: str, middle: str, bright: str) -> None:
    found = Tissues(three_tissues(), np.ones(SHAPE, bool), contrast).voxels
    assert found == pytest.approx({dark: SIZES["dark"], middle: SIZES["middle"], bright: SIZES["bright"]}, rel=1e-3)


def test_nothing_outside_the_region_counts_and_the_result_is_the_same_each_time() -> None:
    image, region = three_tissues(), np.zeros(SHAPE, bool)
    region[2:8] = True
    found = Tissues(image, region, "T1w").voxels
    assert sum(found.values()) == pytest.approx(region.sum())
    image[~region] = 5.0
    assert Tissues(image, region, "T1w").voxels == found


def test_a_fit_that_starts_from_another_ends_where_its_own_start_leads() -> None:
    image, region = three_tissues(), np.ones(SHAPE, bool)
    other = Tissues(image, region, "T1w")
    image[:2][image[:2] < 0.35] = 0.8
    own = Tissues(image, region, "T1w").voxels
    assert own["WM"] > other.voxels["WM"] + 500
    assert Tissues(image, region, "T1w", start=other).voxels == pytest.approx(own, rel=1e-3)


def test_volumes_of_few_intensities_do_not_jump() -> None:
    noisy = np.random.default_rng(0).permutation(np.repeat([0.2, 0.5, 0.8], list(SIZES.values())))
    noisy = (noisy + np.random.default_rng(1).normal(0, 0.1, noisy.size)).reshape(SHAPE)
    coarse = (np.rint(noisy * 20) / 20).astype(np.float32)
    before = Tissues(coarse, np.ones(SHAPE, bool), "T1w")
    changed = coarse.copy()
    changed.flat[:20] = 0.8
    after = Tissues(changed, np.ones(SHAPE, bool), "T1w", start=before)
    assert after.voxels["WM"] == pytest.approx(before.voxels["WM"], abs=60)


@pytest.mark.parametrize(
    ("image", "contrast", "said"),
    [(three_tissues(), "DWI", "DWI: is no contrast"), (np.ones(SHAPE, np.float32), "T1w", "1 different intensities")],
)
def test_what_has_no_three_tissues_is_refused(image: np.ndarray, contrast: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Tissues(image, np.ones(SHAPE, bool), contrast)
