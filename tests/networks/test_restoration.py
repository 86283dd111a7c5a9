"""The restoration network starts as the identity; the autoencoder of the perceptual term goes there and back."""

import pytest
import torch
from torch import nn

from pipeline.networks import FeatureDecoder, FeatureEncoder, RestorationUNet


@pytest.mark.parametrize(("channels", "neighbours"), [(1, 0), (2, 0), (1, 2), (2, 1)])
def test_it_starts_as_the_middle_slice_of_the_first_sequence_and_adds_a_difference_to_it(
    channels: int, neighbours: int
) -> None:
    torch.manual_seed(0)
    network = RestorationUNet(channels, neighbours, filters=2).eval()
    image = torch.rand(2, channels * (2 * neighbours + 1), 32, 48)
    middle = image[:, neighbours : neighbours + 1]
    assert torch.equal(network(image), middle)
    nn.init.constant_(network.unet.final_conv.bias, 0.1)
    torch.testing.assert_close(network(image) - middle, torch.full_like(middle, torch.tensor(0.1).tanh()))


def test_features_are_a_quarter_of_the_size_and_lead_back_to_the_image() -> None:
    torch.manual_seed(0)
    encoder, decoder = FeatureEncoder(4), FeatureDecoder(4, code=2)
    image = torch.rand(2, 1, 16, 24)
    features = encoder(image)
    assert features.shape == (2, 16, 4, 6)
    assert decoder(features).shape == image.shape
    assert decoder.layers[0].out_channels == 2


def test_brightness_is_among_what_is_perceived() -> None:
    torch.manual_seed(0)
    encoder = FeatureEncoder(4)
    darker, brighter = (encoder(torch.full((1, 1, 16, 16), value)) for value in (0.3, 0.6))
    assert (darker - brighter).abs().mean() > 1e-3
