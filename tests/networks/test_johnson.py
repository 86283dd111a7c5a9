"""The generator: the layer table of its docstring, and what each option promises."""

import pytest
import torch
from torch import nn

from pipeline.networks import JohnsonGenerator

F, H, W = 4, 32, 48


def test_the_layers_are_those_of_the_table_row_by_row(table):
    in_a_block = (4 * F, H // 4, W // 4)
    assert table(JohnsonGenerator(filters=F, residual_blocks=2), 1, H, W) == [
        ("Conv2d", 7, 1, True, "ReLU", (F, H, W)),
        ("Conv2d", 3, 2, True, "ReLU", (2 * F, H // 2, W // 2)),
        ("Conv2d", 3, 2, True, "ReLU", (4 * F, H // 4, W // 4)),
        *[("Conv2d", 3, 1, True, "ReLU", in_a_block), ("Conv2d", 3, 1, True, None, in_a_block)] * 2,
        ("ConvTranspose2d", 3, 2, True, "ReLU", (2 * F, H // 2, W // 2)),
        ("ConvTranspose2d", 3, 2, True, "ReLU", (F, H, W)),
        ("Conv2d", 7, 1, False, None, (1, H, W)),
    ]


def test_bilinear_upsampling_replaces_each_transposed_convolution_by_a_plain_one(table):
    network = JohnsonGenerator(filters=F, residual_blocks=1, upsampling="bilinear")
    assert table(network, 1, H, W)[5:] == [
        ("bilinear upsampling", None, None, False, None, (4 * F, H // 2, W // 2)),
        ("Conv2d", 3, 1, True, "ReLU", (2 * F, H // 2, W // 2)),
        ("bilinear upsampling", None, None, False, None, (2 * F, H, W)),
        ("Conv2d", 3, 1, True, "ReLU", (F, H, W)),
        ("Conv2d", 7, 1, False, None, (1, H, W)),
    ]


def test_johnson_s_own_first_and_last_layers_are_nine_pixels_wide(table):
    rows = table(JohnsonGenerator(filters=F, residual_blocks=1, kernel=9), 1, H, W)
    assert rows[0] == ("Conv2d", 9, 1, True, "ReLU", (F, H, W))
    assert rows[-1] == ("Conv2d", 9, 1, False, None, (1, H, W))
    with pytest.raises(ValueError, match="odd number of pixels, found 8"):
        JohnsonGenerator(kernel=8)


def test_the_border_is_reflected_where_kernels_are_wide():
    network = JohnsonGenerator(filters=F, residual_blocks=1)
    modes = {layer.kernel_size[0]: layer.padding_mode for layer in network.modules() if isinstance(layer, nn.Conv2d)}
    assert modes == {7: "reflect", 3: "zeros"}


def test_a_residual_block_adds_its_input_and_has_no_relu_after_the_sum():
    block = JohnsonGenerator(filters=F, residual_blocks=1).blocks[0]
    features = torch.randn(1, 4 * F, 8, 8)
    body = block.body(features)
    torch.testing.assert_close(block(features), features + body)
    assert (block(features) < 0).any()


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize(("filters", "blocks"), [(4, 1), (32, 5), (64, 9)])
def test_the_number_of_parameters_follows_from_the_table(count, filters, blocks, upsampling):
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


@pytest.mark.parametrize("output", ["image", "shortcut"])
def test_an_image_lies_in_0_1_whatever_goes_in(output):
    network = JohnsonGenerator(filters=F, residual_blocks=1, output=output)
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


def test_a_shortcut_is_tanh_of_f_plus_x_on_images_from_minus_1_to_1():
    network = JohnsonGenerator(filters=F, residual_blocks=1, output="shortcut")
    f = []
    network.last.register_forward_hook(lambda _, __, output: f.append(output))
    x = torch.rand(2, 1, 16, 16)
    made = network(x)
    torch.testing.assert_close(2 * made - 1, torch.tanh(f[0] + (2 * x - 1)))


def test_half_precision_gives_nearly_the_same():
    torch.manual_seed(0)
    network, image = JohnsonGenerator(filters=F, residual_blocks=1), torch.rand(1, 1, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(image)
    torch.testing.assert_close(half.float(), network(image), rtol=0, atol=0.05)


@pytest.mark.parametrize("option", ["upsampling", "output"])
def test_an_unknown_option_is_refused_with_its_value(option):
    with pytest.raises(ValueError, match="nearest"):
        JohnsonGenerator(**{option: "nearest"})


@pytest.mark.parametrize("output", ["image", "residual", "shortcut"])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_it_scripts_and_the_script_gives_the_same_image(output, upsampling):
    network = JohnsonGenerator(filters=F, residual_blocks=1, upsampling=upsampling, output=output).eval()
    nn.init.normal_(network.last.weight, std=0.1)
    scripted = torch.jit.script(network)
    for size in ((32, 48), (64, 64)):
        image = torch.rand(1, 1, *size)
        torch.testing.assert_close(scripted(image), network(image))
