"""The intensity window: scan units to [0, 1] for a network, and a network's residual back to scan units."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from pipeline.errors import ScanError, UsageError
from pipeline.preprocessing.foreground import AIR

# Of the window's width: what a network takes away from a lesion, and hardly ever from normal tissue.
HIDDEN_GONE = np.float32(0.1)
# Percentile of a volume that stands for its darkest voxels, and share of it that is air if any of it is.
DARKEST, LEAST_AIR = 0.1, 0.1


@dataclass(frozen=True)
class Window:
    """Clip intensities to [low, high] and scale them to [0, 1]; invertible for residuals.

    PHS-GAN and GVS clip brain MRI to [0, V99.5] per volume; GVS clips liver CT to [-200, 250] HU.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a window needs low < high, found [{self.low:g}, {self.high:g}]")

    @property
    def width(self) -> float:
        """Scan units that one unit of the network's range stands for."""
        return self.high - self.low

    def apply(self, intensities: Float[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """Scan units to [0, 1], float32, same shape."""
        scaled: np.ndarray = np.subtract(intensities, np.float32(self.low), dtype=np.float32)
        scaled /= np.float32(self.width)
        np.clip(scaled, 0.0, 1.0, out=scaled)
        return scaled

    def residual(
        self, intensities: Float[np.ndarray, "*shape"], residual: Float32[np.ndarray, "*shape"]
    ) -> Float32[np.ndarray, "*shape"]:
        """What to add to `intensities`, in scan units, for a network's residual on [0, 1].

        Intensities above the window were shown to the network as 1. What the clipping hid, `intensities - high`, stays
        where the network changes nothing (fat, vessels) and goes where it takes `HIDDEN_GONE` or more away: a lesion
        brighter than the window must not survive as its own excess. In between, it goes in proportion.

        Args:
            intensities: scan units, any shape.
            residual: network output minus network input, same shape.
        """
        change: np.ndarray = residual * np.float32(self.width)
        # Nothing becomes darker than the window's lower end: air does not turn negative.
        np.maximum(change, np.float32(self.low) - np.clip(intensities, self.low, self.high), out=change)
        excess = np.maximum(intensities - np.float32(self.high), 0.0)
        change -= excess * np.clip(-residual / HIDDEN_GONE, 0.0, 1.0)
        return change


@dataclass(frozen=True)
class WindowRule:
    """How a window is chosen for a scan: the same rule in `preprocess` and when the trained network is used.

    Args:
        percentile: the window is [0, V] with V this percentile of the whole volume, background included, as PHS-GAN
            (Section 4) and GVS (Section V-A) print it. Where a constant was added to the whole scan, air included, it
            is [air, V].
        foreground_only: take the percentile over the voxels above zero.
        fixed: (low, high) in scan units instead, for CT in HU.
    """

    percentile: float = 99.5
    foreground_only: bool = False
    fixed: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise UsageError(f"a window's percentile lies above 0 and up to 100, found {self.percentile}")
        if self.fixed is not None:
            object.__setattr__(self, "fixed", tuple(self.fixed))
            low, high = self.fixed
            if not -math.inf < low < high < math.inf:
                raise UsageError(f"a window's lower end lies below its upper end, found {low} and {high}")

    def window(self, intensities: Float[np.ndarray, "..."], origin: Path) -> Window:
        """The window of one scan.

        Raises:
            ScanError: if the percentile is not above zero.
        """
        if self.fixed is not None:
            return Window(*self.fixed)
        air = air_level(intensities)
        voxels = intensities[intensities > air] if self.foreground_only else intensities.ravel(order="K")
        high = float(np.percentile(voxels, self.percentile)) if voxels.size else 0.0
        if high <= air:
            raise ScanError(
                f"{origin}: found {self.percentile:g} % of the voxels at or below zero, expected a scan whose "
                "tissue is positive; take the percentile over the foreground, or give a fixed window for CT"
            )
        return Window(air, high)


def air_level(intensities: Float[np.ndarray, "..."]) -> float:
    """The intensity of air: 0, as scanners have it, unless the darkest voxels lie well above and are many.

    A scan cut so closely that it shows no air has few voxels near its darkest; a whole volume with air around the head
    or body has many.
    """
    # In any order, percentiles are the same: in that of the memory, nothing is gathered from all over it.
    low, high = (float(value) for value in np.percentile(intensities.ravel(order="K"), (DARKEST, 99.5)))
    if low <= AIR * high:
        return 0.0
    near = np.count_nonzero(intensities <= low + AIR * (high - low)) / intensities.size
    return low if near >= LEAST_AIR else 0.0
