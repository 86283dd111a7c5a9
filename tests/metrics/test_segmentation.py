import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torchmetrics.functional.classification import binary_precision, binary_recall
from torchmetrics.functional.segmentation import dice_score

from pipeline.metrics.segmentation import dice, fragments, hd95, holes, precision, recall

Mask = NDArray[np.bool_]
Metric = Callable[[Tensor, Tensor], Tensor]


def masks(samples: int = 4, height: int = 40, width: int = 56) -> tuple[Tensor, Tensor]:
    """Ragged lesions in several pieces, and what a segmentor might find of them: (found, lesion)."""
    rng = np.random.default_rng(3)
    field = ndimage.gaussian_filter(rng.normal(size=(2, samples, 1, height, width)), (0, 0, 0, 4, 4))
    found, lesion = field[0] + 2 * field[1] > 0.1, field[1] > 0.03
    return torch.from_numpy(found), torch.from_numpy(lesion)


def rectangle(top: int, left: int, height: int, width: int, size: tuple[int, int] = (12, 12)) -> Tensor:
    mask = torch.zeros(1, 1, *size)
    mask[..., top : top + height, left : left + width] = 1
    return mask


def hd95_by_hand(found: Mask, lesion: Mask, spacing_mm: tuple[float, float]) -> float:
    """All distances between the two outlines' pixel centres, one by one."""
    outlines = [
        np.argwhere(mask & ~ndimage.binary_erosion(mask, ndimage.generate_binary_structure(2, 1))) * spacing_mm
        for mask in (found, lesion)
    ]
    distances = np.linalg.norm(outlines[0][:, None] - outlines[1][None], axis=-1)
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


def test_overlaps_are_those_of_torchmetrics() -> None:
    found, lesion = masks()
    expected = dice_score(found.long(), lesion.long(), num_classes=1, input_format="one-hot", average="none")
    torch.testing.assert_close(dice(found, lesion), expected.flatten())
    for sample in range(len(found)):
        ours = precision(found, lesion)[sample], recall(found, lesion)[sample]
        theirs = binary_precision(found[sample], lesion[sample]), binary_recall(found[sample], lesion[sample])
        torch.testing.assert_close(ours, theirs)
        assert len({round(float(value), 3) for value in ours}) == 2
        assert 0 < min(ours) < max(ours) < 1


def test_overlaps_of_two_rectangles() -> None:
    found, lesion = rectangle(2, 2, 4, 5), rectangle(3, 4, 2, 6)  # 20 and 12 pixels, 2 × 3 of them common
    assert dice(found, lesion).tolist() == pytest.approx([12 / 32])
    assert precision(found, lesion).tolist() == pytest.approx([6 / 20])
    assert recall(found, lesion).tolist() == pytest.approx([6 / 12])


def test_dice_is_the_harmonic_mean_of_precision_and_recall() -> None:
    found, lesion = masks()
    p, r = precision(found, lesion), recall(found, lesion)
    torch.testing.assert_close(dice(found, lesion), 2 * p * r / (p + r))


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (0.5, 2.0)])
def test_hd95_is_that_of_all_distances_between_the_outlines(spacing_mm: tuple[float, float]) -> None:
    found, lesion = masks()
    expected = [hd95_by_hand(f, y, spacing_mm) for f, y in zip(found[:, 0].numpy(), lesion[:, 0].numpy(), strict=True)]
    assert min(expected) > 1
    assert hd95(found, lesion, spacing_mm).tolist() == pytest.approx(expected, rel=1e-5)


def test_hd95_of_two_pixels_is_their_distance_in_millimetres() -> None:
    found, lesion = rectangle(1, 1, 1, 1), rectangle(4, 5, 1, 1)
    assert hd95(found, lesion).tolist() == [5]
    assert hd95(found, lesion, (2, 3)).tolist() == pytest.approx([math.hypot(6, 12)])


def test_hd95_forgives_a_false_pixel_among_many_that_precision_counts() -> None:
    lesion = rectangle(2, 2, 30, 30, size=(64, 64))
    found = lesion.clone()
    found[..., 60, 60] = 1
    assert hd95(found, lesion).tolist() == [0]
    assert precision(found, lesion).tolist() == pytest.approx([900 / 901])


def test_a_perfect_segmentation() -> None:
    _, lesion = masks()
    ones = torch.ones(len(lesion))
    for metric in (dice, precision, recall):
        assert torch.equal(metric(lesion, lesion), ones)
    assert torch.equal(hd95(lesion, lesion), 0 * ones)


def test_nothing_found_and_nothing_annotated_are_undefined_where_the_ratio_is() -> None:
    something, nothing = rectangle(2, 2, 3, 3), torch.zeros(1, 1, 12, 12)
    found = torch.cat([nothing, something, nothing, something])
    lesion = torch.cat([something, nothing, nothing, something])
    nan = math.nan
    for metric, expected in (
        (dice, [0, nan, nan, 1]),
        (precision, [nan, 0, nan, 1]),
        (recall, [0, nan, nan, 1]),
        (hd95, [nan, nan, nan, 0]),
    ):
        torch.testing.assert_close(metric(found, lesion), torch.tensor(expected), equal_nan=True)


def drawing(*rows: str) -> Tensor:
    """A mask as it is drawn: # is lesion."""
    return torch.tensor([[[[float(c == "#") for c in row] for row in rows]]])


# Two holes, of which one is annotated, and a bay that is open to the border.
RINGS = ("##########", "#.##...###", "#####.####", "####.#####", "####..####", "####..####")
WHOLE = ("##########", "####...###", "#####.####", "##########", "##########", "##########")


def test_holes_are_enclosed_regions_that_are_annotated_lesion() -> None:
    assert holes(drawing(*RINGS), drawing(*WHOLE)).tolist() == [1]
    # The bay at the border is none, and a gap across a corner does not open a hole.
    assert holes(drawing(*RINGS), drawing(*["#" * 10] * 6)).tolist() == [2]
    assert holes(drawing(*RINGS), drawing(*RINGS)).tolist() == [0]


@pytest.mark.parametrize(
    ("found", "lesion", "count"),
    [
        (("##..##",), ("######",), 1),  # a lesion in two pieces
        (("##..##",), ("##..##",), 0),
        (("######",), ("##..##",), 0),  # two lesions in one piece
        (("##..#.", "......", "#....#"), ("##....", "......", "......"), 3),  # false alarms
        (("#.", ".#"), ("##", "##"), 0),  # connected across a corner
        (("#.#.#.#",), ("###.###",), 2),
    ],
)
def test_fragments_are_pieces_beyond_one_for_each_lesion(
    found: tuple[str, ...], lesion: tuple[str, ...], count: int
) -> None:
    assert fragments(drawing(*found), drawing(*lesion)).tolist() == [count]


@pytest.mark.parametrize("metric", [holes, fragments])
def test_where_nothing_was_found_there_are_neither_pieces_nor_none(metric: Metric) -> None:
    _, lesion = masks()
    found = lesion.clone()
    found[0] = False
    counts = metric(found, lesion)
    assert counts[0].isnan()
    assert counts[1:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("metric", [dice, precision, recall, hd95, holes, fragments])
def test_bool_and_number_masks_give_the_same(metric: Metric) -> None:
    found, lesion = masks()
    value = metric(found, lesion)
    assert value.shape == (4,)
    assert torch.equal(metric(found.float(), lesion.int()), value)


@pytest.mark.parametrize("metric", [dice, precision, recall, hd95, holes, fragments])
def test_other_shapes_are_refused(metric: Metric) -> None:
    with pytest.raises(ValueError, match=r"got \(2, 1, 4, 4\) and \(1, 1, 4, 4\)"):
        metric(torch.ones(2, 1, 4, 4), torch.ones(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        metric(torch.ones(2, 2, 4, 4), torch.ones(2, 2, 4, 4))
