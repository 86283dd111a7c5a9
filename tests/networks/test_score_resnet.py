"""The score network: ResNet's stages, and one number in the target's range."""

from itertools import pairwise

import pytest
import torch

from pipeline.networks import ScoreResNet


def convolutions(channels: int, out: int) -> int:
    """A basic block: two 3×3 convolutions with batch norm and, where the width changes, a 1×1 shortcut (biased) too."""
    shortcut = channels * out + 3 * out if channels != out else 0
    return 9 * channels * out + 2 * out + 9 * out * out + 2 * out + shortcut


@pytest.mark.parametrize(("filters", "blocks"), [(4, 1), (64, 2)])
def test_the_number_of_parameters_follows_from_the_stages(filters, blocks, count):
    network = ScoreResNet(filters=filters, blocks=blocks)
    widths = [filters, filters, 2 * filters, 4 * filters, 8 * filters]
    stages = sum(convolutions(before, out) + (blocks - 1) * convolutions(out, out) for before, out in pairwise(widths))
    stem = sum(parameter.numel() for part in (network.conv1, network.bn1) for parameter in part.parameters())
    assert count(network) == stem + stages + 8 * filters + 1


@pytest.mark.parametrize("size", [(32, 32), (48, 80), (128, 96)])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_number_an_image_of_any_size(size, channels):
    network = ScoreResNet(in_channels=channels, filters=4, blocks=1)
    assert network(torch.rand(2, channels, *size)).shape == (2, 1)


def test_answers_are_standardised_scores_in_the_targets_units():
    torch.manual_seed(0)
    plain = ScoreResNet(filters=4, blocks=1).eval()
    scaled = ScoreResNet(filters=4, blocks=1, mean=50, deviation=15).eval()
    scaled.load_state_dict(plain.state_dict())
    images = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(scaled(images), 50 + 15 * plain(images))


def test_without_any_feature_the_answer_is_the_mean_of_the_targets():
    network = ScoreResNet(filters=4, blocks=1, mean=50, deviation=15).eval()
    torch.nn.init.zeros_(network.fc.weight)
    assert network(torch.rand(1, 1, 32, 32)).item() == 50


def test_resnet_50_has_the_parameters_that_he_et_al_print(count):
    """25.6 million with three channels and 1,000 classes; MONAI's shortcuts are biased."""
    classes = [str(number) for number in range(1000)]
    network = ScoreResNet(3, 64, (3, 4, 6, 3), block="bottleneck", first_stride=2, classes=classes)
    biases = sum(layer.downsample[0].bias.numel() for layer in (getattr(network, f"layer{n}")[0] for n in (1, 2, 3, 4)))
    assert count(network) - biases == 25_557_032
    assert network.conv1(torch.rand(1, 3, 64, 64)).shape == (1, 64, 32, 32)


def test_classes_have_a_logit_each():
    network = ScoreResNet(filters=4, blocks=1, mean=50, deviation=15, classes=["a", "b", "c"]).eval()
    torch.nn.init.zeros_(network.fc.weight)
    assert network(torch.rand(2, 1, 32, 32)).tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_features_are_what_the_last_layer_sees(block):
    network = ScoreResNet(filters=4, blocks=1, mean=50, deviation=15, block=block).eval()
    images = torch.rand(2, 1, 32, 32)
    assert network.features(images).shape == (2, 32 * (4 if block == "bottleneck" else 1))
    torch.testing.assert_close(network.fc(network.features(images)), network(images))


@pytest.mark.parametrize("blocks", [0, (1, 2), (1, 1, 1, 0)])
def test_what_is_no_number_of_blocks_is_refused(blocks):
    with pytest.raises(ValueError, match="found"):
        ScoreResNet(filters=4, blocks=blocks)
