"""pix2pix's U-Net: the paper's widths, skips, any size, and the same answer each time in use."""

import pytest
import torch
from torch import nn

from pipeline.networks import Pix2PixUNet


def widths(network: nn.Module, kind: type[nn.Module]) -> list[int]:
    """Channels that layers of a kind put out, from the outermost level inwards."""
    return sorted(
        (layer.out_channels for name, layer in network.named_modules() if isinstance(layer, kind)),
        key=lambda width: width,
    )


def test_the_widths_are_the_paper_s() -> None:
    network = Pix2PixUNet()
    assert widths(network, nn.Conv2d) == [64, 128, 256, 512, 512, 512, 512, 512]
    # Each level gives as many as the one above it takes; skips double what comes in.
    assert widths(network, nn.ConvTranspose2d) == [1, 64, 128, 256, 512, 512, 512, 512]
    dropped = [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]
    assert sorted(dropped) == [0, 0, 0, 0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("size", [(32, 32), (48, 40), (64, 17)])
def test_images_of_any_size_keep_it(size: tuple[int, int]) -> None:
    made = Pix2PixUNet(in_channels=2, filters=2, levels=4)(torch.rand(2, 2, *size))
    assert made.shape == (2, 1, *size)
    assert 0 <= made.min() <= made.max() <= 1


def test_a_code_of_one_pixel_can_be_trained() -> None:
    network = Pix2PixUNet(filters=2, levels=5)
    network(torch.rand(1, 1, 32, 32)).mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_skip_brings_fine_detail_past_the_code() -> None:
    torch.manual_seed(0)
    network = Pix2PixUNet(filters=4, levels=3, dropout=0.0).eval()
    image = torch.rand(1, 1, 64, 64, requires_grad=True)
    for layer in network.modules():
        if isinstance(layer, nn.InstanceNorm2d):  # its mean and deviation reach over the whole image
            layer.forward = lambda features: features
    network.inner.up = nn.Sequential(*[nn.ConvTranspose2d(16, 4, 4, stride=2, padding=1)]).apply(
        lambda layer: [nn.init.zeros_(p) for p in layer.parameters()]
    )
    network(image)[0, 0, 32, 32].backward()
    rows = image.grad[0, 0].nonzero()[:, 0]
    assert 0 < int(rows.max() - rows.min()) + 1 <= 8


def test_the_difference_starts_at_none_of_the_first_channel() -> None:
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(Pix2PixUNet(3, filters=2, levels=3, output="residual")(images), images[:, :1])


def test_dropout_is_noise_in_training_alone() -> None:
    torch.manual_seed(0)
    network, image = Pix2PixUNet(filters=4, levels=4), torch.rand(1, 1, 32, 32)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"levels": 1}, "levels is at least 2"), ({"dropout": 1.0}, "dropout"), ({"output": "shortcut"}, "output is one")],
)
def test_values_out_of_range_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Pix2PixUNet(**options)
