"""The paper's augmentation: image and mask stay together, nothing exceeds its range, edges are reflected."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.preprocessing.augmentation import Augmentation, spline_field

STILL = {"rotation_degrees": 0.0, "zoom": 0.0, "warp_px": 0.0, "intensity": 0.0, "flips": False}
SEEDS = st.integers(0, 2**31)
SHAPES = st.tuples(st.integers(1, 4), st.sampled_from([48, 64, 33]), st.sampled_from([128, 50]))


def blob(height: int, width: int, across: float, along: float, centre: tuple[float, float] = (0, 0)) -> torch.Tensor:
    """An ellipse, shape (1, H, W)."""
    h, w = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    return (((h - centre[0]) / across) ** 2 + ((w - centre[1]) / along) ** 2 < 1).float()[None]


def only(**options: object) -> Augmentation:
    return Augmentation(**{**STILL, **options})


def test_the_defaults_are_the_paper_s():
    made = Augmentation()
    assert (made.rotation_degrees, made.zoom, made.warp_px, made.intensity, made.flips) == (3, 0.1, 5, 0.1, True)


@given(SEEDS, SHAPES)
def test_image_and_mask_move_together_and_keep_shape_and_range(seed, shape):
    channels, height, width = shape
    torch.manual_seed(seed)
    mask = blob(height, width, 9, 14, (3, -5))
    image, moved = Augmentation(intensity=0)(mask.expand(channels, -1, -1).clone(), mask)
    assert image.shape == (channels, height, width)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    for channel in image:
        assert torch.equal((channel >= 0.5).float(), moved[0])
    torch.manual_seed(seed)
    bright, _ = Augmentation(intensity=0.5)(torch.rand(channels, height, width), mask)
    assert 0 <= bright.min() <= bright.max() <= 1


@given(SEEDS)
def test_with_nothing_allowed_nothing_changes(seed):
    torch.manual_seed(seed)
    image, mask = torch.rand(2, 48, 64), (torch.rand(1, 48, 64) > 0.5).float()
    same, also = only()(image, mask)
    torch.testing.assert_close(same, image, atol=1e-5, rtol=0)
    assert torch.equal(also, mask)


@given(SEEDS)
def test_what_comes_from_beyond_the_edges_is_reflected_not_invented(seed):
    torch.manual_seed(seed)
    level, full = torch.full((1, 64, 64), 0.5), torch.ones(1, 64, 64)
    image, mask = Augmentation(intensity=0)(level, full)
    torch.testing.assert_close(image, level)
    assert torch.equal(mask, full)


def test_background_at_an_edge_stays_background_beyond_it():
    near = torch.zeros(1, 64, 64)
    near[:, 3:40] = 0.5  # three pixels of background, then the head
    away = Augmentation(rotation_degrees=0, zoom=0, warp_px=0, intensity=0, flips=False)
    away._source = lambda *_: torch.stack(torch.meshgrid(torch.arange(64.0) - 20, torch.arange(64.0), indexing="ij"))  # type: ignore[method-assign]
    image, mask = away(near, (near > 0).float())
    assert not image[:, :22].any()
    assert not mask[:, :22].any()
    assert (image[:, 24:59] == 0.5).all()


@given(SEEDS)
def test_the_rotation_is_of_at_most_three_degrees(seed):
    torch.manual_seed(seed)
    long = blob(128, 128, 8, 50)
    turned, _ = only(rotation_degrees=3.0)(long, long)
    h, w = torch.nonzero(turned[0] > 0.5).double().T - 63.5
    angle = math.degrees(0.5 * math.atan2(2 * float((h * w).mean()), float((w**2).mean() - (h**2).mean())))
    assert abs(angle) < 3.3
    assert abs(float(turned.sum() / long.sum()) - 1) < 0.02


@given(SEEDS)
def test_the_zoom_is_of_at_most_a_tenth(seed):
    torch.manual_seed(seed)
    disc = blob(128, 128, 30, 30)
    zoomed, _ = only(zoom=0.1)(disc, disc)
    assert 0.88 < math.sqrt(float(zoomed.sum() / disc.sum())) < 1.12


@given(SEEDS)
def test_intensities_change_by_at_most_a_tenth_each_sequence_by_itself_and_background_does_not(seed):
    torch.manual_seed(seed)
    image = 0.5 * blob(48, 48, 10, 10).expand(3, -1, -1)
    changed, _ = only(intensity=0.1)(image, image[:1])
    gains = [channel[image[0] > 0].unique() / 0.5 for channel in changed]
    assert all(len(gain) == 1 and 0.9 <= float(gain) <= 1.1 for gain in gains)
    assert len({float(gain) for gain in gains}) == 3
    assert not changed[image == 0].any()


def test_each_of_four_orientations_comes_every_fourth_time():
    torch.manual_seed(0)
    image = torch.rand(1, 8, 8)
    turned = [image, image.flip(1), image.flip(2), image.flip(1, 2)]
    drawn = [only(flips=True)(image, image.round())[0] for _ in range(200)]
    counts = [sum(torch.allclose(each, one, atol=1e-5) for each in drawn) for one in turned]
    assert sum(counts) == 200
    assert all(30 < count < 70 for count in counts)


def test_the_warp_goes_through_three_by_three_points_shifted_by_five_pixels():
    shifts = torch.randn(2, 3, 3)
    field = spline_field(shifts, 129, 65)
    torch.testing.assert_close(field[:, ::64, ::32], shifts, atol=1e-4, rtol=1e-4)
    torch.manual_seed(0)
    still = torch.stack(torch.meshgrid(torch.arange(129.0), torch.arange(65.0), indexing="ij"))
    drawn = torch.stack([(only(warp_px=5.0)._source(129, 65) - still)[:, ::64, ::32] for _ in range(100)])
    assert float(drawn.std()) == pytest.approx(5, rel=0.1)
    assert abs(float(drawn.mean())) < 0.5


def test_the_same_seed_gives_the_same_slice_and_the_next_one_is_another():
    image, mask = torch.rand(2, 64, 64), blob(64, 64, 9, 14)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(Augmentation()(image, mask)[0])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation_degrees": -1}, "rotation_degrees: found -1, expected a number from 0 to 180"),
        ({"zoom": 1.0}, "zoom: found 1.0, expected a number from 0 to 0.5"),
        ({"intensity": math.nan}, "intensity: found nan"),
        ({"warp_px": 1000}, "warp_px: found 1000, expected a number from 0 to 100"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Augmentation(**options)
