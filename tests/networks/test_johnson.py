"""The generator: the layer table of its docstring, and what each option promises."""

import pytest
import torch
from torch import nn

from pipeline.networks import JohnsonGenerator

F, H, W = 4, 32, 48


def outputs(network: nn.Module, image: torch.Tensor, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> list:
    """(layer, output shape) of each layer of a kind, in the order in which they are computed."""
    seen: list = []
    for layer in network.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(lambda layer, _, output: seen.append((layer, tuple(output.shape[1:]))))
    network(image)
    return seen


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def describe(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[str, int, int, str]:
    return (type(layer).__name__, layer.kernel_size[0], layer.stride[0], layer.padding_mode)


def test_the_layers_are_those_of_the_table_row_by_row():
    network = JohnsonGenerator(filters=F, residual_blocks=2)
    layers = outputs(network, torch.rand(1, 1, H, W), (nn.Conv2d, nn.ConvTranspose2d))
    in_a_block = (("Conv2d", 3, 1, "zeros"), (4 * F, H // 4, W // 4))
    assert [(describe(layer), shape) for layer, shape in layers] == [
        (("Conv2d", 7, 1, "reflect"), (F, H, W)),
        (("Conv2d", 3, 2, "zeros"), (2 * F, H // 2, W // 2)),
        (("Conv2d", 3, 2, "zeros"), (4 * F, H // 4, W // 4)),
        *[in_a_block] * 4,
        (("ConvTranspose2d", 3, 2, "zeros"), (2 * F, H // 2, W // 2)),
        (("ConvTranspose2d", 3, 2, "zeros"), (F, H, W)),
        (("Conv2d", 7, 1, "reflect"), (1, H, W)),
    ]


def test_bilinear_upsampling_replaces_each_transposed_convolution_by_a_plain_one():
    network = JohnsonGenerator(filters=F, residual_blocks=1, upsampling="bilinear")
    layers = outputs(network, torch.rand(1, 1, H, W), (nn.Conv2d, nn.ConvTranspose2d, nn.Upsample))
    assert [(type(layer).__name__, shape) for layer, shape in layers][5:] == [
        ("Upsample", (4 * F, H // 2, W // 2)),
        ("Conv2d", (2 * F, H // 2, W // 2)),
        ("Upsample", (2 * F, H, W)),
        ("Conv2d", (F, H, W)),
        ("Conv2d", (1, H, W)),
    ]


def test_every_convolution_but_the_last_is_followed_by_instance_norm():
    network = JohnsonGenerator(filters=F, residual_blocks=1)
    kinds = outputs(network, torch.rand(1, 1, H, W), (nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d))
    is_norm = [isinstance(layer, nn.InstanceNorm2d) for layer, _ in kinds]
    assert is_norm == [False, True] * 7 + [False]


def test_a_residual_block_adds_its_input_and_has_no_relu_after_the_sum():
    block = JohnsonGenerator(filters=F, residual_blocks=1).blocks[0]
    features = torch.randn(1, 4 * F, 8, 8)
    body = block.body(features)
    torch.testing.assert_close(block(features), features + body)
    assert (block(features) < 0).any()


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize(("filters", "blocks"), [(4, 1), (32, 5)])
def test_the_number_of_parameters_follows_from_the_table(filters, blocks, upsampling):
    def convolution(channels: int, out: int, kernel: int) -> int:
        return kernel**2 * channels * out + out

    def normed(channels: int, out: int, kernel: int = 3) -> int:
        return convolution(channels, out, kernel) + 2 * out

    f = filters
    expected = (
        normed(1, f, 7)
        + normed(f, 2 * f)
        + normed(2 * f, 4 * f)
        + blocks * 2 * normed(4 * f, 4 * f)
        + normed(4 * f, 2 * f)
        + normed(2 * f, f)
        + convolution(f, 1, 7)
    )
    assert count(JohnsonGenerator(filters=f, residual_blocks=blocks, upsampling=upsampling)) == expected


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("size", [(8, 8), (20, 36), (64, 16)])
def test_any_size_divisible_by_four_keeps_its_size(size, upsampling):
    network = JohnsonGenerator(filters=F, residual_blocks=1, upsampling=upsampling)
    assert network(torch.rand(2, 1, *size)).shape == (2, 1, *size)


def test_several_channels_go_in_and_out():
    network = JohnsonGenerator(in_channels=2, out_channels=3, filters=F, residual_blocks=1)
    assert network(torch.rand(1, 2, 16, 16)).shape == (1, 3, 16, 16)


def test_an_image_lies_in_0_1_whatever_goes_in():
    network = JohnsonGenerator(filters=F, residual_blocks=1)
    with torch.no_grad():
        network.last.weight *= 100
        image = network(100 * torch.randn(2, 1, 16, 16))
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.max() - image.min() > 0.9


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_a_residual_generator_starts_as_the_identity_to_the_bit(upsampling):
    x_p = torch.rand(2, 1, 32, 32)
    network = JohnsonGenerator(filters=F, residual_blocks=1, upsampling=upsampling, output="residual")
    assert torch.equal(network(x_p), x_p)


def test_a_residual_generator_can_leave_the_identity():
    network = JohnsonGenerator(filters=F, residual_blocks=1, output="residual")
    network(torch.rand(1, 1, 16, 16)).sum().backward()
    assert network.last.weight.grad.abs().max() > 0


def test_a_residual_is_at_most_one_either_way_and_the_sum_is_not_clipped():
    network = JohnsonGenerator(filters=F, residual_blocks=1, output="residual")
    x_p = torch.ones(1, 1, 16, 16)
    with torch.no_grad():
        network.last.bias.fill_(50.0)
        assert torch.equal(network(x_p), x_p + 1)
        network.last.bias.fill_(-50.0)
        assert torch.equal(network(x_p), x_p - 1)


@pytest.mark.parametrize("option", ["upsampling", "output"])
def test_an_unknown_option_is_refused_with_its_value(option):
    with pytest.raises(ValueError, match="nearest"):
        JohnsonGenerator(**{option: "nearest"})


@pytest.mark.parametrize("output", ["image", "residual"])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_it_scripts_and_the_script_gives_the_same_image(output, upsampling):
    network = JohnsonGenerator(filters=F, residual_blocks=1, upsampling=upsampling, output=output).eval()
    nn.init.normal_(network.last.weight, std=0.1)
    scripted = torch.jit.script(network)
    for size in ((32, 48), (64, 64)):
        image = torch.rand(1, 1, *size)
        torch.testing.assert_close(scripted(image), network(image))
