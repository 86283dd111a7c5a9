"""Splits by patient: shares, determinism, and never one person on two sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.preprocessing.splits import SPLITS, split_patients


def counts(assigned: dict[str, str]) -> list[int]:
    return [list(assigned.values()).count(split) for split in SPLITS]


@pytest.mark.parametrize(
    ("patients", "shares", "expected"),
    [
        (100, (0.7, 0.15, 0.15), [70, 15, 15]),
        (88, (0.7, 0.15, 0.15), [62, 13, 13]),
        (3, (0.7, 0.15, 0.15), [1, 1, 1]),
        (4, (0.7, 0.15, 0.15), [2, 1, 1]),
        (10, (0.8, 0.2, 0.0), [8, 2, 0]),
        (5, (1.0, 0.0, 0.0), [5, 0, 0]),
        (1, (0.0, 0.0, 1.0), [0, 0, 1]),
    ],
)
def test_shares_by_hand(patients: int, shares: tuple[float, ...], expected: list[int]) -> None:
    assert counts(split_patients([f"p{number}" for number in range(patients)], shares, 0)) == expected


@given(
    names=st.sets(st.text("abc123", min_size=1, max_size=4), min_size=3, max_size=60),
    weights=st.lists(st.floats(0.05, 1), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
    order=st.randoms(),
)
def test_everybody_is_in_one_split_that_does_not_depend_on_the_order(
    names: set[str], weights: list[float], seed: int, order: object
) -> None:
    shares = [weight / sum(weights) for weight in weights]
    assigned = split_patients(names, shares, seed)
    assert assigned.keys() == names
    assert min(counts(assigned)) >= 1
    shuffled = sorted(names) * 2  # sessions repeat a name
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split_patients(shuffled, shares, seed) == assigned
    if min(shares) * len(names) >= 1:  # no split is lifted to its one patient
        assert counts(assigned) == pytest.approx([share * len(names) for share in shares], abs=1)


def test_another_seed_gives_another_split() -> None:
    names = [f"p{number}" for number in range(30)]
    assert len({tuple(split_patients(names, (0.5, 0.25, 0.25), seed).items()) for seed in range(5)}) == 5


@pytest.mark.parametrize(
    "shares", [(0.7, 0.3), (0.7, 0.7, 0.7), (1.2, -0.1, -0.1), (0, 0, 0), (float("nan"),) * 3, (float("inf"), 0, 0)]
)
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=r"--split: found .* expected three shares that sum to 1"):
        split_patients(["a", "b", "c"], shares, 0)


def test_too_few_patients_are_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"found 1 patient.* at least 3 .*set a share of --split to 0"):
        split_patients(["a", "a"], (0.7, 0.15, 0.15), 0)
