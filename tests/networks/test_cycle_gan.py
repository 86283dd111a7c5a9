"""The patch discriminator sees 70×70 pixels a score, fewer, or all; CycleGAN's way back knows nothing but the image."""

import pytest
import torch
from torch import nn

from pipeline.networks import PatchGANDiscriminator, PlainCycle
from pipeline.objectives import WassersteinGP


@pytest.mark.slow
def test_the_layers_are_those_of_the_table(table):
    assert table(PatchGANDiscriminator(), 1, 256, 256) == [
        ("Conv2d", 4, 2, False, "LeakyReLU", (64, 128, 128)),
        ("Conv2d", 4, 2, True, "LeakyReLU", (128, 64, 64)),
        ("Conv2d", 4, 2, True, "LeakyReLU", (256, 32, 32)),
        ("Conv2d", 4, 1, True, "LeakyReLU", (512, 31, 31)),
        ("Conv2d", 4, 1, False, None, (1, 30, 30)),
    ]


def test_the_number_of_parameters_follows_from_the_table(count):
    normed = sum(16 * before * after + 3 * after for before, after in ((64, 128), (128, 256), (256, 512)))
    by_hand = (16 * 1 * 64 + 64) + normed + (16 * 512 * 1 + 1)
    assert by_hand == 2_764_481
    assert count(PatchGANDiscriminator()) == by_hand


def test_leaky_relu_has_the_slope_0_2():
    slopes = {layer.negative_slope for layer in PatchGANDiscriminator(4).layers if isinstance(layer, nn.LeakyReLU)}
    assert slopes == {0.2}


@pytest.mark.parametrize(("strided", "field"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_depends_on_as_many_pixels_as_the_strided_layers_give(strided, field):
    torch.manual_seed(0)
    D = PatchGANDiscriminator(4, strided=strided)
    for place, layer in enumerate(D.layers):
        if isinstance(layer, nn.InstanceNorm2d):  # its mean and deviation reach over the whole image
            D.layers[place] = nn.Identity()
    image = torch.rand(1, 1, 128, 128, requires_grad=True)
    D(image)[0, 0, 7, 7].backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(1)
    assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == (field, field)
    # Neighbouring scores of the 70×70 PatchGAN see patches that lie 8 pixels apart.
    first = int(rows.min())
    image.grad = None
    D(image)[0, 0, 8, 7].backward()
    assert int(image.grad[0, 0].nonzero()[:, 0].min()) == first + 2**strided


@pytest.mark.parametrize("size", [(32, 32), (64, 40)])
def test_of_a_whole_image_there_is_one_score_that_knows_where_things_are(size):
    torch.manual_seed(0)
    D, images = PatchGANDiscriminator(4, in_channels=2, whole_image=True), torch.rand(3, 2, *size)
    assert D(images).shape == (3, 1, 1, 1)
    assert not torch.isclose(D(images), D(images.flip(2))).any()


def test_the_number_of_strided_layers_is_one_that_isola_et_al_tried_or_between():
    with pytest.raises(ValueError, match="strided is a number of layers, one of 1, 2, 3, found 4"):
        PatchGANDiscriminator(strided=4)


@pytest.mark.parametrize("size", [(32, 32), (64, 40), (240, 240)])
def test_it_is_fully_convolutional(size):
    height, width = size
    assert PatchGANDiscriminator(4)(torch.rand(2, 1, *size)).shape == (2, 1, height // 8 - 2, width // 8 - 2)


def test_scores_are_linear():
    torch.manual_seed(0)
    scores = 100 * PatchGANDiscriminator(4)(torch.rand(2, 1, 64, 64))
    assert scores.min() < 0 < scores.max() or scores.abs().max() > 1


def test_half_precision_gives_nearly_the_same():
    torch.manual_seed(0)
    D, images = PatchGANDiscriminator(4), torch.rand(1, 1, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = D(images)
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), D(images), rtol=0, atol=0.05)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_a_gradient_penalty_reaches_every_layer(spectral_norm):
    torch.manual_seed(0)
    D = PatchGANDiscriminator(4, spectral_norm)
    WassersteinGP().penalty(D, torch.rand(2, 1, 64, 64), torch.rand(2, 1, 64, 64)).backward()
    kernels = [p for p in D.parameters() if p.ndim == 4]
    assert len(kernels) == 5
    assert all(kernel.grad.isfinite().all() and kernel.grad.abs().max() > 0 for kernel in kernels)


def test_each_sample_is_judged_by_itself():
    torch.manual_seed(0)
    D, images = PatchGANDiscriminator(4), torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(D(images)[1:2], D(images[1:2]), rtol=1e-4, atol=1e-5)


def test_the_way_back_looks_at_the_healthy_image_alone():
    cycle = PlainCycle(nn.Conv2d(1, 1, 3, padding=1))
    x_h = torch.rand(2, 1, 8, 8)
    one, other = (cycle(x_h, image) for image in (torch.zeros_like(x_h), torch.rand_like(x_h)))
    assert torch.equal(one, other)
    assert torch.equal(one, cycle.generator(x_h))
