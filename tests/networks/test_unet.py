"""The segmentor: its stages, its size, and where it starts."""

import pytest
import torch

from pipeline.networks import UNetSegmentor


@pytest.mark.parametrize("filters", [4, 32])
def test_the_number_of_parameters_follows_from_the_stages(filters):
    def two(channels: int, out: int) -> int:
        """Two 3×3 convolutions, each with bias and affine instance norm."""
        return 9 * channels * out + 3 * out + 9 * out * out + 3 * out

    def up(channels: int, out: int) -> int:
        """A transposed 2×2 convolution."""
        return 4 * channels * out + out

    f = filters
    down = two(1, f) + two(f, f) + two(f, 2 * f) + two(2 * f, 4 * f) + two(4 * f, 8 * f)
    decoder = up(8 * f, 4 * f) + two(8 * f, 4 * f) + up(4 * f, 2 * f) + two(4 * f, 2 * f)
    decoder += up(2 * f, f) + two(2 * f, f) + up(f, f) + two(2 * f, f)
    last = f + 1
    network = UNetSegmentor(filters=filters)
    assert sum(parameter.numel() for parameter in network.parameters()) == down + decoder + last


@pytest.mark.parametrize(("widths", "times"), [("basic", (1, 1, 2, 4, 8)), ("doubling", (1, 2, 4, 8, 16))])
def test_four_stages_down_with_the_channels_of_the_docstring(widths, times):
    network = UNetSegmentor(filters=4, widths=widths)
    unet, shapes = network.unet, []
    for stage in (unet.conv_0, unet.down_1, unet.down_2, unet.down_3, unet.down_4):
        stage.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    network(torch.rand(1, 1, 64, 32))
    sizes = [(64, 32), (32, 16), (16, 8), (8, 4), (4, 2)]
    assert shapes == [(4 * wide, *size) for wide, size in zip(times, sizes, strict=True)]


def test_other_widths_are_refused():
    with pytest.raises(ValueError, match="'basic' or 'doubling', found 'wide'"):
        UNetSegmentor(widths="wide")


@pytest.mark.parametrize("size", [(32, 32), (48, 80), (64, 32)])
def test_one_logit_a_pixel_at_any_size_divisible_by_16(size):
    assert UNetSegmentor(filters=4)(torch.rand(2, 1, *size)).shape == (2, 1, *size)


def test_logits_are_not_squeezed_into_0_1():
    torch.manual_seed(0)
    network = UNetSegmentor(filters=4)
    assert network(torch.rand(1, 1, 32, 32)).min() < 0


def test_its_prediction_starts_near_the_share_of_lesion_in_a_slice():
    torch.manual_seed(0)
    lesion = UNetSegmentor(filters=32)(torch.rand(4, 1, 32, 32)).sigmoid().mean()
    assert 0.01 < lesion < 0.06


def test_each_sample_is_normalised_by_itself():
    torch.manual_seed(0)
    network = UNetSegmentor(filters=4)
    images = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-4, atol=1e-5)
