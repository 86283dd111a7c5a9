"""How far a fill may be from the truth: by depth, size and the tissue around; what is drawn has that spread."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.inference import FillError, HarmonicFiller, Inputs
from pipeline.inference.fill_error import place_in
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan

MM = (1.0, 1.0, 1.0)


def error(**other: Any) -> FillError:
    given = {
        "sizes_ml": (0.1, 10.0),
        "depths_mm": (1.0, 5.0),
        "deviations": ((1.0, 2.0), (3.0, 4.0)),
        "lengths_mm": (2.0, 6.0),
        "shares": (0.5, 0.5),
    }
    return FillError(**{**given, **other})


@pytest.fixture
def hole(scan: Scan) -> np.ndarray:
    hole = np.zeros(scan.shape, dtype=bool)
    hole[8:12, 10:14, 4:7] = True
    return hole


def filler(samples: int, seed: int = 0) -> HarmonicFiller:
    made = HarmonicFiller(WindowRule(fixed=(0, 1000)))
    made.error = error()
    made.draw(samples, seed)
    return made


def inputs(scan: Scan, hole: np.ndarray) -> Inputs:
    mask = replace(scan, stored=hole.astype(np.uint8), slope=1.0, intercept=0.0, origin=Path("mask.nii.gz"))
    return Inputs(scan, mask=mask)


class TestWhereAVoxelLies:
    def test_depth_is_the_distance_to_tissue_and_size_that_of_its_own_lesion(self):
        hole = np.zeros((9, 30, 30), dtype=bool)
        hole[2:7, 5:10, 5:10] = hole[4, 20, 20] = True
        place = place_in(np.zeros(hole.shape, np.float32), hole, ~hole, MM)
        large = np.argwhere(hole)[:, 1] < 15
        assert place.depth_mm[large].max() == 3
        np.testing.assert_allclose(place.ml, np.where(large, 0.125, 0.001))

    def test_noise_alone_deviates_as_much_at_any_depth(self):
        hole = np.zeros((9, 40, 40), dtype=bool)
        hole[1:8, 15:24, 15:24] = True
        noise = np.random.default_rng(0).normal(100, 7, hole.shape).astype(np.float32)
        np.testing.assert_allclose(place_in(noise, hole, ~hole, MM).deviation, 7, rtol=0.15)

    def test_a_slow_change_deviates_the_more_the_deeper(self):
        hole = np.zeros((9, 40, 40), dtype=bool)
        hole[:, 15:24, 15:24] = True
        ramp = np.broadcast_to(np.arange(40, dtype=np.float32), hole.shape)
        place = place_in(ramp, hole, ~hole, MM)
        assert place.deviation[place.depth_mm == 4].mean() == pytest.approx(
            4 * place.deviation[place.depth_mm == 1].mean(), rel=0.01
        )

    def test_what_is_in_the_hole_says_nothing(self):
        hole = np.zeros((5, 30, 30), dtype=bool)
        hole[1:4, 10:20, 10:20] = True
        noise = np.random.default_rng(0).normal(100, 7, hole.shape).astype(np.float32)
        other = np.where(hole, np.float32(999), noise)
        np.testing.assert_array_equal(
            place_in(noise, hole, ~hole, MM).deviation, place_in(other, hole, ~hole, MM).deviation
        )


class TestTheErrorOfAFill:
    @pytest.mark.parametrize(
        ("depth_mm", "ml", "expected"),
        [(1, 0.1, 10), (5, 10, 40), (3, 0.1, 15), (1, 1, 20), (0.5, 0.001, 10), (50, 500, 40)],
        ids=["first", "last", "between depths", "between sizes", "below all", "above all"],
    )
    def test_it_is_interpolated_in_depth_and_size_in_deviations_of_the_tissue(self, depth_mm, ml, expected):
        hole = np.ones((1, 1, 1), dtype=bool)
        place = replace(
            place_in(np.zeros((1, 1, 1), np.float32), hole, ~hole, MM),
            depth_mm=np.float32([depth_mm]), ml=np.float32([ml]), deviation=np.float32([10]),
        )  # fmt: skip
        assert error().deviation(place) == pytest.approx([expected])

    @pytest.mark.parametrize(
        "wrong",
        [
            {"deviations": ((1.0, 2.0),)},
            {"deviations": ((1.0,), (2.0,))},
            {"deviations": ((1.0, 0.0), (3.0, 4.0))},
            {"sizes_ml": (10.0, 0.1)},
            {"shares": (0.5, 0.1)},
            {"shares": (1.0,)},
            {"lengths_mm": (0.0, 6.0)},
        ],
    )
    def test_numbers_that_do_not_fit_are_refused(self, wrong):
        with pytest.raises(UsageError, match=r"run scripts/calibrate_fill\.py"):
            error(**wrong)

    def test_a_field_has_deviation_1_and_the_correlation_of_the_calibration(self):
        points = np.zeros((2, 3))
        points[1, 0] = 3.0
        drawn = np.array([error().field(points, seed) for seed in range(2000)])
        assert drawn.std(axis=0) == pytest.approx([1, 1], rel=0.05)
        expected = float(error().correlation(np.array([3.0]))[0])
        assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(expected, abs=0.05)


class TestPlausibleFills:
    def test_outside_the_mask_each_keeps_the_scan_s_bits(self, scan, hole):
        result = filler(3)(inputs(scan, hole))
        samples = [each for each in result.products if each.name.startswith("sample")]
        assert [each.name for each in samples] == ["sample1", "sample2", "sample3"]
        for each in samples:
            assert each.voxels[~hole].tobytes() == scan.stored[~hole].tobytes()
            assert (each.voxels[hole] != result.main.voxels[hole]).any()

    def test_they_spread_around_the_fill_as_the_map_says(self, scan, hole):
        rounds = [filler(20, seed)(inputs(scan, hole)) for seed in range(5)]
        fill, spread = rounds[0].main.voxels.astype(float), rounds[0].first("map").voxels
        drawn = [each.voxels for one in rounds for each in one.products if each.name.startswith("sample")]
        assert not spread[~hole].any()
        errors = (np.stack(drawn).astype(float) - fill)[:, hole] / spread[hole]
        assert errors.mean() == pytest.approx(0, abs=0.15)
        assert errors.std() == pytest.approx(1, abs=0.15)

    def test_a_seed_repeats_them_and_another_does_not(self, scan, hole):
        first, again, other = (filler(1, seed)(inputs(scan, hole)).products[-1].voxels for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_another_contrast_gets_the_same_field(self, scan, hole):
        """Its deviations are others, the field is the same: where one is above its fill, the other is."""
        other = replace(scan, stored=(1000 - scan.stored.astype(np.int32)).clip(0).astype(scan.stored.dtype))
        signs = []
        for each in (scan, other):
            result = filler(1)(inputs(each, hole))
            signs.append(np.sign(result.products[-1].voxels.astype(float) - result.main.voxels)[hole])
        assert (signs[0] * signs[1] >= 0).mean() > 0.98

    def test_without_samples_the_map_is_given_alone(self, scan, hole):
        result = filler(0)(inputs(scan, hole))
        assert [each.name for each in result.products] == ["filled", "fill", "filled", "uncertainty"]
        figures = {figure.name: figure.value for figure in result.figures}
        assert figures["UncertaintyMean"] == pytest.approx(float(result.first("map").voxels[hole].mean()), rel=1e-4)

    def test_a_filler_that_was_not_calibrated_refuses(self):
        with pytest.raises(UsageError, match="found no calibrated error"):
            HarmonicFiller(WindowRule(fixed=(0, 1000))).draw(2)
