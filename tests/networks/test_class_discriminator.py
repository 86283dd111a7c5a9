"""A discriminator with a logit of each class, on images of any size."""

import pytest
import torch

from pipeline.networks import ClassDiscriminator


def test_logits_are_of_the_mean_features_of_an_image_of_any_size() -> None:
    network = ClassDiscriminator(["a", "b", "c"], in_channels=2, filters=4).eval()
    for size in ((32, 32), (48, 64)):
        image = torch.rand(3, 2, *size)
        assert network.features(image).shape == (3, 32)
        torch.testing.assert_close(network(image), network.last(network.features(image)))
        assert network(image).shape == (3, 3)


def test_features_are_dropped_while_it_trains() -> None:
    torch.manual_seed(0)
    network, image = ClassDiscriminator(["a", "b"], filters=4, dropout=0.5), torch.rand(1, 1, 32, 32)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


def test_one_class_is_none() -> None:
    with pytest.raises(ValueError, match="at least two names"):
        ClassDiscriminator(["lesion"])
