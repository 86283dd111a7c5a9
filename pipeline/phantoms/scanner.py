"""Simulated scanners: one person's slices as scanners of other contrast, coil, noise and resolution would show them.

What is simulated of domain shift (survey, Section 4: "different acquisition protocols or scanners"), in this order:

    x^γ                             contrast
    · exp(b · polynomial)           bias field: second degree in place, the same in all slices of a scan
    ∗ Gaussian of some FWHM         in-plane resolution
    |x + σ (n₁ + i n₂)|             Rician noise (Gudbjartsson and Patz 1995)
    / its own 99.5th percentile     the window, as `preprocess` sets it

Anatomy and lesion masks stay as they are: the same slice of another scanner is the known truth of a harmonisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

PERCENTILE = 99.5
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


@dataclass(frozen=True)
class Scanner:
    """What tells one scanner's images from another's.

    Args:
        name: of the domain.
        gamma: γ; above 1 grey tissue becomes dark, below 1 it comes close to bright lesions.
        bias: b, largest logarithm of the bias field; it is drawn for each scan.
        noise: σ, in units of the intensity window.
        fwhm_mm: of the point spread; 0 leaves the resolution as it is.

    Raises:
        ValueError: if one of them is negative, or γ is 0.
    """

    name: str
    gamma: float = 1.0
    bias: float = 0.0
    noise: float = 0.0
    fwhm_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.gamma <= 0 or min(self.bias, self.noise, self.fwhm_mm) < 0:
            raise ValueError(f"a scanner has γ above 0 and neither negative bias, noise nor blur, found {self}")

    def scan(self, images: Tensor, spacing_mm: float, seed: int | Sequence[int]) -> Tensor:
        """Slices of one person as this scanner shows them.

        Args:
            images: shape (N, 1, H, W), in [0, 1].
            spacing_mm: of their pixels.
            seed: of bias field and noise.

        Returns:
            The same shape, in [0, 1].
        """
        draw = np.random.default_rng(seed)
        scanned = images[:, 0].numpy().clip(0, 1) ** self.gamma
        scanned = scanned * np.exp(self.bias * _polynomial(scanned.shape[1:], draw))
        if self.fwhm_mm:
            sigma = self.fwhm_mm / FWHM_PER_SIGMA / spacing_mm
            scanned = ndimage.gaussian_filter(scanned, (0, sigma, sigma))
        noise = self.noise * draw.standard_normal((2, *scanned.shape))
        scanned = np.hypot(scanned + noise[0], noise[1])
        scanned = scanned / max(float(np.percentile(scanned, PERCENTILE)), np.finfo(np.float32).tiny)
        return torch.from_numpy(scanned.clip(0, 1).astype(np.float32))[:, None]


def _polynomial(size: tuple[int, ...], draw: np.random.Generator) -> NDArray[np.float64]:
    """A random polynomial of second degree over a slice, without its mean, of largest size 1."""
    u, v = np.meshgrid(*(np.linspace(-1, 1, side) for side in size), indexing="ij")
    terms = np.stack([u, v, u * v, u**2, v**2])
    field = np.tensordot(draw.standard_normal(len(terms)), terms, axes=1)
    field = field - field.mean()
    largest: NDArray[np.float64] = field / np.abs(field).max()
    return largest


# Two protocols of one sequence: the second has steeper contrast, a stronger coil profile, more noise, less resolution.
FIRST = Scanner("scanner A", bias=0.1, noise=0.01)
SECOND = Scanner("scanner B", gamma=3.0, bias=0.3, noise=0.02, fwhm_mm=3.0)
