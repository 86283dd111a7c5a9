"""The segmentor of PHS-GAN: Ronneberger's U-Net with leaky ReLU and a residual connection around each stage."""

import pytest
import torch
from torch import nn

from pipeline.networks import ResidualUNet
from pipeline.networks.residual_unet import ResidualStage


def stage(channels: int, height: int, width: int) -> list:
    """The projection of the input, then the two convolutions, whose sum with it the last leaky ReLU rectifies."""
    shape = (channels, height, width)
    return [
        ("Conv2d", 1, 1, False, None, shape),
        ("Conv2d", 3, 1, True, "LeakyReLU", shape),
        ("Conv2d", 3, 1, True, "LeakyReLU", shape),
    ]


def test_the_layers_are_those_of_the_table(table):
    F, H, W = 64, 208, 160  # the filters of Ronneberger et al., the slices of PHS-GAN

    def pool(channels: int, height: int, width: int) -> tuple:
        return ("maximum", 2, 2, False, None, (channels, height, width))

    def up(channels: int, height: int, width: int) -> tuple:
        return ("ConvTranspose2d", 2, 2, False, None, (channels, height, width))

    expected = stage(F, H, W)
    for level in (1, 2, 3, 4):
        height, width = H // 2**level, W // 2**level
        expected += [pool(F * 2 ** (level - 1), height, width), *stage(F * 2**level, height, width)]
    for level in (3, 2, 1, 0):
        shape = (F * 2**level, H // 2**level, W // 2**level)
        expected += [up(*shape), *stage(*shape)]
    assert table(ResidualUNet(filters=F), 1, H, W) == [*expected, ("Conv2d", 1, 1, False, None, (1, H, W))]


@pytest.mark.parametrize("filters", [4, 64])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_number_of_parameters_follows_from_the_table(count, filters, channels):
    def staged(before: int, out: int) -> int:
        """Projection with bias; two 3×3 convolutions, each with bias and affine instance norm."""
        return (before * out + out) + (9 * before * out + 3 * out) + (9 * out * out + 3 * out)

    f = filters
    widths = [f, 2 * f, 4 * f, 8 * f, 16 * f]
    down = sum(staged(before, out) for before, out in zip([channels, *widths], widths, strict=False))
    up = sum(4 * (2 * width) * width + width for width in widths[:-1])
    merge = sum(staged(2 * width, width) for width in widths[:-1])
    assert count(ResidualUNet(in_channels=channels, filters=f)) == down + up + merge + f + 1


def test_a_stage_adds_its_projected_input_before_the_last_rectifier():
    torch.manual_seed(0)
    part = ResidualStage(3, 5)
    features = torch.randn(2, 3, 8, 8)
    summed = part.project(features) + part.body(features)
    torch.testing.assert_close(part(features), torch.where(summed > 0, summed, 0.2 * summed))


def test_no_rectifier_is_a_plain_relu():
    network = ResidualUNet(filters=4)
    slopes = [layer.negative_slope for layer in network.modules() if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.2] * 18
    assert not any(isinstance(layer, nn.ReLU) for layer in network.modules())


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_way_up_sees_the_way_down_at_each_level(level):
    network, seen = ResidualUNet(filters=2), {}
    network.down[level].register_forward_hook(lambda _, __, output: seen.update(skip=output))
    network.merge[3 - level].register_forward_pre_hook(lambda _, given: seen.update(merged=given[0]))
    network(torch.rand(1, 1, 32, 32))
    channels = 2 * 2**level
    assert seen["merged"].shape[1] == 2 * channels
    assert torch.equal(seen["merged"][:, :channels], seen["skip"])


@pytest.mark.parametrize("size", [(32, 32), (48, 80), (64, 32)])
def test_one_logit_a_pixel_at_any_size_divisible_by_16(size):
    assert ResidualUNet(filters=4)(torch.rand(2, 1, *size)).shape == (2, 1, *size)


def test_logits_are_not_squeezed_into_0_1():
    torch.manual_seed(0)
    assert ResidualUNet(filters=4)(torch.rand(1, 1, 32, 32)).min() < 0


def test_its_prediction_starts_near_the_share_of_lesion_in_a_slice():
    torch.manual_seed(0)
    lesion = ResidualUNet(filters=16)(torch.rand(4, 1, 32, 32)).sigmoid().mean()
    assert 0.005 < lesion < 0.08


def test_each_sample_is_normalised_by_itself():
    torch.manual_seed(0)
    network, images = ResidualUNet(filters=4), torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-4, atol=1e-5)


def test_half_precision_gives_nearly_the_same():
    torch.manual_seed(0)
    network, images = ResidualUNet(filters=4), torch.rand(1, 1, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(images)
    torch.testing.assert_close(half.float(), network(images), rtol=0, atol=0.2)
