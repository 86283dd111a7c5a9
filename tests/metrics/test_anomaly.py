"""Anomaly maps, and how well they tell lesions from the rest: against hand-computed values and MONAI's slower ones."""

import math

import pytest
import torch
from monai.metrics import compute_average_precision, compute_roc_auc

from pipeline.metrics.anomaly import anomaly_map, auroc, average_precision, best_threshold


@pytest.fixture
def ranked() -> tuple[torch.Tensor, torch.Tensor]:
    """Two hundred scores of few values, so that many are tied, higher where positive."""
    generator = torch.Generator().manual_seed(0)
    positive = torch.rand(200, generator=generator) < 0.2
    return ((torch.rand(200, generator=generator) + positive) * 8).round() / 8, positive


def test_a_map_is_the_absolute_difference_or_that_of_what_is_brighter() -> None:
    x, healthy = torch.tensor([[[[0.9, 0.2]]]]), torch.tensor([[[[0.5, 0.5]]]])
    torch.testing.assert_close(anomaly_map(x, healthy), torch.tensor([[[[0.4, 0.3]]]]))
    torch.testing.assert_close(anomaly_map(x, healthy, "brighter"), torch.tensor([[[[0.4, 0.0]]]]))


def test_differences_are_averaged_before_their_sign_is_lost_and_over_pixels_of_the_image_alone() -> None:
    checkers = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])[None, None]
    smooth = anomaly_map(checkers, torch.full_like(checkers, 0.5), smooth=3)
    assert float(smooth[0, 0, 1, 1]) == pytest.approx(5 / 9 - 0.5)
    assert float(smooth[0, 0, 0, 0]) == pytest.approx(0.0)


@pytest.mark.parametrize(("options", "told"), [({"residual": "darker"}, "'darker'"), ({"smooth": 2}, "odd number")])
def test_what_is_no_way_to_compare_is_refused(options, told) -> None:
    with pytest.raises(ValueError, match=told):
        anomaly_map(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), **options)


def test_the_area_under_the_roc_curve_is_monai_s(ranked) -> None:
    scores, positive = ranked
    assert auroc(scores, positive) == pytest.approx(compute_roc_auc(scores, positive.float()))


def test_average_precision_is_monai_s_where_no_scores_are_tied(ranked) -> None:
    positive = ranked[1]
    scores = torch.randn(200, generator=torch.Generator().manual_seed(1)) + positive
    expected = compute_average_precision(scores, positive.float())
    assert average_precision(scores, positive) == pytest.approx(expected, abs=1e-6)


def test_a_map_that_knows_nothing_has_the_share_of_positives(ranked) -> None:
    positive = ranked[1]
    assert average_precision(torch.zeros(200), positive) == pytest.approx(float(positive.float().mean()))
    assert auroc(torch.zeros(200), positive) == 0.5


def test_the_best_threshold_has_the_highest_dice_of_all(ranked) -> None:
    scores, positive = ranked
    threshold, dice = best_threshold(scores, positive)

    def dice_at(level: float) -> float:
        called = scores >= level
        return float(2 * (called & positive).sum() / (called.sum() + positive.sum()))

    assert dice == pytest.approx(dice_at(threshold))
    assert dice == pytest.approx(max(dice_at(float(level)) for level in scores.unique()))


def test_without_positives_there_is_no_figure_and_no_threshold() -> None:
    scores, nothing = torch.rand(4), torch.zeros(4, dtype=torch.bool)
    assert math.isnan(average_precision(scores, nothing))
    assert math.isnan(auroc(scores, nothing))
    assert math.isnan(auroc(scores, ~nothing))
    with pytest.raises(ValueError, match="no positive"):
        best_threshold(scores, nothing)
