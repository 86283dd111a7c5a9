"""The networks of PHS-GAN: Tables 2 to 4 of its Appendix A, row by row, and what was misprinted in them."""

import math

import pytest
import torch
from torch import nn

from pipeline.networks import FactorisedCycle, PHSDiscriminator, PHSGenerator
from pipeline.objectives import WassersteinGP

H, W = 208, 160

# Each printed residual block is two convolutions; its leaky ReLU stands between them.
BLOCK = [
    ("Conv2d", 3, 1, True, "LeakyReLU", (128, 52, 40)),
    ("Conv2d", 3, 1, True, None, (128, 52, 40)),
]
TABLES_2_AND_3 = [
    ("Conv2d", 7, 1, True, "ReLU", (32, 208, 160)),
    ("Conv2d", 3, 2, True, "ReLU", (64, 104, 80)),
    ("Conv2d", 3, 2, True, "ReLU", (128, 52, 40)),
    *BLOCK * 6,
    ("nearest upsampling", None, None, False, None, (128, 104, 80)),
    ("Conv2d", 3, 1, True, "ReLU", (64, 104, 80)),
    ("nearest upsampling", None, None, False, None, (64, 208, 160)),
    ("Conv2d", 3, 1, True, "ReLU", (32, 208, 160)),
    ("Conv2d", 3, 1, False, None, (1, 208, 160)),
]
TABLE_4 = [
    ("Conv2d", 4, 2, True, "LeakyReLU", (32, 104, 80)),
    ("Conv2d", 4, 2, True, "LeakyReLU", (128, 52, 40)),
    ("Conv2d", 4, 2, True, "LeakyReLU", (256, 26, 20)),
    ("Conv2d", 4, 2, True, "LeakyReLU", (512, 13, 10)),
]


def small(**options) -> PHSGenerator:
    return PHSGenerator(filters=4, residual_blocks=1, **options)


@pytest.mark.parametrize("channels", [1, 2])
def test_g_and_r_have_the_rows_of_tables_2_and_3(table, channels):
    assert table(PHSGenerator(in_channels=channels), channels, H, W) == TABLES_2_AND_3


@pytest.mark.parametrize(("sigmoid", "activation"), [(True, "Sigmoid"), (False, None)])
def test_the_discriminators_have_the_rows_of_table_4_and_a_linear_end_by_default(table, sigmoid, activation):
    last = ("SamePadConv", 4, 1, False, activation, (1, 13, 10))
    assert table(PHSDiscriminator(sigmoid=sigmoid), 1, H, W) == [*TABLE_4, last]
    assert PHSDiscriminator().layers[-1].bias is not None


def test_g_and_r_have_the_number_of_parameters_of_tables_2_and_3(count):
    # Per convolution: kernel² · in · out weights and `out` biases; instance norm adds a scale and a shift for each.
    first = 49 * 1 * 32 + 3 * 32
    down = (9 * 32 * 64 + 3 * 64) + (9 * 64 * 128 + 3 * 128)
    blocks = 6 * 2 * (9 * 128 * 128 + 3 * 128)
    up = (9 * 128 * 64 + 3 * 64) + (9 * 64 * 32 + 3 * 32)
    last = 9 * 32 * 1 + 1
    assert first + down + blocks + up + last == 1_961_217
    assert count(PHSGenerator()) == 1_961_217
    # R sees one channel more, through the 7×7 kernels alone.
    assert count(PHSGenerator(in_channels=2)) == 1_961_217 + 49 * 32


def test_the_discriminators_have_the_number_of_parameters_of_table_4(count):
    strided = sum(16 * before * after + 3 * after for before, after in ((1, 32), (32, 128), (128, 256), (256, 512)))
    assert strided + 16 * 512 + 1 == 2_698_465
    assert count(PHSDiscriminator()) == 2_698_465


def test_misprint_of_table_3_r_takes_image_and_mask_and_gives_one_image():
    image_and_mask = torch.rand(3, 2, 16, 16)
    assert small(in_channels=2)(image_and_mask).shape == (3, 1, 16, 16)


def test_misprint_of_table_4_what_is_judged_has_one_channel():
    D = PHSDiscriminator((4, 4, 4, 4))
    assert D(torch.rand(2, 1, 32, 48)).shape == (2, 1, 2, 3)
    with pytest.raises(RuntimeError, match="channels"):
        D(torch.rand(2, 2, 32, 48))


def test_the_filters_of_the_discriminators_can_be_set(table):
    shapes = [row[-1] for row in table(PHSDiscriminator((2, 3, 5, 7)), 1, 64, 32)]
    assert shapes == [(2, 32, 16), (3, 16, 8), (5, 8, 4), (7, 4, 2), (1, 4, 2)]


@pytest.mark.parametrize("size", [(8, 8), (20, 36), (64, 16)])
@pytest.mark.parametrize("output", ["sigmoid", "residual"])
def test_any_size_divisible_by_four_keeps_its_size(size, output):
    assert small(output=output)(torch.rand(2, 1, *size)).shape == (2, 1, *size)


def test_images_lie_in_0_1_whatever_goes_in():
    network = small()
    with torch.no_grad():
        network.last.weight *= 1000
        made = network(100 * torch.randn(2, 1, 32, 32))
    assert ((made >= 0) & (made <= 1)).all()
    assert made.max() - made.min() > 0.9


def test_scores_of_a_sigmoid_end_are_probabilities_and_linear_ones_are_not():
    torch.manual_seed(0)
    images = torch.rand(2, 1, 64, 64)
    linear, squeezed = PHSDiscriminator((4, 8, 8, 8)), PHSDiscriminator((4, 8, 8, 8), sigmoid=True)
    squeezed.load_state_dict(linear.state_dict())
    assert (linear(images) < 0).any()
    torch.testing.assert_close(squeezed(images), linear(images).sigmoid())


def test_a_residual_output_starts_as_the_identity_to_the_bit_and_can_leave_it():
    x_p = torch.rand(2, 1, 16, 16)
    network = small(output="residual")
    assert torch.equal(network(x_p), x_p)
    network(x_p).sum().backward()
    assert network.last.weight.grad.abs().max() > 0


def test_the_residual_of_a_reconstructor_is_added_to_the_image_not_to_the_mask():
    image, mask = torch.rand(2, 1, 16, 16), torch.ones(2, 1, 16, 16)
    network = small(in_channels=2, output="residual")
    assert torch.equal(network(torch.cat((image, mask), dim=1)), image)


@pytest.mark.parametrize("output", ["image", "shortcut", "", "Sigmoid"])
def test_another_output_is_refused_with_its_value(output):
    with pytest.raises(ValueError, match=f"one of sigmoid, residual, found {output!r}"):
        small(output=output)


def test_the_way_back_recombines_the_healthy_image_with_the_segmentors_map():
    class Constant(nn.Module):
        def forward(self, image):
            return torch.full_like(image, math.log(3))  # σ(ln 3) = ¾

    class Seen(nn.Module):
        def forward(self, image_and_mask):
            self.image, self.mask = image_and_mask.split(1, dim=1)
            return self.image + self.mask

    R = Seen()
    x_h, x_p = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    reconstructed = FactorisedCycle(R, Constant())(x_h, x_p)
    assert torch.equal(R.image, x_h)
    torch.testing.assert_close(R.mask, torch.full_like(x_h, 0.75))
    assert torch.equal(reconstructed, R.image + R.mask)


def test_the_way_back_segments_the_pathological_image_and_not_the_healthy_one():
    S = nn.Conv2d(1, 1, 1)
    cycle = FactorisedCycle(small(in_channels=2), S)
    x_h, x_p = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16)
    expected = cycle.reconstructor(torch.cat((x_h, S(x_p).sigmoid()), dim=1))
    torch.testing.assert_close(cycle(x_h, x_p), expected)


@pytest.mark.parametrize("output", ["sigmoid", "residual"])
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_it_scripts_and_the_script_gives_the_same_image(output):
    network = small(output=output).eval()
    nn.init.normal_(network.last.weight, std=0.1)
    scripted, image = torch.jit.script(network), torch.rand(1, 1, 32, 48)
    torch.testing.assert_close(scripted(image), network(image))


@pytest.mark.parametrize("make", [small, lambda: small(in_channels=2), lambda: PHSDiscriminator((4, 4, 4, 4))])
def test_half_precision_gives_nearly_the_same(make):
    torch.manual_seed(0)
    network = make()
    channels = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d)).in_channels
    images = torch.rand(1, channels, 32, 32)
    full = network(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(images)
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0, atol=0.05 * max(1.0, float(full.detach().abs().max())))


def test_a_gradient_penalty_reaches_every_weight_of_the_discriminator():
    torch.manual_seed(0)
    D = PHSDiscriminator((4, 4, 4, 4))
    WassersteinGP().penalty(D, torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)).backward()
    for layer in D.layers:
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.grad.isfinite().all()
            assert layer.weight.grad.abs().max() > 0


@pytest.mark.parametrize("make", [small, lambda: PHSDiscriminator((4, 4, 4, 4))])
def test_each_sample_is_treated_by_itself(make):
    torch.manual_seed(0)
    network = make()
    images = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-4, atol=1e-5)
