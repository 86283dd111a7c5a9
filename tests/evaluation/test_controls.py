"""Controls: doing nothing, and filling the lesion with the mean of normal tissue."""

import pytest
import torch

from pipeline.evaluation.controls import CONTROLS, mean_filled, untouched

x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
lesion = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
lesion[0, 0, 2:4, 2:4] = True
lesion[1, 0, 5, 1:6] = True
foreground = torch.zeros_like(lesion)
foreground[..., 1:7, 1:7] = True


def test_the_untouched_input_is_the_input_bit_for_bit() -> None:
    assert torch.equal(untouched(x, lesion, foreground), x)


def test_mean_fill_leaves_everything_outside_the_lesion_bit_identical() -> None:
    assert torch.equal(mean_filled(x, lesion, foreground)[~lesion], x[~lesion])


def test_mean_fill_sets_each_lesion_to_the_mean_of_its_own_slice_s_normal_tissue() -> None:
    filled = mean_filled(x, lesion, foreground)
    for image, mask, inside, result in zip(x, lesion, foreground, filled, strict=True):
        expected = float(image[inside & ~mask].mean())
        assert result[mask].tolist() == pytest.approx([expected] * int(mask.sum()))


def test_a_slice_that_is_all_lesion_is_filled_with_background() -> None:
    everywhere = torch.ones_like(lesion)
    assert torch.equal(mean_filled(x, everywhere, foreground), torch.zeros_like(x))


def test_every_control_gives_an_image_of_the_same_kind() -> None:
    assert list(CONTROLS) == ["untouched input", "mean-filled lesion"]
    for control in CONTROLS.values():
        result = control(x, lesion, foreground)
        assert (result.shape, result.dtype) == (x.shape, x.dtype)
        assert 0 <= float(result.min()) <= float(result.max()) <= 1
