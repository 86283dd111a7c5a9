"""A network's residual on top of the harmonic fill: inside the mask, on the scan's grid, where it is trusted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference import HarmonicFiller, Inputs, ResidualFiller
from pipeline.networks import FillNetwork
from pipeline.preprocessing.biharmonic import biharmonic_fill
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan, read_nifti

HIGH = 1000.0
WINDOW = WindowRule(fixed=(0, HIGH))


class Adds(nn.Module):
    """Adds a value to the slice in question, in the hole and out of it, and remembers what it was shown."""

    def __init__(self, value: float = 0.1) -> None:
        super().__init__()
        self.value = value
        self.seen: list[Tensor] = []

    def forward(self, shown: Tensor) -> Tensor:
        self.seen.append(shown)
        return shown[:, 1:2] + self.value


def filler(network: nn.Module, spacing_mm: float = 1.0, **options: Any) -> ResidualFiller:
    return ResidualFiller(network, Grid(spacing_mm, (32, 32)), WINDOW, **options)


def mask_of(scan: Scan, inside: np.ndarray) -> Scan:
    return replace(scan, stored=inside.astype(np.uint8), slope=1.0, intercept=0.0, origin=Path("mask.nii.gz"))


def filled(predictor: Any, scan: Scan, hole: np.ndarray) -> np.ndarray:
    return predictor(Inputs(scan, mask=mask_of(scan, hole))).main.voxels


@pytest.fixture
def hole(scan: Scan) -> np.ndarray:
    hole = np.zeros(scan.shape, dtype=bool)
    hole[8:12, 10:14, 4:7] = True
    return hole


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0, 0.7])
def test_an_untrained_network_gives_the_harmonic_fill_to_the_bit(scan, hole, spacing_mm):
    made = filled(filler(FillNetwork(filters=2), spacing_mm), scan, hole)
    np.testing.assert_array_equal(made, filled(HarmonicFiller(WINDOW), scan, hole))


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0])
def test_the_residual_is_added_in_the_scan_s_units_inside_the_hole_alone(scan, hole, spacing_mm):
    change = filled(filler(Adds(0.1), spacing_mm), scan, hole).astype(float)
    change -= filled(HarmonicFiller(WINDOW), scan, hole)
    np.testing.assert_allclose(change[hole], 0.1 * HIGH, atol=1)
    assert not change[~hole].any()


def test_what_was_in_the_hole_is_never_seen(scan, hole):
    torch.manual_seed(0)
    network = FillNetwork(filters=2)
    nn.init.normal_(network.unet.final_conv.weight)
    other = replace(scan, stored=np.where(hole, scan.stored // 2 + 300, scan.stored).astype(scan.stored.dtype))
    np.testing.assert_array_equal(filled(filler(network), other, hole)[hole], filled(filler(network), scan, hole)[hole])


def test_the_network_sees_the_filled_slices_with_neighbours_the_hole_and_the_other_side(scan, hole):
    network = Adds()
    filled(filler(network), scan, hole)
    shown = torch.cat(network.seen)
    assert shown.shape[:2] == (3, 12), "the slices of the hole, and of each four channels of three slices"
    assert int(shown[:, 4].sum()) == hole.sum()
    inside = shown[:, 4:5] > 0
    assert shown[:, 1:2][inside].min() > 0, "the hole is filled already"


def test_slices_between_lesions_are_not_shown_to_the_network(scan, hole):
    network = Adds(0.1)
    apart = hole.copy()
    apart[8:12, 10:14, 5] = False
    change = filled(filler(network), scan, apart).astype(float) - filled(HarmonicFiller(WINDOW), scan, apart)
    assert sum(map(len, network.seen)) == 2
    np.testing.assert_allclose(change[apart], 0.1 * HIGH, atol=1)


def test_a_hole_that_vanishes_on_the_grid_is_filled_harmonically(scan):
    tiny = np.zeros(scan.shape, dtype=bool)
    tiny[9, 11, 5] = True
    network = Adds()
    np.testing.assert_array_equal(filled(filler(network, 4.0), scan, tiny), filled(HarmonicFiller(WINDOW), scan, tiny))
    assert network.seen == []


class TestTrust:
    @pytest.fixture
    def two(self, scan: Scan, hole: np.ndarray) -> np.ndarray:
        """Beside the hole of 0.048 ml one of 0.001 ml."""
        two = hole.copy()
        two[14, 12, 5] = True
        return two

    def test_lesions_of_other_sizes_are_filled_by_the_best_control_and_counted(self, scan, hole, two):
        result = filler(Adds(0.1), from_ml=0.01)(Inputs(scan, mask=mask_of(scan, two)))
        change = result.main.voxels.astype(float) - filled(HarmonicFiller(WINDOW), scan, two)
        np.testing.assert_allclose(change[hole], 0.1 * HIGH, atol=1)
        small = two & ~hole
        made = biharmonic_fill(scan.axial(result.main.voxels).astype(np.float32), scan.axial(small))
        assert result.main.voxels[14, 12, 5] == pytest.approx(made[scan.axial(small)][0], abs=1)
        (note,) = (note for note in result.notes if "lesions" in note)
        assert note == "1 of 2 lesions, below 0.01 ml, were filled without the network"
        assert "biharmonic" in " ".join(result.method)

    def test_beside_air_the_best_control_is_the_harmonic_fill_which_does_not_continue_it(self, scan):
        head = foreground(WINDOW.window(scan.intensities(), scan.origin).apply(scan.axial(scan.intensities())))
        edge = np.zeros(scan.shape, dtype=bool)
        place = np.argwhere(head[5])[0]
        scan.axial(edge)[5, place[0], place[1]] = True
        made = filled(filler(Adds(0.1), from_ml=0.01), scan, edge)
        np.testing.assert_array_equal(made, filled(HarmonicFiller(WINDOW), scan, edge))

    @pytest.mark.parametrize("from_ml", [0, 0.0005])
    def test_where_all_are_trusted_nothing_is_said(self, scan, two, from_ml):
        result = filler(Adds(0.1), from_ml=from_ml)(Inputs(scan, mask=mask_of(scan, two)))
        assert not any("without the network" in note for note in result.notes)

    def test_in_between_the_network_has_a_weight_that_rises_with_the_logarithm_of_the_volume(self, scan, hole, two):
        ml = 0.048
        alone, control, mean = (
            filled(filler(Adds(0.1), from_ml=from_ml, alone_ml=alone_ml), scan, two).astype(float)
            for from_ml, alone_ml in ((0.01, 0.02), (0.05, 0.06), (ml / 8, 4 * ml))
        )
        np.testing.assert_allclose(mean[hole], 0.6 * alone[hole] + 0.4 * control[hole], atol=1)
        np.testing.assert_array_equal(mean[two & ~hole], control[two & ~hole])
        assert np.abs(alone - control)[hole].min() > 50

    def test_the_mean_is_told(self, scan, two):
        result = filler(Adds(0.1), from_ml=0.01, alone_ml=0.2)(Inputs(scan, mask=mask_of(scan, two)))
        assert "the network's weight falls with the logarithm of the lesion's volume, to none at 0.01 ml" in " ".join(
            result.method
        )
        (note,) = (note for note in result.notes if "lesions" in note)
        assert note == "1 of 2 lesions, below 0.01 ml, were filled without the network"

    def test_evaluation_fills_as_users_get(self, scan, two):
        predictor = filler(Adds(0.1), from_ml=0.01, alone_ml=0.2)
        windowed = WINDOW.window(scan.intensities(), scan.origin).apply(scan.axial(scan.intensities()))
        made = predictor.fill(windowed[:, None], scan.axial(two), scan.axial_spacing_mm)
        np.testing.assert_allclose(HIGH * made, scan.axial(filled(predictor, scan, two)), atol=1)

    @pytest.mark.parametrize("volume", [-1, float("nan"), float("inf"), "1"])
    @pytest.mark.parametrize("name", ["from_ml", "alone_ml"])
    def test_what_is_no_volume_is_refused(self, name, volume):
        with pytest.raises(UsageError, match=f"{name}: found .*, expected a volume in ml of at least 0"):
            filler(Adds(), **{name: volume})

    def test_a_weight_that_rises_from_no_volume_is_refused(self):
        with pytest.raises(UsageError, match="from_ml: found 0, expected more than 0"):
            filler(Adds(), alone_ml=1.0)


def test_a_scan_unlike_those_of_the_training_is_filled_harmonically_and_the_reason_is_said(scan, hole):
    def refuses(seen: Scan, windowed: np.ndarray) -> list[str]:
        raise ScanError("scan.nii: found a knee, expected a head")

    network = Adds()
    result = filler(network)(Inputs(scan, mask=mask_of(scan, hole), check=refuses))
    np.testing.assert_array_equal(result.main.voxels, filled(HarmonicFiller(WINDOW), scan, hole))
    assert network.seen == []
    assert "the lesion was filled harmonically alone: scan.nii: found a knee, expected a head" in result.notes


def test_what_the_check_notes_is_kept(scan, hole):
    result = filler(Adds())(Inputs(scan, mask=mask_of(scan, hole), check=lambda seen, windowed: ["looks well"]))
    assert "looks well" in result.notes


def test_a_network_that_gives_no_numbers_is_refused(scan, hole):
    with pytest.raises(ScanError, match="NaN or infinite"):
        filled(filler(Adds(float("nan"))), scan, hole)


def test_a_field_of_view_larger_than_the_canvas_is_filled_all_the_same(write_scan: Callable[..., Path]):
    voxels = np.zeros((90, 80, 6), dtype=np.float32)
    voxels[5:85, 5:75] = 400
    hole = np.zeros(voxels.shape, dtype=bool)
    hole[70:80, 30:50, 2:4] = True
    scan = read_nifti(write_scan(voxels))
    made = filled(filler(Adds(0.1)), scan, hole)
    np.testing.assert_allclose(made[hole], 500, atol=1)
    np.testing.assert_array_equal(made[~hole], voxels[~hole])
