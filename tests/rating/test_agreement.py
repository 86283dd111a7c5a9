"""Agreement of raters, against worked numbers from the literature."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.rating.agreement import icc, quadratic_kappa

# Shrout & Fleiss 1979, Table 2: six targets, four judges.
SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]

scores = st.integers(1, 5)
grids = st.tuples(st.integers(2, 12), st.integers(2, 4)).flatmap(lambda shape: arrays(int, shape, elements=scores))
pairs = st.lists(st.tuples(scores, scores), min_size=1, max_size=30)


def test_icc_is_that_of_shrout_and_fleiss() -> None:
    agreement = icc(SHROUT_FLEISS)
    assert round(agreement.single.estimate, 2) == 0.29
    assert round(agreement.average.estimate, 2) == 0.62


def test_intervals_are_those_that_other_programs_print_for_the_same_table() -> None:
    # R's psych::ICC prints 0.019 to 0.76 and 0.071 to 0.93.
    agreement = icc(SHROUT_FLEISS)
    assert (round(agreement.single.low, 3), round(agreement.single.high, 2)) == (0.019, 0.76)
    assert (round(agreement.average.low, 3), round(agreement.average.high, 2)) == (0.071, 0.93)


def test_raters_of_different_severity_do_not_agree_absolutely() -> None:
    lenient_by_one = [[1, 2], [2, 3], [4, 5], [3, 4]]
    # By hand: mean squares between images 10/3, between raters 2, error 0; (10/3) / (10/3 + 2 · 2 / 4) = 10/13.
    agreement = icc(lenient_by_one)
    assert agreement.single.estimate == pytest.approx(10 / 13)
    assert agreement.single.low < 10 / 13 < agreement.single.high


def test_equal_raters_agree_fully() -> None:
    agreement = icc([[1, 1, 1], [4, 4, 4], [2, 2, 2]])
    assert (agreement.single.low, agreement.single.estimate, agreement.average.estimate) == (1, 1, 1)


@pytest.mark.parametrize("table", [[[3, 3], [3, 3]], [[1, 2, 3]], [[1], [2]], np.empty((0, 2))])
def test_where_nothing_differs_or_nothing_is_compared_there_is_no_icc(table: list[list[int]]) -> None:
    assert math.isnan(icc(table).single.estimate)
    assert math.isnan(icc(table).average.high)


@given(grids, st.randoms(use_true_random=False))
def test_icc_does_not_know_the_order_of_raters_and_images(grid: np.ndarray, chance: random.Random) -> None:
    columns, rows = list(range(grid.shape[1])), list(range(len(grid)))
    chance.shuffle(columns)
    chance.shuffle(rows)
    one, two = icc(grid), icc(grid[rows][:, columns])
    for first, second in ((one.single, two.single), (one.average, two.average)):
        assert first.estimate == pytest.approx(second.estimate, nan_ok=True, abs=1e-9)


@given(grids)
def test_an_icc_is_one_at_most_and_lies_in_its_interval(grid: np.ndarray) -> None:
    single = icc(grid).single
    if not math.isnan(single.estimate):
        assert single.estimate <= 1 + 1e-12
        if not math.isnan(single.low + single.high):
            assert single.low - 1e-9 <= single.estimate <= single.high + 1e-9


def test_kappa_worked_by_hand() -> None:
    # Observed squared disagreement (0 + 0 + 1 + 1) / 4 = 0.5; of all sixteen pairs 64 / 16 = 4; 1 − 0.5 / 4.
    assert quadratic_kappa([1, 2, 3, 4], [1, 2, 4, 5]) == pytest.approx(0.875)


def test_kappa_is_cohens_sum_over_the_table_of_weights() -> None:
    first, second = [1, 1, 2, 3, 5, 5, 4, 2], [1, 2, 2, 5, 5, 4, 4, 1]
    observed, expected = 0.0, 0.0
    for i, j in itertools.product(range(1, 6), repeat=2):
        weight = (i - j) ** 2 / 16
        observed += weight * sum(pair == (i, j) for pair in zip(first, second, strict=True)) / 8
        expected += weight * first.count(i) * second.count(j) / 64
    assert quadratic_kappa(first, second) == pytest.approx(1 - observed / expected)


@given(pairs)
def test_kappa_does_not_know_who_is_first_and_is_one_for_equal_scores(both: list[tuple[int, int]]) -> None:
    first, second = zip(*both, strict=True)
    assert quadratic_kappa(first, second) == pytest.approx(quadratic_kappa(second, first), nan_ok=True)
    if len(set(first)) > 1:
        assert quadratic_kappa(first, first) == 1


def test_opposite_raters_agree_less_than_by_chance() -> None:
    assert quadratic_kappa([1, 5], [5, 1]) == -1


@pytest.mark.parametrize("scores", [[], [3], [4, 4, 4]])
def test_where_no_score_differs_there_is_no_kappa(scores: list[int]) -> None:
    assert math.isnan(quadratic_kappa(scores, scores))
