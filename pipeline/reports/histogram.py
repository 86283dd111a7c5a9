"""Intensities of a scan, and of an image made of it, as step curves in an inline SVG."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 560, 220
LEFT, TOP, BOTTOM = 46, 24, 34


@dataclass(frozen=True)
class Chart:
    """What the template draws, in SVG units.

    Attributes:
        title: what was counted.
        before: data of the SVG path of the input's curve.
        after: that of the synthetic image's; empty for none.
        across: position and text of the ticks of the intensity axis.
        up: position and text of the ticks of the volume axis.
        window: position of the window's upper end.
        alt: the means, for who cannot see the curves.
    """

    title: str
    before: str
    after: str
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    window: float
    alt: str


def chart(
    title: str,
    edges: NDArray[np.float64],
    before_ml: NDArray[np.float64],
    window_end: float,
    after: tuple[str, NDArray[np.float64]] | None = None,
) -> Chart:
    """Draw one histogram, or two over the same bins.

    Args:
        title: what was counted.
        edges: of the bins, in scan units, rising, one more than bins.
        before_ml: volume in each bin in the input, in millilitres.
        window_end: upper end of the intensity window, in scan units.
        after: what a synthetic image is, and the volumes in it.
    """
    highest = max(float(volumes.max()) for volumes in (before_ml, *(after[1:] if after else ())))
    ticks_up = _round_steps(0.0, highest, 4)
    top = max(highest, ticks_up[-1]) or 1.0

    def x(intensity: float) -> float:
        return float(LEFT + (WIDTH - LEFT - 8) * (intensity - edges[0]) / (edges[-1] - edges[0]))

    def y(volume_ml: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * volume_ml / top

    def curve(volumes_ml: NDArray[np.float64]) -> str:
        steps = "".join(f"V{y(volume):.1f}H{x(right):.1f}" for volume, right in zip(volumes_ml, edges[1:], strict=True))
        return f"M{x(edges[0]):.1f} {y(0):.1f}{steps}V{y(0):.1f}"

    def mean(volumes_ml: NDArray[np.float64]) -> str:
        return f"{np.average((edges[1:] + edges[:-1]) / 2, weights=volumes_ml):.4g}"

    return Chart(
        title=title,
        before=curve(before_ml),
        after=curve(after[1]) if after else "",
        across=[(round(x(tick), 1), f"{tick:g}") for tick in _round_steps(float(edges[0]), float(edges[-1]), 6)],
        up=[(round(y(tick), 1), f"{tick:g}") for tick in ticks_up],
        window=round(x(window_end), 1),
        alt=f"{title}: mean intensity {mean(before_ml)} in the input"
        + (f", {mean(after[1])} in the SYNTHETIC {after[0]}" if after else ""),
    )


def _round_steps(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, at most about `most` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    magnitude = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    return [float(tick) + 0.0 for tick in step * np.arange(np.ceil(low / step), np.floor(high / step) + 1)]
