"""Paired tests and their correction, against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.comparison.significance import holm, wilcoxon_signed_rank


class TestWilcoxonSignedRank:
    def test_six_gains_of_different_size_give_the_smallest_two_sided_p_of_six_pairs(self) -> None:
        # All ranks are positive: one of 2^6 sign patterns at either end.
        result = wilcoxon_signed_rank([1.1, 2.2, 3.3, 4.4, 5.5, 6.6], [1, 2, 3, 4, 5, 6])
        assert result.p == pytest.approx(2 / 64)
        assert result.least_p == pytest.approx(2 / 64)
        assert (result.pairs, result.differing, result.direction) == (6, 6, 1)

    def test_one_small_loss_among_six(self) -> None:
        # W⁻ = 1: two of 64 sign patterns (none, the smallest) are as extreme, at either end.
        result = wilcoxon_signed_rank([-1.0, 2, 3, 4, 5, 6], np.zeros(6))
        assert result.p == pytest.approx(4 / 64)
        assert result.direction == 1

    def test_the_published_example_of_cross_and_self_fertilised_plants(self) -> None:
        # Darwin's maize as in SciPy's documentation: statistic 24, p = 0.041259765625.
        change = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
        assert wilcoxon_signed_rank(change, np.zeros(15)).p == pytest.approx(0.041259765625)

    def test_exchanging_the_samples_turns_the_direction_only(self) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.normal(1, 1, 9), rng.normal(0, 1, 9)
        forth, back = wilcoxon_signed_rank(a, b), wilcoxon_signed_rank(b, a)
        assert forth.p == back.p
        assert forth.direction == -back.direction == 1

    def test_pairs_without_difference_are_left_out(self) -> None:
        a = [1.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
        b = [1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.05, -0.2]
        result = wilcoxon_signed_rank(a, b)
        assert result.p == pytest.approx(2 / 64)
        assert (result.pairs, result.differing) == (9, 6)

    @pytest.mark.parametrize("values", [[1.0] * 8, [], [math.inf] * 3])
    def test_without_any_difference_p_is_one(self, values: list[float]) -> None:
        result = wilcoxon_signed_rank(values, values)
        assert (result.p, result.differing, result.direction, result.least_p) == (1.0, 0, 0, 1.0)

    def test_an_infinite_value_is_larger_than_all_others_and_equal_to_another(self) -> None:
        a = [math.inf, math.inf, 31, 32, 33, 34.5, 36]
        b = [math.inf, 30, 30.5, 31, 31.5, 32, 33]
        result = wilcoxon_signed_rank(a, b)
        assert result.p == pytest.approx(2 / 64)
        assert (result.pairs, result.differing, result.direction) == (7, 6, 1)

    def test_patients_without_a_value_in_one_sample_are_no_pair(self) -> None:
        assert wilcoxon_signed_rank([math.nan, 2, 3], [1, math.nan, 2.5]).pairs == 1

    @given(st.lists(st.integers(-1000, 1000).filter(bool), min_size=1, max_size=25, unique_by=abs))
    def test_it_is_scipys_exact_test_where_nothing_is_tied(self, change: list[int]) -> None:
        ours = wilcoxon_signed_rank(change, np.zeros(len(change)))
        assert ours.p == pytest.approx(stats.wilcoxon(change, method="exact").pvalue)
        assert ours.p >= ours.least_p - 1e-12


class TestHolm:
    def test_three_p_values_by_hand(self) -> None:
        # 0.01 × 3 = 0.03; 0.03 × 2 = 0.06; 0.04 × 1 = 0.04, raised to 0.06.
        assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])

    def test_a_single_p_value_stays(self) -> None:
        assert holm([0.04]) == [0.04]
        assert holm([]) == []

    def test_no_p_value_exceeds_one(self) -> None:
        assert holm([0.9, 0.8, 0.7]) == [1.0, 1.0, 1.0]

    def test_equal_p_values_are_corrected_alike(self) -> None:
        assert holm([0.01, 0.01]) == pytest.approx([0.02, 0.02])

    @given(st.lists(st.floats(0, 1), max_size=12))
    def test_it_lies_between_no_correction_and_bonferronis_and_keeps_the_order(self, p_values: list[float]) -> None:
        corrected = holm(p_values)
        for p, ours in zip(p_values, corrected, strict=True):
            assert p <= ours <= min(1, len(p_values) * p)
        assert [corrected[i] for i in np.argsort(p_values, kind="stable")] == sorted(corrected)
