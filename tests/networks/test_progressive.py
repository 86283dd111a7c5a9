"""Progressive growing: what is seen at each size, and what the parts of Karras et al. do."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.networks import ProgressiveDiscriminator, ProgressiveGenerator
from pipeline.networks.progressive import EqualisedConv2d, MinibatchDeviation, PixelNorm

SIZE, FILTERS = (16, 24), (6, 4, 3)


@pytest.fixture
def generator() -> ProgressiveGenerator:
    torch.manual_seed(0)
    return ProgressiveGenerator(5, SIZE, FILTERS)


@pytest.fixture
def discriminator() -> ProgressiveDiscriminator:
    torch.manual_seed(0)
    return ProgressiveDiscriminator(SIZE, FILTERS)


def blocks(images: torch.Tensor, side: int) -> torch.Tensor:
    """Each image as means over blocks, enlarged again."""
    return functional.interpolate(functional.avg_pool2d(images, side), scale_factor=float(side))


@pytest.mark.parametrize(("grown", "side"), [(0.0, 4), (1.0, 2), (2.0, 1)])
def test_at_each_stage_images_have_its_detail_and_the_full_size(generator, grown: float, side: int) -> None:
    generator.grow(grown)
    images = generator(torch.randn(3, 5))
    assert images.shape == (3, 1, *SIZE)
    torch.testing.assert_close(images, blocks(images, side))
    assert side == 1 or not torch.equal(images, blocks(images, 2 * side))
    assert 0 <= images.min() <= images.max() <= 1


def test_a_finer_stage_is_faded_in_from_the_coarser_one(generator) -> None:
    noise = torch.randn(2, 5)
    made = {}
    for grown in (1.0, 1.25, 1.999999, 2.0):
        generator.grow(grown)
        made[grown] = generator(noise)
    torch.testing.assert_close(made[1.25], 0.75 * made[1.0] + 0.25 * made[2.0])
    torch.testing.assert_close(made[1.999999], made[2.0])


def test_the_discriminator_fades_a_stage_in_and_sees_no_more_than_its_stage_does(discriminator) -> None:
    images = torch.rand(4, 1, *SIZE)
    for grown, side in ((0.0, 4), (1.0, 2)):
        discriminator.grow(grown)
        torch.testing.assert_close(discriminator(images), discriminator(blocks(images, side)))
    before = discriminator(images)
    discriminator.grow(1 + 1e-6)
    torch.testing.assert_close(discriminator(images), before, rtol=1e-3, atol=1e-4)
    discriminator.grow(2.0)
    assert not torch.allclose(discriminator(images), discriminator(blocks(images, 2)), rtol=1e-3)


def test_real_images_are_shown_as_detailed_as_made_ones(discriminator) -> None:
    images = torch.rand(2, 1, *SIZE)
    for grown, shown in (
        (0.0, blocks(images, 4)),
        (0.5, (blocks(images, 4) + blocks(images, 2)) / 2),
        (1.0, blocks(images, 2)),
        (2.0, images),
    ):
        discriminator.grow(grown)
        torch.testing.assert_close(discriminator.shown(images), shown)


def test_networks_start_grown_and_keep_with_their_weights_how_far_they_are(generator) -> None:
    assert generator.grown == 2
    generator.grow(0.5)
    other = ProgressiveGenerator(5, SIZE, FILTERS)
    other.load_state_dict(generator.state_dict())
    noise = torch.randn(2, 5)
    assert torch.equal(other(noise), generator(noise))


def test_the_scale_of_equalised_weights_is_he_s_when_they_are_used(count) -> None:
    torch.manual_seed(0)
    layer = EqualisedConv2d(64, 64, 3)
    assert float(layer.weight.detach().std()) == pytest.approx(1, rel=0.02)
    plain = nn.Conv2d(64, 64, 3)
    plain.load_state_dict({"weight": layer.weight * math.sqrt(2 / (64 * 9)), "bias": layer.bias})
    images = torch.randn(1, 64, 8, 8)
    torch.testing.assert_close(layer(images), plain(images))
    assert count(layer) == count(plain)


def test_a_pixel_s_features_have_a_mean_square_of_1() -> None:
    normed = PixelNorm()(100 * torch.randn(2, 7, 3, 3))
    torch.testing.assert_close(normed.square().mean(dim=1), torch.ones(2, 3, 3))


def test_a_batch_of_one_kind_gives_itself_away() -> None:
    one = torch.randn(1, 3, 4, 4).repeat(5, 1, 1, 1)
    told, varied = MinibatchDeviation()(one)[:, -1], MinibatchDeviation()(torch.randn(500, 3, 4, 4))[:, -1]
    assert told.shape == (5, 4, 4)
    assert told.max() < 1e-3
    torch.testing.assert_close(varied, torch.ones_like(varied), rtol=0.05, atol=0)


def test_without_the_deviation_each_sample_is_scored_by_itself() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 1, *SIZE)
    alone = ProgressiveDiscriminator(SIZE, FILTERS, minibatch_deviation=False)
    torch.testing.assert_close(alone(images)[:1], alone(images[:1]))
    assert not alone.ties_samples
    assert ProgressiveDiscriminator(SIZE, FILTERS).ties_samples


def test_a_class_and_a_mask_are_made_and_seen_too() -> None:
    made = ProgressiveGenerator(5, SIZE, FILTERS, "class", joint=True)(torch.randn(2, 7))
    assert made.shape == (2, 2, *SIZE)
    seen = torch.cat((made, torch.zeros_like(made)), dim=1)
    assert ProgressiveDiscriminator(SIZE, FILTERS, "class", joint=True)(seen).shape == (2, 1)


@pytest.mark.parametrize("size", [(16, 18), (4, 4), (16, 4)])
def test_sides_that_cannot_be_halved_so_often_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"and 3 filters: expected .* halved 2 times"):
        ProgressiveGenerator(5, size, FILTERS)


def test_a_given_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="takes no mask"):
        ProgressiveGenerator(5, SIZE, FILTERS, "mask")
