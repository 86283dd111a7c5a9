"""The filling network: it starts as the harmonic fill, changes the hole alone, and does not care for the contrast."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.networks import FillNetwork


def shown(neighbours: int = 1, size: tuple[int, int] = (32, 32)) -> Tensor:
    """A head with a hole in each slice, and as the other side the same mirrored."""
    torch.manual_seed(3)
    seen = 2 * neighbours + 1
    head = torch.zeros(2, seen, *size)
    head[:, :, 6:26, 6:26] = 0.3 + 0.4 * torch.rand(2, seen, 20, 20)
    hole = torch.zeros_like(head)
    hole[:, :, 10:15, 12:18] = 1
    return torch.cat([head, hole, head.flip(2), hole.flip(2)], dim=1)


def trained(neighbours: int = 1) -> FillNetwork:
    """One whose last layer is no longer zero."""
    torch.manual_seed(0)
    network = FillNetwork(neighbours, filters=4)
    nn.init.normal_(network.unet.final_conv.weight)
    return network.eval()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("neighbours", [0, 1, 2])
def test_it_starts_as_the_harmonic_fill_to_the_bit(neighbours, training):
    given = shown(neighbours)
    made = FillNetwork(neighbours, filters=4).train(training)(given)
    assert torch.equal(made, given[:, neighbours : neighbours + 1])


def test_it_changes_the_hole_and_nothing_else():
    given = shown()
    change = trained()(given) - given[:, 1:2]
    hole = given[:, 4:5] > 0
    assert change[hole].abs().min() > 0
    assert not change[~hole].any()


def test_an_inverted_scan_gets_the_inverted_fill():
    given = shown()
    inverted = given.clone()
    for slices in (slice(0, 3), slice(6, 9)):
        inverted[:, slices] = torch.where(given[:, slices] > 0, 1 - given[:, slices], 0)
    network = trained()
    change, other = network(given) - given[:, 1:2], network(inverted) - inverted[:, 1:2]
    assert change.abs().max() > 1e-3
    torch.testing.assert_close(other, -change)


def test_a_mirrored_scan_gets_the_mirrored_fill():
    given, network = shown(), trained()
    torch.testing.assert_close(network(given.flip(2)), network(given).flip(2))


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0.0), (0.5, 0.25), (1.2, 0.0)])
def test_brightness_and_contrast_of_the_tissue_scale_the_change(gain, offset):
    given, network = shown(), trained()
    other = given.clone()
    for slices in (slice(0, 3), slice(6, 9)):
        other[:, slices] = torch.where(given[:, slices] > 0, gain * given[:, slices] + offset, 0)
    change = network(given) - given[:, 1:2]
    torch.testing.assert_close(network(other) - other[:, 1:2], gain * change)


def test_how_much_of_the_head_is_shown_around_the_hole_does_not_change_what_is_normal():
    """Training crops, use does not."""
    given = shown(size=(64, 64))
    network = FillNetwork(filters=4, near=3)
    inputs: list[Tensor] = []
    network.unet.register_forward_pre_hook(lambda _, seen: inputs.append(seen[0]))
    for shift in (0, 5):
        crop = given[:, :, 0 + shift : 32 + shift, 1:33]
        network(crop)
    whole, moved = inputs
    torch.testing.assert_close(whole[:, :, 5:], moved[:, :, :-5])


def test_a_slice_without_tissue_is_filled_with_numbers():
    given = shown()
    given[:, :3] = 0
    assert trained()(given).isfinite().all()


@pytest.mark.parametrize("near", [1, 7, 16, 32])
def test_its_surroundings_are_what_is_so_many_pixels_from_the_hole(near):
    torch.manual_seed(1)
    hole = (torch.rand(2, 3, 48, 64) > 0.999).float() * torch.rand(2, 3, 48, 64)
    around = nn.functional.max_pool2d(hole, 2 * near + 1, stride=1, padding=near)
    assert torch.equal(FillNetwork(filters=4, near=near)._near(hole), around)
