"""Is one method better than another on the same patients, or was it chance?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata, wilcoxon

ALPHA = 0.05


@dataclass(frozen=True)
class PairedTest:
    """Outcome of a two-sided Wilcoxon signed-rank test.

    Attributes:
        p: its p-value, not corrected.
        pairs: patients in both samples.
        differing: pairs that differ; only these count.
        direction: 1 if the first sample has the larger rank sum, −1 if the second has it, 0 if they are equal.
    """

    p: float
    pairs: int
    differing: int
    direction: int

    @property
    def least_p(self) -> float:
        """The smallest p-value that so many differing pairs can give: all differences with the same sign."""
        return min(1.0, 2.0 ** (1 - self.differing))


def wilcoxon_signed_rank(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Two-sided Wilcoxon signed-rank test (F. Wilcoxon, Biometrics Bulletin 1, 1945).

    Pairs without difference are left out, as Wilcoxon did (SciPy's `zero_method="wilcox"`): healthiness is 1 in both of
    many pairs, and what is left then has an exact distribution. The p-value is exact up to 50 differing pairs without
    ties (SciPy's `method="auto"`); if no pair differs it is 1. Two infinite values are equal.

    Args:
        first: one value a patient, shape (N,); `nan` where there is none.
        second: of the same patients in the same order.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    differs = a != b
    change = a[differs] - b[differs]
    if not len(change):
        return PairedTest(p=1.0, pairs=len(a), differing=0, direction=0)
    rank_sum = float(np.sum(np.sign(change) * rankdata(np.abs(change))))
    return PairedTest(
        p=float(wilcoxon(change).pvalue), pairs=len(a), differing=len(change), direction=int(np.sign(rank_sum))
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (S. Holm, Scandinavian Journal of Statistics 6, 1979), in the same order.

    The smallest of m is multiplied by m, the next by m − 1, and so on; none is smaller than the one before it.

    Example:
        >>> [round(p, 6) for p in holm([0.04, 0.01, 0.03])]
        [0.06, 0.03, 0.06]
    """
    corrected = [0.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = floor
    return corrected
