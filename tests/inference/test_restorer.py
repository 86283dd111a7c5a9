"""A restorer: the difference that a network predicts, on the scan's own grid, and the rest of the scan as it was."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference import Inputs, Restorer
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan

HIGH = 1000.0


class Darker(nn.Module):
    """A tenth of the window less, of the middle one of its channels."""

    def forward(self, image: Tensor) -> Tensor:
        middle = image.shape[1] // 2
        return image[:, middle : middle + 1] - 0.1


def restorer(network: nn.Module | None = None, **options) -> Restorer:
    return Restorer(network or Darker(), Grid(1.0, (32, 32)), WindowRule(fixed=(0, HIGH)), **options)


@pytest.mark.parametrize("neighbours", [0, 1])
def test_the_difference_is_added_inside_the_head_and_nothing_else_changes(scan: Scan, neighbours: int) -> None:
    result = restorer(neighbours=neighbours)(Inputs(scan))
    made = result.main.voxels
    assert (result.main.name, result.main.kind) == Restorer.main
    np.testing.assert_array_equal(made[~result.region], scan.stored[~result.region])
    np.testing.assert_allclose(made[result.region], scan.stored[result.region] - 100, atol=1)
    removed = result.first("difference")
    assert removed is not None
    np.testing.assert_array_equal(removed.voxels, scan.stored - made)


def test_it_takes_nothing_for_disease_and_says_how_much_it_changed(scan: Scan) -> None:
    result = restorer(flip_average=True)(Inputs(scan))
    assert [product.name for product in result.products] == ["restored", "removed"]
    names = {figure.name for figure in result.figures}
    assert "LesionMl" not in names
    assert {"ChangedPercent", "MeanChangePercent", "FlipCorrelation"} <= names
    assert result.made == "The scan was restored"


def test_a_second_contrast_is_seen_and_not_changed(scan: Scan) -> None:
    class Replaced(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.where(image[:, :1] > 0.05, image[:, 1:], image[:, :1])

    made = restorer(Replaced(), channels=("FLAIR", "T1w"))(Inputs(scan, channels={"T1w": scan})).main.voxels
    np.testing.assert_array_equal(made, scan.stored)


def test_thick_slices_are_refused_by_a_network_that_makes_thin_ones(scan: Scan) -> None:
    assert restorer(thickest_mm=1.0)(Inputs(scan)).products
    with pytest.raises(ScanError, match=r"has slices of 1 mm, expected at most 0.5 mm: .*resample the scan"):
        restorer(thickest_mm=0.5)(Inputs(scan))


@pytest.mark.parametrize("thickest_mm", [0, -1.0, True])
def test_a_thickness_that_is_none_is_refused(thickest_mm: float) -> None:
    with pytest.raises(UsageError, match="thickest_mm"):
        restorer(thickest_mm=thickest_mm)
