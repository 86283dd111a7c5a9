"""Generators from noise and their discriminators: Radford's sizes, what conditions them, and what looks at a batch."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    MinibatchDiscrimination,
    MLPDiscriminator,
    MLPGenerator,
)
from pipeline.networks.dcgan import class_of, with_class, with_maps

PAIRS = [(DCGANGenerator, DCGANDiscriminator), (MLPGenerator, MLPDiscriminator)]
SIZE = (16, 24)


def shown(network: nn.Module, *given: Tensor) -> list[tuple[int, ...]]:
    """Sizes of what each layer with weights puts out, without the batch."""
    sizes: list[tuple[int, ...]] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:])))
    network.to("meta")(*(each.to("meta") for each in given))
    return sizes


def test_the_generator_of_64_pixels_is_that_of_radford_s_figure_1() -> None:
    sizes = [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (1, 64, 64)]
    assert shown(DCGANGenerator(), torch.empty(2, 100)) == sizes


def test_the_discriminator_mirrors_it_and_ends_in_one_score() -> None:
    sizes = [(128, 32, 32), (256, 16, 16), (512, 8, 8), (1024, 4, 4), (1,)]
    assert shown(DCGANDiscriminator(), torch.empty(2, 1, 64, 64)) == sizes


@pytest.mark.parametrize("side", [32, 64, 128])
def test_there_is_no_pooling_and_no_hidden_fully_connected_layer(side: int) -> None:
    networks = [DCGANGenerator(size=(side, side), filters=1), DCGANDiscriminator(size=(side, side), filters=1)]
    for network in networks:
        layers = list(network.modules())
        assert not [layer for layer in layers if "Pool" in type(layer).__name__]
        assert all(layer.out_features == 1 for layer in layers if isinstance(layer, nn.Linear))


@pytest.mark.parametrize(("generator", "discriminator"), PAIRS)
@pytest.mark.parametrize(("condition", "joint"), [("none", False), ("class", False), ("none", True), ("class", True)])
def test_a_generator_makes_what_its_discriminator_judges(
    generator: Any, discriminator: Any, condition: str, joint: bool
) -> None:
    G = generator(latent=5, size=SIZE, filters=4, condition=condition, joint=joint)
    D = discriminator(size=SIZE, filters=4, condition=condition, joint=joint)
    label = torch.tensor([0, 1, 1])
    noise = torch.randn(3, 5)
    images = G(with_class(noise, label) if condition == "class" else noise).detach()
    assert images.shape == (3, 1 + joint, *SIZE)
    assert 0 <= images.min() < images.max() <= 1
    judged = with_maps(images, label) if condition == "class" else images
    assert D(judged).shape == (3, 1)
    assert D.features(judged).shape == (3, D.feature_size)


def test_a_class_is_a_pixel_of_the_mask_and_told_to_both_as_one_of_two() -> None:
    mask = torch.zeros(2, 1, 4, 6)
    mask[1, 0, 3, 5] = 1
    label = class_of(mask)
    assert label.tolist() == [0, 1]
    assert with_class(torch.full((2, 3), 7.0), label).tolist() == [[7, 7, 7, 1, 0], [7, 7, 7, 0, 1]]
    maps = with_maps(torch.zeros(2, 1, 4, 6), label)
    assert maps.shape == (2, 3, 4, 6)
    assert maps.mean(dim=(2, 3)).tolist() == [[0, 1, 0], [0, 0, 1]]


def test_an_image_depends_on_each_pixel_of_its_mask() -> None:
    torch.manual_seed(0)
    G = DCGANGenerator(latent=5, size=SIZE, filters=4, condition="mask").eval()
    mask = torch.zeros(2, 1, *SIZE)
    mask[1, 0, 6, 11] = 1  # not its neighbour of the same half resolution
    moved = mask.roll(1, dims=3)
    noise = torch.randn(1, 5).expand(2, 5)
    images, others = G(noise, mask), G(noise, moved)
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[1], others[1])
    torch.testing.assert_close(G(noise), G(noise, torch.zeros_like(mask)))


def test_closeness_is_that_of_salimans_et_al() -> None:
    layer = MinibatchDiscrimination(features=1, kernels=1, dimensions=2)
    nn.init.constant_(layer.project.weight, 1.0)
    features = torch.tensor([[0.0], [0.5], [2.0]])
    found = layer(features)
    # |M_i − M_j| is twice the difference; the mean over the two others.
    expected = [(math.exp(-1) + math.exp(-4)) / 2, (math.exp(-1) + math.exp(-3)) / 2, (math.exp(-4) + math.exp(-3)) / 2]
    torch.testing.assert_close(found[:, 1], torch.tensor(expected))
    torch.testing.assert_close(found[:, :1], features)
    assert layer(features[:1])[0, 1] == 0  # a batch of one has no others


@pytest.mark.parametrize(
    ("discriminator", "options", "ties"),
    [
        (DCGANDiscriminator, {"norm": "batch"}, True),
        (DCGANDiscriminator, {"norm": "none"}, False),
        (DCGANDiscriminator, {"norm": "instance", "spectral_norm": True}, False),
        (DCGANDiscriminator, {"norm": "none", "minibatch_kernels": 3}, True),
        (MLPDiscriminator, {}, False),
        (MLPDiscriminator, {"minibatch_kernels": 3}, True),
    ],
)
def test_whether_samples_are_tied_together_is_what_it_says(
    discriminator: Callable[..., Any], options: dict[str, Any], ties: bool
) -> None:
    torch.manual_seed(0)
    D = discriminator(size=SIZE, filters=4, **options)
    images = torch.rand(4, 1, *SIZE)
    beside_others = D(torch.cat((images[:2], images[:2] / 2)))[:2]
    assert D.ties_samples is ties
    assert torch.allclose(D(images)[:2], beside_others, atol=1e-6) is not ties


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: DCGANGenerator(size=(6, 6)), r"size: found \(6, 6\), expected sides that halve to 4 or more"),
        (lambda: DCGANGenerator(condition="person"), "condition is one of none, class, mask, found 'person'"),
        (lambda: DCGANGenerator(condition="mask", joint=True), "given or made, found the condition 'mask' with joint"),
        (lambda: MLPGenerator(condition="mask"), "takes no mask, found the condition 'mask'"),
        (lambda: DCGANDiscriminator(norm="group"), "norm is 'batch', 'instance' or 'none', found 'group'"),
    ],
)
def test_what_cannot_be_built_is_refused(build: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build()
