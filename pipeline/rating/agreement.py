"""How far raters agree: quadratic-weighted kappa of two, intraclass correlation of all."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def quadratic_kappa(first: ArrayLike, second: ArrayLike) -> float:
    """Cohen's kappa with quadratic weights: 1 − observed / expected squared disagreement.

    Expected is the disagreement of all pairs of a first and a second score, whichever images they belong to.

    Source: Cohen 1968, "Weighted kappa", Psychological Bulletin 70(4).

    Args:
        first: scores of one rater, shape (N,).
        second: scores of another, or of the same at another time, on the same images.

    Returns:
        1 for equal scores, about 0 for chance; `nan` if no score differs from any other (or N = 0), where agreement
        and chance are the same.

    Example:
        >>> round(quadratic_kappa([1, 2, 3], [1, 2, 2]), 3)
        0.667
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    expected = float(np.square(a[:, None] - b).mean()) if len(a) else 0.0
    return 1 - float(np.square(a - b).mean()) / expected if expected else math.nan


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval; `nan` where a number does not exist."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class ICC:
    """Intraclass correlations, two-way random effects, absolute agreement.

    Attributes:
        single: ICC(2,1), how reliable one rater's score is.
        average: ICC(2,k), how reliable the mean of these k raters is.
    """

    single: Interval
    average: Interval


def icc(scores: ArrayLike, confidence: float = 0.95) -> ICC:
    """ICC(2,1) and ICC(2,k) of N images scored by k raters, each by all.

    Source: Shrout & Fleiss 1979, "Intraclass correlations: uses in assessing rater reliability", Psychological
    Bulletin 86(2); intervals as in McGraw & Wong 1996, "Forming inferences about some intraclass correlation
    coefficients", Psychological Methods 1(1), Table 7.

    Args:
        scores: shape (N, k) without gaps.
        confidence: of the intervals.

    Returns:
        `nan` throughout with fewer than two images or raters, or if all scores are equal.
    """
    x = np.asarray(scores, float)
    nothing = Interval(math.nan, math.nan, math.nan)
    if min(x.shape) < 2 or np.ptp(x) == 0:
        return ICC(nothing, nothing)
    n, k = x.shape
    images, raters = x.mean(axis=1, keepdims=True), x.mean(axis=0)
    between = k * float(np.square(images - x.mean()).sum()) / (n - 1)
    judges = n * float(np.square(raters - x.mean()).sum()) / (k - 1)
    residuals = x - images - raters + x.mean()
    # Sums of whole-numbered scores are exact to about 1e-12: what is below is no disagreement.
    error = float(np.square(np.where(np.abs(residuals) < 1e-9, 0, residuals)).sum()) / ((n - 1) * (k - 1))

    rho = _ratio(between - error, between + (k - 1) * error + k * (judges - error) / n)
    average = _ratio(between - error, between + (judges - error) / n)
    if error == 0 and rho == 1:
        return ICC(Interval(1, 1, 1), Interval(1, 1, 1))
    of_raters, of_error = k * rho * judges, (n * (1 + (k - 1) * rho) - k * rho) * error
    freedom = _ratio(
        (k - 1) * (n - 1) * (of_raters + of_error) ** 2,
        (n - 1) * of_raters**2 + of_error**2,
    )
    tail = 1 - (1 - confidence) / 2
    f_low, f_high = float(stats.f.ppf(tail, n - 1, freedom)), float(stats.f.ppf(tail, freedom, n - 1))
    spread = k * judges + (k * n - k - n) * error
    low = _ratio(n * (between - f_low * error), f_low * spread + n * between)
    high = _ratio(n * (f_high * between - error), spread + n * f_high * between)
    return ICC(
        Interval(rho, low, high),
        Interval(average, _ratio(k * low, 1 + (k - 1) * low), _ratio(k * high, 1 + (k - 1) * high)),
    )


def _ratio(above: float, below: float) -> float:
    # Raters who agree less than by chance can make the denominators of small samples vanish or turn negative.
    return above / below if below > 0 else math.nan
