"""What planted lesions look like, and how they push tissue aside."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.phantoms.appearance import APPEARANCES, Tissue, displaced, paint

MM = (3.0, 1.0, 1.0)
Volume = NDArray[np.float32]


def scan(seed: int = 0) -> Volume:
    """Tissue of 500, with a texture of stripes and noise of 10."""
    rng = np.random.default_rng(seed)
    stripes = 60 * np.sin(np.arange(80) / 3)
    return (500 + stripes[:, None] + rng.normal(0, 10, (16, 80, 80))).astype(np.float32)


def ball(radius_mm: float, centre: tuple[int, int, int] = (8, 40, 40)) -> NDArray[np.bool_]:
    apart = [(index - at) * mm for index, at, mm in zip(np.indices((16, 80, 80)), centre, MM, strict=True)]
    return sum(axis**2 for axis in apart) < radius_mm**2


@pytest.fixture(scope="module")
def tissue() -> Tissue:
    return Tissue.of(scan(), np.ones((16, 80, 80), bool))


@pytest.fixture(scope="module")
def painted(tissue: Tissue) -> Callable[..., list[Volume]]:
    def draw(appearance: str, radius_mm: float = 15, seeds: int = 8) -> list[Volume]:
        return [
            paint(scan(), ball(radius_mm), appearance, tissue, MM, np.random.default_rng(seed)) for seed in range(seeds)
        ]

    return draw


def test_tissue_is_measured_by_its_median_and_the_noise_of_flat_tissue(tissue: Tissue) -> None:
    assert tissue.median == pytest.approx(500, abs=20)
    # Of the difference to the mean of four neighbours, with noise of their own.
    assert tissue.noise == pytest.approx(10 * np.sqrt(1.25), rel=0.2)
    assert tissue.brightest > 560


def test_where_a_scan_is_constant_its_noise_is_zero() -> None:
    image = np.minimum(scan(), 500)
    image[:, 20:60, 20:60] = 0
    assert Tissue.of(image, np.ones(image.shape, bool)).noise == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("appearance", APPEARANCES)
@pytest.mark.parametrize("radius_mm", [1.5, 6, 20])
def test_nothing_changes_outside_the_lesion_and_almost_everything_in_it(
    appearance: str, radius_mm: float, painted: Callable[..., list[Volume]]
) -> None:
    lesion = ball(radius_mm)
    for image in painted(appearance, radius_mm, seeds=3):
        np.testing.assert_array_equal(image[~lesion], scan()[~lesion])
        assert (image != scan())[lesion].mean() > 0.95
        assert np.isfinite(image).all()
        assert image.min() >= 0


def contrasts(images: list[Volume], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.array([np.median(image[where]) / 500 for image in images])


def test_bright_ones_are_bright_and_dark_ones_dark_as_real_ones_are(painted: Callable[..., list[Volume]]) -> None:
    middle = ball(9)
    for appearance in ("bright", "core"):
        assert (contrasts(painted(appearance), middle) > 1.05).all()
    assert (contrasts(painted("bright"), middle) < 2.2).all()
    assert (contrasts(painted("dark"), middle) < 0.95).all()


def test_tissue_is_seen_through_oedema_and_gone_in_a_core(painted: Callable[..., list[Volume]]) -> None:
    middle = ball(10)
    stripes = np.broadcast_to(np.sin(np.arange(80) / 3)[:, None], middle.shape)[middle]

    def likeness(appearance: str) -> float:
        return float(np.mean([np.corrcoef(image[middle], stripes)[0, 1] for image in painted(appearance)]))

    assert likeness("bright") > 0.35
    assert likeness("bright") > likeness("core") + 0.2


def test_a_rim_is_brighter_than_the_core_in_it_and_a_cyst_darker_than_what_is_around_it(
    painted: Callable[..., list[Volume]],
) -> None:
    core, shell = ball(4), ball(14) & ~ball(12)
    assert (contrasts(painted("rimmed"), shell) > contrasts(painted("rimmed"), core)).all()
    assert (contrasts(painted("cystic"), core) < 0.6).all()
    assert (contrasts(painted("cystic"), shell) > contrasts(painted("cystic"), core)).all()


def test_edges_are_soft(painted: Callable[..., list[Volume]]) -> None:
    outermost, middle = ball(15) & ~ball(14.2), ball(9)
    for image in painted("core"):
        step = np.abs(np.median((image - scan())[outermost]))
        assert step < 0.8 * np.abs(np.median((image - scan())[middle]))


def test_a_lesion_has_the_scan_s_noise_even_where_nothing_is_left_of_the_tissue(
    painted: Callable[..., list[Volume]], tissue: Tissue
) -> None:
    inside = ball(8)
    for image in painted("core", radius_mm=20, seeds=4):
        own = Tissue.of(np.where(inside, image, scan()), inside)
        assert 0.6 * tissue.noise < own.noise < 1.8 * tissue.noise


def test_the_same_draws_give_the_same_lesion(tissue: Tissue) -> None:
    first, again, other = (
        paint(scan(), ball(9), "heterogeneous", tissue, MM, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


class TestDisplacement:
    lesion = ball(8)
    everywhere = np.ones((16, 80, 80), bool)

    def ramp(self) -> Volume:
        """Intensities that tell where a voxel was along the second axis, in mm."""
        return np.broadcast_to(np.arange(80, dtype=np.float32)[:, None], (16, 80, 80)).copy()

    def test_tissue_moves_away_from_the_lesion_by_the_push_at_its_border_and_less_further_off(self) -> None:
        moved = displaced(self.ramp(), self.lesion, self.everywhere, MM, push_mm=3, reach_mm=12)
        came_from = moved[8, :, 40] - np.arange(80)
        assert came_from[49] == pytest.approx(-3, abs=0.6)  # beyond the lesion: from nearer to it
        assert came_from[31] == pytest.approx(3, abs=0.6)
        assert abs(came_from[55]) < abs(came_from[52]) < abs(came_from[49])
        assert (np.diff(moved[8, 49:, 40]) > 0).all(), "tissue does not fold"

    def test_nothing_moves_out_of_reach_or_where_it_cannot(self) -> None:
        skull = self.everywhere.copy()
        skull[:, 55:] = False
        moved = displaced(self.ramp(), self.lesion, skull, MM, push_mm=3, reach_mm=12)
        np.testing.assert_array_equal(moved[:, 55:], self.ramp()[:, 55:])
        far = ~ball(8 + 12.1)
        np.testing.assert_array_equal(moved[far], self.ramp()[far])
        assert (moved != self.ramp()).any()

    def test_a_push_that_would_fold_tissue_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 3 times the push of 5 mm"):
            displaced(self.ramp(), self.lesion, self.everywhere, MM, push_mm=5, reach_mm=10)
