"""VA-GAN: an additive map, and a critic that treats samples and pixels without statistics over others."""

import pytest
import torch
from torch import nn

from pipeline.networks import MapCritic, MapGenerator
from pipeline.objectives import WassersteinGP


def test_the_critic_has_the_layers_of_the_table(table):
    F = 16
    assert table(MapCritic(), 1, 240, 240) == [
        ("Conv2d", 3, 1, False, "ReLU", (F, 240, 240)),
        ("maximum", 2, 2, False, None, (F, 120, 120)),
        ("Conv2d", 3, 1, False, "ReLU", (2 * F, 120, 120)),
        ("maximum", 2, 2, False, None, (2 * F, 60, 60)),
        *[("Conv2d", 3, 1, False, "ReLU", (4 * F, 60, 60))] * 2,
        ("maximum", 2, 2, False, None, (4 * F, 30, 30)),
        *[("Conv2d", 3, 1, False, "ReLU", (8 * F, 30, 30))] * 2,
        ("maximum", 2, 2, False, None, (8 * F, 15, 15)),
        *[("Conv2d", 3, 1, False, "ReLU", (8 * F, 15, 15))] * 2,
        ("Conv2d", 1, 1, False, None, (1, 15, 15)),
    ]


def test_the_critics_number_of_parameters_follows_from_the_table(count):
    pairs = ((1, 16), (16, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 128), (128, 128))
    by_hand = sum(9 * before * after + after for before, after in pairs) + 128 + 1
    assert by_hand == 576_961
    assert count(MapCritic()) == by_hand


def test_the_generators_number_of_parameters_follows_from_its_stages(count):
    def two(channels: int, out: int) -> int:
        """Two 3×3 convolutions, each with bias and affine instance norm."""
        return 9 * channels * out + 3 * out + 9 * out * out + 3 * out

    def up(channels: int, out: int) -> int:
        """A transposed 2×2 convolution."""
        return 4 * channels * out + out

    f = 32
    down = two(1, f) + two(f, f) + two(f, 2 * f) + two(2 * f, 4 * f) + two(4 * f, 8 * f)
    decoder = up(8 * f, 4 * f) + two(8 * f, 4 * f) + up(4 * f, 2 * f) + two(4 * f, 2 * f)
    decoder += up(2 * f, f) + two(2 * f, f) + up(f, f) + two(2 * f, f)
    assert count(MapGenerator()) == down + decoder + f + 1


def test_the_generator_has_stages_of_f_f_2f_4f_8f_channels():
    unet = MapGenerator(filters=4).unet
    shapes = []
    for stage in (unet.conv_0, unet.down_1, unet.down_2, unet.down_3, unet.down_4):
        stage.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    unet(torch.rand(1, 1, 64, 32))
    assert shapes == [(4, 64, 32), (4, 32, 16), (8, 16, 8), (16, 8, 4), (32, 4, 2)]


@pytest.mark.parametrize("size", [(32, 32), (48, 80), (240, 240)])
def test_both_are_fully_convolutional(size):
    images = torch.rand(2, 1, *size)
    assert MapGenerator(filters=4)(images).shape == (2, 1, *size)
    assert MapCritic(4)(images).shape == (2, 1)


def test_the_smallest_image_of_the_critic_has_16_pixels_a_side():
    assert MapCritic(4)(torch.rand(1, 1, 16, 16)).shape == (1, 1)


def test_a_score_is_the_mean_over_the_pixels_of_the_last_layer():
    critic, images = MapCritic(4), torch.rand(2, 1, 48, 32)
    torch.testing.assert_close(critic(images), critic.layers(images).mean((2, 3)))


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_critic_scores_each_sample_by_itself(spectral_norm):
    torch.manual_seed(0)
    critic = MapCritic(4, spectral_norm).eval()
    images = torch.rand(3, 1, 32, 32, requires_grad=True)
    scores = critic(images)
    torch.testing.assert_close(scores[1:2], critic(images[1:2]), rtol=1e-5, atol=1e-7)
    scores[1].sum().backward()
    # Not even a little: the gradient penalty is one of each sample.
    assert images.grad[0].abs().max() == images.grad[2].abs().max() == 0 < images.grad[1].abs().max()


def test_the_critic_has_no_normalisation():
    kinds = {type(layer) for layer in MapCritic(4).layers}
    assert kinds == {nn.Conv2d, nn.ReLU, nn.MaxPool2d}


def test_the_gradient_penalty_is_exact_in_every_weight_of_the_critic():
    torch.manual_seed(0)
    critic = MapCritic(2).double()
    real, fake = torch.rand(2, 2, 1, 16, 16, dtype=torch.float64)

    def penalty() -> torch.Tensor:
        torch.manual_seed(1)  # the same places between real and fake
        return WassersteinGP().penalty(critic, real, fake)

    penalty().backward()
    for weight in (parameter for parameter in critic.parameters() if parameter.ndim == 4):
        place = int(weight.grad.abs().argmax())
        assert weight.grad.flatten()[place] != 0
        values, step = weight.detach().view(-1), 1e-7
        values[place] += step
        above = penalty()
        values[place] -= 2 * step
        below = penalty()
        values[place] += step
        slope = float((above - below).detach() / (2 * step))
        assert float(weight.grad.flatten()[place]) == pytest.approx(slope, rel=1e-3)


def test_y_is_tanh_of_x_plus_m_on_images_from_minus_1_to_1():
    network = MapGenerator(filters=4)
    x = torch.rand(2, 1, 32, 32)
    effect = network.map(x)
    assert effect.abs().max() > 0
    torch.testing.assert_close(2 * network(x) - 1, torch.tanh(2 * x - 1 + effect))
    torch.testing.assert_close(network.apply_map(x, effect), network(x))


def test_m_sees_images_from_minus_1_to_1():
    network = MapGenerator(filters=4)
    x = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(network.map(x), network.unet(2 * x - 1))


def test_images_of_the_shortcut_lie_in_0_1_and_maps_are_unbounded():
    torch.manual_seed(0)
    network = MapGenerator(filters=4)
    with torch.no_grad():
        network.unet.final_conv.weight *= 1000
        x = torch.rand(2, 1, 32, 32)
        assert network.map(x).abs().max() > 2
        made = network(x)
    assert ((made >= 0) & (made <= 1)).all()
    assert made.max() - made.min() > 0.9


def test_a_residual_map_starts_at_zero_so_that_the_image_is_the_input_to_the_bit():
    network = MapGenerator(filters=4, output="residual")
    x = torch.rand(2, 1, 32, 32)
    assert network.map(x).abs().max() == 0
    assert torch.equal(network(x), x)
    network(x).sum().backward()
    assert network.unet.final_conv.weight.grad.abs().max() > 0


def test_a_residual_map_is_added_as_it_is():
    x, effect = torch.rand(2, 1, 32, 32), 3 * torch.randn(2, 1, 32, 32)
    assert torch.equal(MapGenerator(filters=4, output="residual").apply_map(x, effect), x + effect)


def test_an_image_of_another_contrast_is_the_map_alone_squashed():
    x, effect = torch.rand(2, 3, 32, 32), torch.randn(2, 1, 32, 32)
    network = MapGenerator(filters=4, output="image", in_channels=3)
    torch.testing.assert_close(network.apply_map(x, effect), (effect.tanh() + 1) / 2)
    assert network(x).shape == (2, 1, 32, 32)


@pytest.mark.parametrize("output", ["shortcut", "residual"])
def test_a_map_of_several_channels_is_added_to_the_first(output):
    x, effect = torch.rand(2, 3, 32, 32), torch.randn(2, 1, 32, 32)
    several, one = (MapGenerator(filters=4, output=output, in_channels=channels) for channels in (3, 1))
    torch.testing.assert_close(several.apply_map(x, effect), one.apply_map(x[:, :1], effect))


@pytest.mark.parametrize("output", ["sigmoid", "", "Shortcut"])
def test_another_output_is_refused_with_its_value(output):
    with pytest.raises(ValueError, match=f"one of shortcut, residual, image, found {output!r}"):
        MapGenerator(output=output)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["shortcut", "residual", "image"])
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_it_scripts_and_the_script_gives_the_same_image(output):
    network = MapGenerator(filters=4, output=output).eval()
    nn.init.normal_(network.unet.final_conv.weight, std=0.1)
    scripted, image = torch.jit.script(network), torch.rand(1, 1, 32, 48)
    torch.testing.assert_close(scripted(image), network(image))


@pytest.mark.parametrize("make", [lambda: MapGenerator(filters=4), lambda: MapCritic(4)])
def test_half_precision_gives_nearly_the_same(make):
    torch.manual_seed(0)
    network, images = make(), torch.rand(1, 1, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(images)
    torch.testing.assert_close(half.float(), network(images), rtol=0, atol=0.05)
