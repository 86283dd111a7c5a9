"""Precision, recall and copying of sets whose neighbours are known."""

import pytest
import torch

from pipeline.metrics.nearest import copying, nearest, precision_recall

REAL, OTHERS, HELD_OUT = torch.randn(3, 200, 4, generator=torch.Generator().manual_seed(0))
FAR = REAL + 100


@pytest.mark.parametrize(
    ("generated", "precision", "recall"),
    [
        (REAL, 1.0, 1.0),
        (FAR, 0.0, 0.0),
        (torch.cat([REAL[:100], FAR[:100]]), 0.5, None),  # half of them are none
        (REAL[:1] + 1e-3 * OTHERS, 1.0, 1 / 200),  # collapsed onto one real image
    ],
)
def test_precision_falls_with_what_is_no_image_and_recall_with_what_is_missing(
    generated: torch.Tensor, precision: float, recall: float | None
) -> None:
    found = precision_recall(generated, REAL)
    assert found[0] == pytest.approx(precision, abs=0.01)
    if recall is not None:
        assert found[1] == pytest.approx(recall, abs=0.01)


def test_the_two_change_places_with_the_two_sets() -> None:
    wider = 2 * OTHERS
    assert precision_recall(wider, REAL) == precision_recall(REAL, wider)[::-1]
    assert precision_recall(wider, REAL)[0] < precision_recall(wider, REAL)[1]


def test_a_ball_reaches_to_the_kth_neighbour_and_no_further() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0]])
    inside, outside = torch.tensor([[-0.99]] * 3), torch.tensor([[-1.01]] * 3)
    assert precision_recall(inside, real, 1)[0] == 1
    assert precision_recall(outside, real, 1)[0] == 0
    assert precision_recall(outside, real, 2)[0] == 1  # 3 is the second of 0


def test_as_many_neighbours_as_images_are_refused() -> None:
    with pytest.raises(ValueError, match="found 3 images, expected more than the 3 neighbours"):
        precision_recall(REAL[:3], REAL)


def test_copies_are_told_from_new_images_and_those_from_what_is_none() -> None:
    assert copying(REAL + 1e-4 * OTHERS, REAL, HELD_OUT) == pytest.approx(1, abs=0.01)
    assert copying(OTHERS, REAL, HELD_OUT) == pytest.approx(0.5, abs=0.05)
    assert copying(FAR, REAL, HELD_OUT) == 0
    assert copying(HELD_OUT, REAL, HELD_OUT) == 0.5  # ties count half


def test_the_nearest_is_named() -> None:
    distances, places = nearest(REAL[[7, 3]] + 1e-4, REAL)
    assert places.tolist() == [7, 3]
    assert distances.max() == pytest.approx(2e-4, rel=0.05)
