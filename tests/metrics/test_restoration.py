"""What restorations keep of lesions."""

import math

import pytest
import torch
from torch import Tensor

from pipeline.metrics.restoration import lesion_contrast_kept, planted_kept

SPACING = (2.0, 2.0)


def scan(contrast: float) -> tuple[Tensor, Tensor, Tensor]:
    """Tissue of 0.4 with a lesion, its mask, and the head around it."""
    mask = torch.zeros(2, 1, 40, 40)
    mask[0, :, 16:22, 16:22] = 1
    foreground = torch.zeros_like(mask)
    foreground[:, :, 4:36, 4:36] = 1
    return 0.4 * foreground + contrast * mask, mask, foreground


@pytest.mark.parametrize(("left", "kept"), [(0.3, 1.0), (0.15, 0.5), (0.0, 0.0), (-0.3, -1.0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_share_of_a_lesion_s_contrast_that_is_left(left: float, kept: float, sign: int) -> None:
    truth, mask, foreground = scan(sign * 0.3)
    restored, _, _ = scan(sign * left)
    assert lesion_contrast_kept(restored, truth, mask, foreground, SPACING) == pytest.approx(kept, abs=1e-5)


def test_a_lesion_that_is_not_there_or_hardly_differs_has_no_contrast_to_keep() -> None:
    truth, mask, foreground = scan(0.01)
    assert math.isnan(lesion_contrast_kept(truth, truth, mask, foreground, SPACING))
    assert math.isnan(lesion_contrast_kept(truth, truth, 0 * mask, foreground, SPACING))


def test_each_planted_lesion_is_measured_by_itself_whatever_else_a_restoration_changes() -> None:
    added, numbers = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    for number, place in ((1, 1), (3, 5)):
        added[..., place, 1:4], numbers[..., place, 1:4] = torch.tensor([0.1, 0.2, 0.1]), number
    without = torch.rand(1, 1, 8, 8)
    share = torch.ones_like(added)
    share[..., 5, :] = 0.25
    kept = planted_kept(without + share * added, without, added, numbers)
    torch.testing.assert_close(kept, torch.tensor([1.0, 0.25]))
    assert planted_kept(without, without, 0 * added, 0 * numbers).shape == (0,)
