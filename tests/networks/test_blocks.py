"""Parts that several architectures share: outputs, residual blocks, the padding of Keras, spectral normalisation."""

import pytest
import torch
from torch import nn

from pipeline.networks import MapCritic, PatchGANDiscriminator, PHSDiscriminator
from pipeline.networks.blocks import LEAK, ResidualBlock, SamePadConv, as_output, check_output, spectrally_normed

DISCRIMINATORS = (lambda: PHSDiscriminator((4, 8, 8, 8)), lambda: PatchGANDiscriminator(4), lambda: MapCritic(4))


@pytest.mark.parametrize("kind", ["image", "sigmoid", "shortcut"])
def test_an_image_fills_0_to_1_and_never_leaves_it(kind):
    made = as_output(kind, torch.linspace(-50, 50, 101), torch.rand(101))
    assert made.min() == pytest.approx(0, abs=1e-6)
    assert made.max() == pytest.approx(1, abs=1e-6)
    assert ((made >= 0) & (made <= 1)).all()


def test_image_is_a_scaled_tanh_and_sigmoid_the_same_at_twice_the_slope():
    raw, x = torch.randn(9), torch.rand(9)
    torch.testing.assert_close(2 * as_output("image", raw, x) - 1, raw.tanh())
    torch.testing.assert_close(as_output("image", raw, x), as_output("sigmoid", 2 * raw, x))


def test_a_shortcut_is_tanh_of_f_plus_x_on_images_from_minus_1_to_1():
    f, x = torch.randn(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
    scaled = 2 * x - 1
    torch.testing.assert_close(2 * as_output("shortcut", f, x) - 1, torch.tanh(f + scaled))


def test_a_shortcut_of_zero_is_not_the_identity():
    black_grey_white = torch.tensor([0.0, 0.5, 1.0])
    made = as_output("shortcut", torch.zeros(3), black_grey_white)
    # (tanh(±1) + 1) / 2
    torch.testing.assert_close(made, torch.tensor([0.119203, 0.5, 0.880797]))


def test_a_residual_of_zero_is_the_identity_to_the_bit_and_is_not_clipped():
    x = torch.rand(1, 1, 8, 8)
    assert torch.equal(as_output("residual", torch.zeros_like(x), x), x)
    torch.testing.assert_close(as_output("residual", torch.full_like(x, 50), x), x + 1)
    torch.testing.assert_close(as_output("residual", torch.full_like(x, -50), x), x - 1)


def test_an_output_that_a_network_does_not_allow_is_refused_with_those_it_does():
    with pytest.raises(ValueError, match="one of image, residual, found 'sigmoid'"):
        check_output("sigmoid", ("image", "residual"))


@pytest.mark.parametrize(("slope", "kind"), [(0.0, nn.ReLU), (LEAK, nn.LeakyReLU)])
def test_a_residual_block_adds_its_input_and_nothing_follows_the_sum(slope, kind):
    block = ResidualBlock(4, slope)
    assert [type(layer) for layer in block.body] == [nn.Conv2d, nn.InstanceNorm2d, kind, nn.Conv2d, nn.InstanceNorm2d]
    features = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(block(features), features + block.body(features))
    assert (block(features) < 0).any()


def test_the_padding_of_keras_is_one_row_before_and_two_after():
    convolution = SamePadConv(1, 1)
    nn.init.ones_(convolution.weight)
    nn.init.zeros_(convolution.bias)
    ones = convolution(torch.ones(1, 1, 6, 6))[0, 0]
    # Of the 4 rows and columns under the kernel: 3 lie inside at the first place, 2 at the last.
    inside = torch.tensor([3.0, 4, 4, 4, 3, 2])
    torch.testing.assert_close(ones, inside[:, None] * inside)


@pytest.mark.parametrize("make", DISCRIMINATORS)
def test_spectral_norm_holds_the_largest_singular_value_of_each_layer_at_1(make):
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(10)

    def gains() -> list[float]:
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        return [float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) for layer in layers]

    assert min(gains()) > 2
    spectrally_normed(network)
    for _ in range(60):  # each pass refines the estimate of the largest singular value
        network(torch.rand(1, 1, 32, 32))
    assert gains() == pytest.approx([1.0] * len(gains()), rel=0.02)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PHSDiscriminator((4, 8, 8, 8), spectral_norm=True),
        lambda: PatchGANDiscriminator(4, spectral_norm=True),
        lambda: MapCritic(4, spectral_norm=True),
    ],
)
def test_a_spectrally_normed_discriminator_learns_and_is_restored_from_its_state(make):
    torch.manual_seed(0)
    one, other = make(), make()
    image = torch.rand(2, 1, 32, 32)
    one(image).sum().backward()
    weights = [p for name, p in one.named_parameters() if name.endswith("original1") or "weight.original" in name]
    assert weights
    assert all(weight.grad.abs().max() > 0 for weight in weights)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.eval()(image), other.eval()(image))
