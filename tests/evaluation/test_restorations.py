"""A restorer on slices that are degraded as it was trained to undo, beside the slices left degraded."""

from pathlib import Path

import pytest
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pipeline.errors import UsageError
from pipeline.evaluation import Settings, evaluate
from pipeline.evaluation.controls import DEGRADED
from pipeline.inference import Restorer
from pipeline.metrics.catalogue import MODALITY
from pipeline.preprocessing.degradation import Degradation, Noise, ThickSlices
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule

SETTINGS = Settings("ours", {}, judge=None)


class Blur(nn.Module):
    """The mean of 3×3 pixels of the middle channel, which takes noise away."""

    def forward(self, image: Tensor) -> Tensor:
        middle = image.shape[1] // 2
        return avg_pool2d(image[:, middle : middle + 1], 3, stride=1, padding=1)


def restorer(degradation: Degradation | None, **options) -> Restorer:
    return Restorer(Blur(), Grid(4.0, (48, 48)), WindowRule(), degradation=degradation, **options)


def test_a_blur_beats_heavy_noise_left_as_it_is_and_loses_to_light_noise(cohort: Path) -> None:
    found = {}
    for level in (0.02, 0.3):
        summary = evaluate(restorer(Noise((level, level))), cohort, SETTINGS).summary
        assert list(summary["methods"]) == ["ours", DEGRADED]
        assert [metric["name"] for metric in summary["metrics"]] == [metric.name for metric in MODALITY]
        found[level] = {name: scores["metrics"]["psnr_target"]["mean"] for name, scores in summary["methods"].items()}
    assert found[0.3]["ours"] > found[0.3][DEGRADED] + 3
    assert found[0.02]["ours"] < found[0.02][DEGRADED]


def test_thick_slices_are_simulated_from_thin_ones_and_not_of_thick_scans(cohort: Path) -> None:
    thick = ThickSlices(group=5, thickest_mm=10.0)
    summary = evaluate(restorer(thick, neighbours=1, thickest_mm=10.0), cohort, SETTINGS).summary
    assert 5 < summary["methods"][DEGRADED]["metrics"]["psnr_target"]["mean"] < 40
    with pytest.raises(UsageError, match="slices of 10 mm, expected at most 2 mm"):
        evaluate(restorer(thick, thickest_mm=2.0), cohort, SETTINGS)


def test_a_restorer_that_does_not_say_what_it_undoes_cannot_be_evaluated(cohort: Path) -> None:
    with pytest.raises(UsageError, match="says no degradation"):
        evaluate(restorer(None), cohort, SETTINGS)
