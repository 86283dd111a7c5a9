"""Anomaly detection: how far an image is from its reconstruction, and how well that tells lesions from the rest."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

Residual = Literal["absolute", "brighter"]


def anomaly_map(image: Tensor, healthy: Tensor, residual: Residual = "absolute", smooth: int = 1) -> Tensor:
    """How much each pixel differs from its healthy reconstruction.

    Args:
        image: x in [0, 1], shape (B, 1, H, W).
        healthy: x̂, same shape.
        residual: `absolute`, |x − x̂| as AnoGAN and f-AnoGAN (Schlegl et al. 2017, 2019) have it; `brighter`,
            max(0, x − x̂), where lesions are known to be bright, as in FLAIR (Baur et al. 2021).
        smooth: side of the square over which differences are averaged first, in pixels, odd; 1 averages nothing.

    Returns:
        Same shape, in [0, 1].

    Raises:
        ValueError: if the residual or the side is none of these.

    Example:
        >>> anomaly_map(torch.tensor([[[[0.9, 0.5]]]]), torch.tensor([[[[0.4, 0.75]]]]))
        tensor([[[[0.5000, 0.2500]]]])
    """
    if residual not in ("absolute", "brighter"):
        raise ValueError(f"residual is absolute or brighter, found {residual!r}")
    if smooth < 1 or smooth % 2 == 0:
        raise ValueError(f"smooth is an odd number of pixels, found {smooth}")
    difference = image - healthy
    if smooth > 1:
        difference = avg_pool2d(difference, smooth, stride=1, padding=smooth // 2, count_include_pad=False)
    return difference.abs() if residual == "absolute" else difference.clamp_min(0)


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Area under the curve of precision over recall, Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct scores, without interpolation.

    A detector that knows nothing has the share of positives.

    Args:
        scores: higher where a sample is more likely positive, any shape.
        positive: bool, same shape.

    Returns:
        In [0, 1]; nan without a positive.

    Example:
        >>> average_precision(torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([True, False, True, False]))
        0.8333333333333333
    """
    _, hits, taken = _cumulated(scores, positive)
    if not hits[-1]:
        return float("nan")
    gained = torch.diff(hits, prepend=hits.new_zeros(1))
    return float((gained * hits / taken).sum() / hits[-1])


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Probability that a positive has a higher score than a negative, ties counted half.

    Args:
        scores: any shape.
        positive: bool, same shape.

    Returns:
        In [0, 1], 0.5 of chance; nan where all are positive or none is.

    Example:
        >>> auroc(torch.tensor([0.9, 0.8, 0.8, 0.1]), torch.tensor([True, True, False, False]))
        0.875
    """
    _, hits, taken = _cumulated(scores, positive)
    alarms = taken - hits
    if not hits[-1] or not alarms[-1]:
        return float("nan")
    zero = hits.new_zeros(1)
    return float(torch.trapezoid(torch.cat((zero, hits)), torch.cat((zero, alarms))) / (hits[-1] * alarms[-1]))


def best_threshold(scores: Tensor, positive: Tensor) -> tuple[float, float]:
    """The score from which on calling samples positive has the best Dice, and that Dice.

    Args:
        scores: any shape.
        positive: bool, same shape, some of it true.

    Raises:
        ValueError: if there is no positive.

    Example:
        >>> best_threshold(torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([True, False, True, False]))
        (2.0, 0.8)
    """
    distinct, hits, taken = _cumulated(scores, positive)
    if not hits[-1]:
        raise ValueError("found no positive, expected some to choose a threshold by")
    dice = 2 * hits / (taken + hits[-1])
    best = int(dice.argmax())
    return float(distinct[best]), float(dice[best])


def _cumulated(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct scores, highest first; positives, and samples, that have at least each of them, float64."""
    if scores.shape != positive.shape or not scores.numel():
        raise ValueError(f"found {tuple(scores.shape)} scores of {tuple(positive.shape)} samples, expected one each")
    ordered, order = scores.flatten().sort(descending=True)
    hits = positive.flatten()[order].double().cumsum(0)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[:-1] != ordered[1:]
    return ordered[last], hits[last], (last.nonzero()[:, 0] + 1).double()
