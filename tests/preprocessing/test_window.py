"""The intensity window: V99.5 or fixed, to [0, 1] and back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.window import Window, WindowRule

SCAN = Path("sub-01_FLAIR.nii.gz")


class TestRule:
    def test_v99_5_by_hand(self) -> None:
        # 201 voxels 0, 10, …, 2000: the 99.5th percentile is the value at place 0.995 * 200 = 199.
        voxels = np.random.default_rng(0).permutation(np.arange(0, 2010, 10, dtype=np.float32)).reshape(3, 67, 1)
        assert WindowRule().window(voxels, SCAN) == Window(0.0, 1990.0)

    def test_background_counts_unless_left_out(self) -> None:
        voxels = np.concatenate([np.zeros(900), np.arange(1, 101)]).astype(np.float32)
        assert WindowRule(percentile=95).window(voxels, SCAN).high == pytest.approx(50.05)
        assert WindowRule(percentile=50, foreground_only=True).window(voxels, SCAN).high == pytest.approx(50.5)

    def test_fixed_window_looks_at_no_voxel(self) -> None:
        assert WindowRule(fixed=(-200, 250)).window(np.full(3, -1000.0), SCAN) == Window(-200, 250)

    def test_fixed_window_read_from_json_is_the_same_rule(self) -> None:
        assert WindowRule(fixed=[-200, 250]) == WindowRule(fixed=(-200, 250))  # type: ignore[arg-type]

    @pytest.mark.parametrize("foreground_only", [False, True])
    def test_scan_without_positive_tissue_is_refused(self, foreground_only: bool) -> None:
        with pytest.raises(ScanError, match=r"sub-01_FLAIR\.nii\.gz: found 99\.5 % of the voxels at or below zero"):
            WindowRule(foreground_only=foreground_only).window(np.linspace(-1000, 0, 50), SCAN)


class TestWindow:
    def test_clips_and_scales(self) -> None:
        values = Window(-200, 250).apply(np.array([-1000, -200, 25, 250, 3000], np.float32))
        assert values.dtype == np.float32
        assert values.tolist() == [0, 0, 0.5, 1, 1]

    def test_leaves_its_input_alone(self) -> None:
        voxels = np.array([5.0, 10.0], np.float32)
        Window(0, 10).apply(voxels)
        assert voxels.tolist() == [5, 10]

    @pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (float("nan"), 1)])
    def test_needs_low_below_high(self, low: float, high: float) -> None:
        with pytest.raises(ValueError, match="low < high"):
            Window(low, high)

    @given(
        low=st.floats(-1000, 0),
        width=st.floats(1, 5000),
        before=st.floats(0, 1),
        after=st.floats(0, 1),
    )
    def test_residual_carries_a_change_on_0_1_back_to_scan_units(
        self, low: float, width: float, before: float, after: float
    ) -> None:
        window = Window(low, low + width)
        scan = np.array([low + before * width], np.float32)
        shown = window.apply(scan)
        changed = scan + window.residual(scan, np.float32(after) - shown)
        np.testing.assert_allclose(changed, low + after * width, atol=1e-3 * width)

    def test_zero_residual_changes_no_bit(self) -> None:
        scan = np.array([-5.0, 0, 3, 99, 1e6], np.float32)
        np.testing.assert_array_equal(scan + Window(0, 10).residual(scan, np.zeros(5, np.float32)), scan)

    @pytest.mark.parametrize(("residual", "change"), [(0.0, 0.0), (-0.05, -55.0), (-0.1, -110.0), (-0.75, -175.0)])
    def test_what_clipping_hid_goes_with_what_the_network_takes_away(self, residual: float, change: float) -> None:
        # Twice as bright as the window: 100 of the 200 are hidden, and gone from a tenth of the window on.
        found = Window(0, 100).residual(np.array([200.0], np.float32), np.array([residual], np.float32))
        assert found == pytest.approx(change)

    def test_nothing_becomes_darker_than_the_lower_end(self) -> None:
        scan = np.array([-300.0, -200.0, -190.0, 0.0], np.float32)
        found = scan + Window(-200, 250).residual(scan, np.full(4, -0.2, np.float32))
        np.testing.assert_allclose(found, [-300, -200, -200, -90], atol=1e-3)

    def test_excess_is_not_made_brighter(self) -> None:
        assert Window(0, 100).residual(np.array([200.0], np.float32), np.array([0.1], np.float32)) == pytest.approx(10)


class TestLevelOfAir:
    """A constant that was added to a whole scan lifts the air too."""

    @pytest.fixture
    def head(self) -> NDArray[np.float32]:
        voxels = np.zeros((20, 20, 20), np.float32)
        voxels[5:15, 5:15, 5:15] = np.random.default_rng(0).integers(60, 400, (10, 10, 10))
        return voxels

    @pytest.mark.parametrize("foreground_only", [False, True])
    @pytest.mark.parametrize("added", [20, 100, 5000])
    def test_the_network_sees_the_same_with_or_without_it(
        self, added: int, foreground_only: bool, head: NDArray[np.float32]
    ) -> None:
        rule = WindowRule(foreground_only=foreground_only)
        before, after = (rule.window(voxels, Path("x")) for voxels in (head, head + added))
        assert after.low == added
        np.testing.assert_allclose(after.apply(head + added), before.apply(head), atol=1e-4)
        assert (foreground(after.apply(head + added)) == foreground(before.apply(head))).all()

    def test_is_zero_where_scanners_have_it_and_where_no_air_is_seen(self, head: NDArray[np.float32]) -> None:
        tissue = head[5:15, 5:15, 5:15]
        for voxels in (head, head + np.abs(np.random.default_rng(1).normal(0, 3, head.shape)), tissue):
            assert WindowRule().window(voxels.astype(np.float32), Path("x")).low == 0
