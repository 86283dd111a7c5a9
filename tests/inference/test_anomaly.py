"""An anomaly map lies on the scan's own grid and is cut at the network's threshold; a score is the mean over slices."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.inference import AnomalyScorer, AnomalySegmenter, FoundFiller, HarmonicFiller, Inputs
from pipeline.networks import DCGANGenerator, LatentEncoder, Reconstruction
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan

WINDOW = WindowRule(fixed=(0, 1000))
GRID = Grid(1.0, (32, 32))


class Grey(Reconstruction):
    """Reconstructs everything as 0.4 of the window."""

    def __init__(self, threshold: float) -> None:
        super().__init__(LatentEncoder(2, (32, 32), 2), DCGANGenerator(2, (32, 32), 2))
        self.threshold.fill_(threshold)

    def forward(self, image: Tensor) -> Tensor:
        return torch.full_like(image, 0.4)

    def score(self, image: Tensor) -> Tensor:
        return image.amax(dim=(2, 3))


@pytest.mark.parametrize("residual", ["absolute", "brighter"])
def test_the_map_is_the_difference_and_the_mask_is_cut_from_it(scan: Scan, residual: str) -> None:
    result = AnomalySegmenter(Grey(0.2), GRID, WINDOW, residual=residual)(Inputs(scan))
    mask, anomaly = result.products
    assert [(each.name, each.kind) for each in result.products] == [("anomaly", "mask"), ("anomalymap", "map")]
    windowed = np.clip(scan.intensities() / 1000, 0, 1)
    change = windowed - 0.4
    expected = np.abs(change) if residual == "absolute" else np.maximum(change, 0)
    np.testing.assert_allclose(anomaly.voxels, np.where(windowed > 0.04, expected, 0), atol=1e-5)
    np.testing.assert_array_equal(mask.voxels > 0, anomaly.voxels >= 0.2)
    assert mask.voxels.any()
    assert result.facts == {"Threshold": pytest.approx(0.2)}
    assert "by 0.2 of the intensity window" in result.method[0]


def test_without_a_threshold_no_mask_is_made_and_that_is_told_before_any_scan_is_read() -> None:
    with pytest.raises(UsageError, match="no threshold for its anomaly map"):
        AnomalySegmenter(Grey(0.0), GRID, WINDOW).try_out()


def test_a_scan_s_score_is_the_mean_over_its_slices(scan: Scan) -> None:
    scorer = AnomalyScorer(Grey(0.2), GRID, WINDOW)
    result = scorer(Inputs(scan))
    slices = np.clip(scan.intensities() / 1000, 0, 1).max(axis=(0, 1))
    slices = slices[slices > 0]  # beyond the head there is nothing to score
    assert (result.main.name, result.main.kind) == ("anomalyscore", "number")
    assert result.main.value == pytest.approx(float(slices.mean()), abs=1e-5)
    assert any("compare it with those of other scans" in note for note in result.notes)
    assert list(scorer.networks) == ["network_def"]
    assert isinstance(scorer.networks["network_def"], Grey)


def test_a_network_that_reconstructs_nothing_is_refused() -> None:
    for predictor in (AnomalySegmenter, AnomalyScorer):
        with pytest.raises(UsageError, match="expected a Reconstruction or SearchedReconstruction"):
            predictor(torch.nn.Identity(), GRID, WINDOW)


def test_a_map_that_is_no_probability_does_not_choose_what_is_filled() -> None:
    with pytest.raises(UsageError, match="fill it with `phs-pipeline fill --mask`"):
        FoundFiller(AnomalySegmenter(Grey(0.2), GRID, WINDOW), HarmonicFiller(WINDOW))
