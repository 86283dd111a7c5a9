"""A latent space whose answers are known: the image is one pixel, the first number of the latent."""

import math

import pytest
import torch
from torch import nn

from pipeline.studies.latent_space import Generator, direction, explained, halfway, moved, signed, told, walk


class First(nn.Module):
    """The first number of the latent as an image, doubled."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return 2 * latents[:, :1, None, None]


FIRST = Generator(First(), 6, torch.device("cpu"))


def pixel(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)[:, 0]


def lesion(images: torch.Tensor) -> torch.Tensor:
    """Few show any."""
    return (pixel(images) - 2.5).clamp_min(0)


def test_latents_are_those_of_a_seed_and_images_theirs_in_any_number_of_batches() -> None:
    assert torch.equal(FIRST.draw(3, 7), FIRST.draw(3, 7))
    assert not torch.equal(FIRST.draw(3, 7), FIRST.draw(3, 8))
    assert torch.equal(FIRST(FIRST.draw(200, 0)), First()(FIRST.draw(200, 0)))


def test_a_walk_leads_from_one_to_the_other_without_shrinking() -> None:
    one, other = torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(walk(one, other, 0.0), one)
    torch.testing.assert_close(walk(one, other, 1.0), other)
    unit, right = torch.eye(2)[:1], torch.eye(2)[1:]
    torch.testing.assert_close(walk(unit, right, 0.5), torch.full((1, 2), math.sqrt(0.5)))
    half = walk(one, other, 0.5).norm(dim=1)
    assert (half > 0.8 * torch.minimum(one.norm(dim=1), other.norm(dim=1))).all()
    assert ((one + other).norm(dim=1) / 2 < half).all()


@pytest.mark.parametrize("measure", [pixel, lesion])
def test_the_direction_of_what_is_shown_is_found(measure) -> None:
    by = direction(FIRST, measure, 0)
    assert by is not None
    assert float(by[0] / by.norm()) > 0.95


def test_where_all_images_show_the_same_there_is_no_direction() -> None:
    assert direction(FIRST, lambda images: torch.zeros(len(images)), 0) is None


def test_a_direction_has_a_sign() -> None:
    by = torch.eye(6)[0]
    shown = {name: float((values > 0).float().mean()) for name, values in signed(FIRST, lesion, by, 0).items()}
    assert shown["taken away"] == 0
    assert shown["drawn"] < 0.25
    assert shown["added"] > 0.4
    assert abs(shown["random"] - shown["drawn"]) < 0.15


def test_moving_keeps_lengths_and_undoes_no_sign() -> None:
    latents, by = FIRST.draw(4, 0), FIRST.draw(1, 1)[0]
    for sign in (1, -1):
        there = moved(latents, by, sign)
        torch.testing.assert_close(there.norm(dim=1), latents.norm(dim=1))
        assert ((there - latents) @ by * sign > 0).all()
    torch.testing.assert_close(moved(latents, by, 1), moved(latents, by.expand(4, -1), 1))


def test_halfway_on_a_walk_is_an_image_where_cross_fading_makes_none() -> None:
    """Images are points of a circle, whose chords leave it."""

    class Circle(nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return nn.functional.normalize(latents[:, :2], dim=1)[:, None, None]

    circle = Generator(Circle(), 2, torch.device("cpu"))
    real = circle(circle.draw(400, 9)).flatten(1)
    shares = halfway(circle, lambda images: images.flatten(1), real, 0)
    assert shares["walk"] > 0.9
    assert shares["ends"] > 0.9
    assert shares["cross_fade"] < 0.3


def test_a_code_that_is_the_class_tells_all_of_it_and_another_nothing() -> None:
    codes = torch.arange(400) % 4
    assert told(codes, torch.eye(4)[codes]) == 2.0
    assert told(codes, torch.eye(2)[codes // 2]) == 1.0
    assert told(codes, torch.eye(4)[torch.zeros(400, dtype=torch.long)]) == 0.0


def test_what_is_linear_in_the_latent_is_explained_and_noise_is_not() -> None:
    latents = FIRST.draw(600, 0)
    assert explained(latents, 3 * latents[:, 1] - latents[:, 2] + 5) > 0.99
    assert explained(latents, torch.randn(600, generator=torch.Generator().manual_seed(1))) < 0.05
    square = latents[:, 0] ** 2 - latents[:, 1] * latents[:, 2]
    assert explained(latents, square) < 0.1
    assert explained(latents, square, squares=True) > 0.99
