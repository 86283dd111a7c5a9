"""Controls: doing nothing, and filling the lesion with a constant, smoothly, or from the other hemisphere."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from pipeline.evaluation.controls import CONTROLS, harmonic, mean_filled, mirrored, untouched
from pipeline.phantoms import brain_phantom

x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
lesion = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
lesion[0, 0, 2:4, 2:4] = True
lesion[1, 0, 5, 1:6] = True
foreground = torch.zeros_like(lesion)
foreground[..., 1:7, 1:7] = True

Slice = tuple[Tensor, Tensor, Tensor]
Control = Callable[[Tensor, Tensor, Tensor], Tensor]


def disc(height: int, width: int, centre: tuple[float, float], radius: float) -> Tensor:
    h, w = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((h - centre[0]) ** 2 + (w - centre[1]) ** 2 < radius**2)[None, None]


def head(tilt: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), size: tuple[int, int] = (96, 112)) -> Slice:
    """A healthy head that is symmetric about a line, its foreground, and a lesion mask on one side.

    The line is the middle of axis H, moved by `shift` pixels and tilted by `tilt` degrees.
    """
    centre = [(side - 1) / 2 + moved for side, moved in zip(size, shift, strict=True)]
    h, w = np.meshgrid(np.arange(size[0]) - centre[0], np.arange(size[1]) - centre[1], indexing="ij")
    cos, sin = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    across, along = np.abs(h * cos + w * sin), w * cos - h * sin
    brain = (across / 33) ** 2 + (along / 42) ** 2 < 1
    ventricle = ((across - 7) / 5) ** 2 + ((along - 4) / 12) ** 2 < 1
    tissue = 0.6 + 0.15 * np.sin(across / 4) * np.cos(along / 6) - 0.35 * ventricle
    tumour = (h * cos + w * sin - 14) ** 2 + (along - 12) ** 2 < 9**2
    image = torch.from_numpy(np.where(brain, tissue, 0)).float()[None, None]
    return image, torch.from_numpy(tumour & brain)[None, None], torch.from_numpy(brain)[None, None]


def test_the_untouched_input_is_the_input_bit_for_bit() -> None:
    assert torch.equal(untouched(x, lesion, foreground), x)


@pytest.mark.parametrize("name", list(CONTROLS))
def test_everything_outside_the_lesion_stays_bit_identical(name: str) -> None:
    before = x.clone()
    assert torch.equal(CONTROLS[name](x, lesion, foreground)[~lesion], x[~lesion])
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", list(CONTROLS))
def test_slices_are_filled_by_themselves(name: str) -> None:
    together = CONTROLS[name](x, lesion, foreground)
    alone = [CONTROLS[name](x[i : i + 1], lesion[i : i + 1], foreground[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


def test_mean_fill_sets_each_lesion_to_the_mean_of_its_own_slice_s_normal_tissue() -> None:
    filled = mean_filled(x, lesion, foreground)
    for image, mask, inside, result in zip(x, lesion, foreground, filled, strict=True):
        expected = float(image[inside & ~mask].mean())
        assert result[mask].tolist() == pytest.approx([expected] * int(mask.sum()))


@pytest.mark.parametrize("control", [mean_filled, harmonic, mirrored])
def test_a_slice_that_is_all_lesion_is_filled_with_background(control: Control) -> None:
    everywhere = torch.ones_like(lesion)
    assert torch.equal(control(x, everywhere, foreground), torch.zeros_like(x))


def test_every_control_gives_an_image_of_the_same_kind() -> None:
    assert list(CONTROLS) == [
        "untouched input",
        "mean-filled lesion",
        "harmonic inpainting",
        "mirrored hemisphere",
    ]
    for control in CONTROLS.values():
        for image in (x, 0 * x):
            result = control(image, lesion, foreground)
            assert (result.shape, result.dtype) == (x.shape, x.dtype)
            assert 0 <= float(result.min()) <= float(result.max()) <= 1


def test_harmonic_fill_gives_a_linear_ramp_back() -> None:
    h, w = torch.meshgrid(torch.linspace(0, 1, 40), torch.linspace(0, 1, 50), indexing="ij")
    ramp = (0.1 + 0.5 * h + 0.3 * w)[None, None]
    tissue = torch.ones_like(ramp, dtype=torch.bool)
    mask = disc(40, 50, (20, 22), 9) | disc(40, 50, (9, 40), 4)
    filled = harmonic(torch.where(mask, torch.ones_like(ramp), ramp), mask, tissue)
    torch.testing.assert_close(filled, ramp, atol=1e-6, rtol=0)


def test_harmonic_fill_makes_each_lesion_pixel_the_mean_of_its_four_neighbours() -> None:
    image = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(2))
    mask = disc(40, 40, (20, 20), 10)
    filled = harmonic(image, mask, torch.ones_like(mask))
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4
    mean = ndimage.convolve(filled[0, 0].double().numpy(), cross)
    np.testing.assert_allclose(filled[mask].numpy(), mean[mask[0, 0].numpy()], atol=1e-6)


def test_harmonic_fill_lies_between_the_values_around_the_lesion() -> None:
    image = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(1)) * 0.4 + 0.3
    mask = disc(40, 40, (18, 21), 8)
    ring = torch.from_numpy(ndimage.binary_dilation(mask[0, 0].numpy()))[None, None] & ~mask
    filled = harmonic(torch.where(mask, torch.ones_like(image), image), mask, torch.ones_like(mask))
    assert image[ring].min() < filled[mask].min() < filled[mask].max() < image[ring].max()


def test_harmonic_fill_at_the_brain_s_edge_does_not_turn_black() -> None:
    brain = disc(60, 60, (30, 30), 20)
    image = 0.7 * brain
    mask = disc(60, 60, (30, 46), 7)  # reaches beyond the brain
    assert (mask & ~brain).any()
    assert harmonic(image, mask, brain)[mask].tolist() == pytest.approx([0.7] * int(mask.sum()))


def test_nothing_flows_across_the_image_s_border() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4, :], image[..., 5:, :] = 0.5, 0.9
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4, :] = True
    assert harmonic(image, mask, torch.ones_like(mask))[mask].tolist() == pytest.approx([0.5] * 32)


def test_a_lesion_that_touches_no_tissue_is_filled_with_the_mean_while_its_neighbour_is_smooth() -> None:
    tissue = disc(60, 60, (20, 20), 15)
    image = tissue * torch.linspace(0.2, 0.8, 60)[:, None]
    inside, apart = disc(60, 60, (20, 20), 5), disc(60, 60, (50, 50), 4)
    mask = inside | apart
    filled = harmonic(image, mask, tissue)
    assert filled[apart].unique().tolist() == pytest.approx([float(image[tissue & ~mask].mean())])
    torch.testing.assert_close(filled[inside], image[inside], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(96, 112), (97, 120)])
@pytest.mark.parametrize("shift", [(0, 0), (6, -4), (-7.5, 3)])
def test_a_symmetric_head_gets_its_healthy_tissue_back_wherever_it_lies(
    size: tuple[int, int], shift: tuple[float, float]
) -> None:
    healthy, mask, inside = head(shift=shift, size=size)
    sick = torch.where(mask, torch.ones_like(healthy), healthy)
    assert mask.sum() > 200
    torch.testing.assert_close(mirrored(sick, mask, inside), healthy, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(96, 112), (208, 160)])
@pytest.mark.parametrize(("tilt", "shift"), [(-11, (3, -2)), (-4, (0, 0)), (0, (-7.5, 3)), (3, (3, -2)), (8, (10, 5))])
def test_a_tilted_head_gets_its_healthy_tissue_back_to_the_pixel(
    size: tuple[int, int], tilt: float, shift: tuple[float, float]
) -> None:
    healthy, mask, inside = head(tilt, shift, size)
    sick = torch.where(mask, torch.ones_like(healthy), healthy)
    error = (mirrored(sick, mask, inside) - healthy).abs()[mask].mean()
    # The image itself varies by this much from a pixel to the next.
    step = healthy.diff(dim=2).abs()[inside[:, :, 1:] & inside[:, :, :-1]].mean()
    assert error < step < (mean_filled(sick, mask, inside) - healthy).abs()[mask].mean() / 3


def test_a_bright_lesion_does_not_draw_the_line_towards_itself() -> None:
    healthy, _, inside = head()
    mask = disc(96, 112, (66, 60), 14) & inside
    sick = torch.where(mask, torch.ones_like(healthy), 0.3 * healthy)
    torch.testing.assert_close(mirrored(sick, mask, inside), 0.3 * healthy, atol=1e-5, rtol=0)


def test_where_the_mirror_pixel_is_lesion_or_air_the_mean_is_filled_in() -> None:
    healthy, mask, inside = head()
    both = mask | (mask & (disc(96, 112, (62, 67), 5))).flip(2)
    air = disc(96, 112, (96 - 1 - 57, 70), 4) & ~both
    without = inside & ~air
    filled, expected = mirrored(healthy, both, without), mean_filled(healthy, both, without)
    fallback = both & (both | air).flip(2)
    assert 100 < fallback.sum() < both.sum()
    assert torch.equal(filled[fallback], expected[fallback])
    found = both & ~fallback
    torch.testing.assert_close(filled[found], healthy[found], atol=1e-5, rtol=0)


def test_on_a_symmetric_phantom_the_other_hemisphere_is_the_truth_but_for_its_noise() -> None:
    phantom = brain_phantom(0)
    place = int(phantom.lesion.sum(axis=(0, 1)).argmax())
    truth, annotated = phantom.healthy[..., place] / 1000, phantom.lesion[..., place] > 0
    noise = np.random.default_rng(0).normal(0, 0.01, truth.shape)
    symmetric = np.where(truth > 0, (truth + truth[::-1]) / 2 + noise, 0).clip(0, 1)
    inside = (truth > 0) & (truth > 0)[::-1]
    one_side = annotated & inside
    one_side[: len(one_side) // 2] = False
    if one_side.sum() < annotated.sum() / 2:
        one_side = annotated[::-1] & inside
        one_side[: len(one_side) // 2] = False
    healthy, mask, tissue = (torch.from_numpy(a.copy())[None, None] for a in (symmetric, one_side, inside))
    healthy = (healthy * tissue).float()
    sick = torch.where(mask, (healthy + 0.3).clamp(max=1), healthy)
    errors = {
        name: float((control(sick, mask, tissue) - healthy).square()[mask].mean().sqrt())
        for name, control in CONTROLS.items()
    }
    assert errors["mirrored hemisphere"] < 0.02  # the noise of two pixels is 0.014
    assert errors["mirrored hemisphere"] < errors["mean-filled lesion"] / 2
    assert errors["mirrored hemisphere"] < errors["harmonic inpainting"] / 2


@pytest.mark.parametrize("control", [harmonic, mirrored])
def test_an_empty_lesion_changes_nothing(control: Control) -> None:
    assert torch.equal(control(x, torch.zeros_like(lesion), foreground), x)
