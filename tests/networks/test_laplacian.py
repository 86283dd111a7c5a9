"""The Laplacian pyramid: it is taken apart without loss, and put together level by level."""

import pytest
import torch
from torch import nn

from pipeline.networks import LaplacianDiscriminator, LaplacianGenerator
from pipeline.networks.laplacian import doubled, halved, taken_apart

SIZE = (16, 24)


@pytest.fixture
def generator() -> LaplacianGenerator:
    torch.manual_seed(0)
    return LaplacianGenerator(11, SIZE, levels=2, filters=3, coarsest_filters=4)


def test_a_pyramid_gives_its_image_back() -> None:
    images = torch.rand(2, 1, *SIZE)
    coarsest, pairs = taken_apart(images, 2)
    torch.testing.assert_close(coarsest, halved(halved(images)))
    built = coarsest
    for difference, enlarged in pairs:
        torch.testing.assert_close(enlarged, doubled(built))
        built = enlarged + difference
    torch.testing.assert_close(built, images)


def test_the_noise_is_shared_out_over_the_levels(generator) -> None:
    assert generator.parts == [4, 4, 3]
    noise = torch.randn(2, 11)
    images = generator(noise)
    assert images.shape == (2, 1, *SIZE)
    with torch.no_grad():
        generator.levels[1].layers[-1].weight *= 0  # the finest level adds nothing, whatever its noise
    before = generator(noise)
    for part, changes in ((slice(0, 4), True), (slice(4, 8), True), (slice(8, 11), False)):
        other = noise.clone()
        other[:, part] += 1
        assert torch.equal(generator(other), before) != changes


def test_levels_that_add_nothing_enlarge_the_coarsest_image(generator) -> None:
    for level in generator.levels:
        nn.init.zeros_(level.layers[-1].weight)
        nn.init.zeros_(level.layers[-1].bias)
    noise = torch.randn(2, 11)
    torch.testing.assert_close(generator(noise), doubled(doubled(generator.coarsest(noise[:, :4]))))


def test_images_are_clipped_where_the_sum_leaves_the_range(generator) -> None:
    nn.init.constant_(generator.levels[-1].layers[-1].bias, 9.0)
    assert (generator(torch.randn(2, 11)) == 1).all()


def test_a_level_is_told_its_condition() -> None:
    torch.manual_seed(0)
    level = LaplacianDiscriminator(SIZE, 2, 3, 4).levels[-1]
    difference, enlarged = torch.rand(2, 2, 1, *SIZE)
    assert not torch.allclose(level(difference, enlarged), level(difference + 0.1, enlarged - 0.1))  # the same sum


def test_the_whole_discriminator_is_the_mean_over_its_levels() -> None:
    D, images = LaplacianDiscriminator(SIZE, 2, 3, 4), torch.rand(2, 1, *SIZE)
    coarsest, pairs = taken_apart(images, 2)
    scores = [D.coarsest(coarsest), *(level(*pair) for level, pair in zip(D.levels, pairs, strict=True))]
    torch.testing.assert_close(D(images), sum(scores) / 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent": 2}, "latent is 2, expected at least one number for each of 3 images"),
        ({"size": (18, 24)}, "size 18×24, levels 2"),
        ({"levels": 0}, "expected at least 1 level"),
    ],
)
def test_what_makes_no_pyramid_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LaplacianGenerator(**{"latent": 9, "size": SIZE, "levels": 2, **settings})  # type: ignore[arg-type]
