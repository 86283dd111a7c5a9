"""FID and inception score: what they are of images that are known."""

import pytest
import torch

from pipeline.metrics.generation import frechet_distance, inception_score


def test_distance_of_gaussians_is_that_of_means_and_deviations() -> None:
    torch.manual_seed(0)
    one = torch.randn(20_000, 3)
    other = 2 * torch.randn(20_000, 3) + torch.tensor([1.0, 0, 0])
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)
    # ‖μ − μ'‖² + Σ (σ − σ')²
    assert frechet_distance(one, other) == pytest.approx(1 + 3, rel=0.05)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-6)


def test_features_that_are_always_0_and_few_images_change_nothing() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(10, 3), torch.randn(10, 3) + 1
    padded = [torch.cat([features, torch.zeros(10, 20)], dim=1) for features in (one, other)]
    assert frechet_distance(padded[0], padded[1]) == pytest.approx(frechet_distance(one, other))


def test_score_is_the_number_of_classes_that_are_told_and_drawn() -> None:
    certain = torch.eye(5).repeat(8, 1)
    assert inception_score(certain, 2) == (5.0, 0.0)
    assert inception_score(certain[:1].repeat(8, 1), 4) == (1.0, 0.0)  # all alike
    assert inception_score(torch.full((8, 5), 0.2), 1) == (1.0, 0.0)  # undecided
    mean, deviation = inception_score(torch.cat([certain[:4], certain[:1].repeat(4, 1)]), 2)
    assert (mean, deviation) == (pytest.approx(2.5), pytest.approx(2.12132))


def test_more_parts_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match="found 3 images"):
        inception_score(torch.eye(3), 4)
