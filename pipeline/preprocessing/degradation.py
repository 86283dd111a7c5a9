"""Three ways in which acquisition makes an image worse, simulated, so that the truth is known.

Survey (Wolterink et al. 2018), Section 5.3: noise of a low dose or a short scan, artefacts of undersampled k-space, and
thick slices. Images are in [0, 1], and so is what becomes of them, as a scan is windowed before a network sees it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# Of a slice profile: the full width at half maximum of a Gaussian is so many deviations.
FWHM = 2 * math.sqrt(2 * math.log(2))
PROFILES = ("box", "gaussian")


def rician_noise(
    image: Float[Tensor, "*shape"], level: float, generator: torch.Generator | None = None
) -> Float[Tensor, "*shape"]:
    """Noise of a magnitude image, √((x + n₁)² + n₂²) with n₁, n₂ ~ N(0, level²) (Gudbjartsson and Patz 1995, Eq. 1).

    Where there is signal it is about Gaussian; air, which cannot be dark any more, becomes brighter.

    Args:
        image: x in [0, 1], any shape.
        level: standard deviation of the noise in each of the receiver's two channels, as a share of the window, at
            least 0.
        generator: on the CPU; torch's global random state if None.

    Returns:
        Same shape, clipped to [0, 1].

    Raises:
        ValueError: if the level is below 0 or no number.
    """
    if not 0 <= level < math.inf:
        raise ValueError(f"the level of noise is a share of the window of at least 0, found {level}")
    # Drawn on the CPU: one sequence on every device.
    first, second = (level * torch.randn(image.shape, generator=generator).to(image) for _ in range(2))
    return torch.hypot(image + first, second).clamp(0, 1)


def cartesian_mask(lines: int, fraction: float, centre: float, generator: torch.Generator | None = None) -> Tensor:
    """Which phase-encoding lines of k-space are measured: all in the centre, and some of the others, drawn evenly.

    As fastMRI's random masks (Zbontar et al. 2018, Section 6).

    Args:
        lines: of the full k-space, in the order of frequencies: the lowest in the middle, at `lines // 2`.
        fraction: share of all lines that is measured, in (0, 1]; its inverse is the acceleration.
        centre: share of all lines that is measured around the middle, at most `fraction`.
        generator: on the CPU; torch's global random state if None.

    Returns:
        Bool, shape (lines,), `round(fraction · lines)` of them True, and at least one.

    Raises:
        ValueError: if the shares are out of range.

    Example:
        >>> cartesian_mask(8, 0.5, 0.25).sum()
        tensor(4)
    """
    if not 0 <= centre <= fraction <= 1 or fraction == 0:
        raise ValueError(
            f"expected 0 ≤ centre ≤ fraction ≤ 1 and a fraction above 0, found centre {centre} and fraction {fraction}"
        )
    wanted = max(1, round(fraction * lines))
    middle = min(wanted, max(1, round(centre * lines)))
    mask = torch.zeros(lines, dtype=torch.bool)
    first = lines // 2 - middle // 2
    mask[first : first + middle] = True
    outside = (~mask).nonzero()[:, 0]
    mask[outside[torch.randperm(len(outside), generator=generator)[: wanted - middle]]] = True
    return mask


def undersampled(image: Float[Tensor, "*batch height width"], mask: Tensor) -> Float[Tensor, "*batch height width"]:
    """The zero-filled reconstruction of a slice of which some lines of k-space were measured: |F⁻¹(mask · F(x))|.

    Lines run along the last axis but one, so that what aliases folds along the last: in axial slices of ours, where
    axes are (right, anterior), along anterior. Of a single coil whose image has no phase.

    Args:
        image: x in [0, 1], shape (…, H, W).
        mask: from `cartesian_mask`, shape (W,).

    Returns:
        Same shape, clipped to [0, 1].

    Raises:
        ValueError: if the mask has another number of lines.
    """
    if mask.shape != image.shape[-1:]:
        raise ValueError(f"the mask has the shape {tuple(mask.shape)}, expected ({image.shape[-1]},), a value a line")
    kept = torch.fft.ifftshift(mask).to(image.device)
    # Along the other axis all is measured: its transform and the way back cancel.
    measured = torch.fft.fft(image.float(), dim=-1) * kept
    reconstructed: Tensor = torch.fft.ifft(measured, dim=-1).abs()
    return reconstructed.clamp(0, 1).to(image)


def thick_slices(volume: Float[Tensor, "..."], group: int, profile: str = "box") -> Tensor:
    """Slices as thick as several thin ones, without gaps: weighted means across slices.

    Args:
        volume: thin slices, shape (slices, …).
        group: thin slices of a thick one, at least 1; what is left over at the end is left out.
        profile: how sensitive a thick slice is along its thickness: `box`, even; `gaussian`, of a full width at half
            maximum of its thickness, which sees some of its neighbours too (beyond the ends, the last slice again).

    Returns:
        Shape (slices // group, …).

    Raises:
        ValueError: if there are fewer slices than in a group, or the profile is another.
    """
    if not 1 <= group <= len(volume):
        raise ValueError(f"found {len(volume)} slices, expected at least the {group} of a thick one, and 1 in each")
    if profile not in PROFILES:
        raise ValueError(f"profile is one of {', '.join(PROFILES)}, found {profile!r}")
    thick = len(volume) // group
    places = torch.arange(group) if profile == "box" else torch.arange(-group, 2 * group)
    weights = torch.ones(len(places))
    if profile == "gaussian":
        weights = torch.exp(-0.5 * ((places - (group - 1) / 2) * FWHM / group) ** 2)
    weights = (weights / weights.sum()).to(volume)
    indices = (torch.arange(thick)[:, None] * group + places).clamp(0, len(volume) - 1)
    flat = volume.flatten(1)[indices]
    return torch.einsum("tgv,g->tv", flat, weights).reshape(thick, *volume.shape[1:])


def thin_again(thick: Float[Tensor, "thick height width"], group: int) -> Float[Tensor, "thin height width"]:
    """Thick slices on the grid of thin ones, by cubic interpolation across slices: what a viewer or resampler shows.

    Args:
        thick: from `thick_slices`, shape (T, H, W).
        group: thin slices of a thick one.

    Returns:
        Shape (T · group, H, W), clipped to [0, 1]; before the middle of the first thick slice and beyond that of the
        last, the slice is repeated.
    """
    # Interpolated by a factor of 1 along the other axis, which leaves it exact.
    made = functional.interpolate(thick.permute(1, 0, 2)[None], scale_factor=(group, 1), mode="bicubic", antialias=True)
    return made[0].permute(1, 0, 2).clamp(0, 1)


@dataclass(frozen=True)
class Noise:
    """Rician noise, of a level drawn evenly for each slice.

    Args:
        level: least and largest level, as shares of the window; see `rician_noise`.

    Raises:
        ValueError: if the levels are out of range.
    """

    level: tuple[float, float] = (0.02, 0.1)

    def __post_init__(self) -> None:
        _check_range("level", self.level, 0.0, math.inf)

    def __call__(self, slices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Slices (S, H, W) in [0, 1], each with noise of its own."""
        levels = [_drawn(self.level, generator) for _ in slices]
        return torch.stack([rician_noise(one, level, generator) for one, level in zip(slices, levels, strict=True)])


@dataclass(frozen=True)
class Undersampling:
    """Zero-filled reconstructions of undersampled k-space, of lines drawn for each slice.

    Args:
        fraction: least and largest share of lines that is measured, drawn evenly.
        centre: share of lines that is measured around the middle; see `cartesian_mask`.

    Raises:
        ValueError: if the shares are out of range.
    """

    fraction: tuple[float, float] = (0.25, 0.25)
    centre: float = 0.08

    def __post_init__(self) -> None:
        _check_range("fraction", self.fraction, max(0.0, self.centre), 1.0)

    def __call__(self, slices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Slices (S, H, W) in [0, 1], each of other lines."""
        lines = slices.shape[-1]
        masks = [cartesian_mask(lines, _drawn(self.fraction, generator), self.centre, generator) for _ in slices]
        return torch.stack([undersampled(one, mask) for one, mask in zip(slices, masks, strict=True)])


@dataclass(frozen=True)
class ThickSlices:
    """Thin slices averaged into thick ones, and interpolated back to where they were.

    Args:
        group: thin slices of a thick one, at least 2.
        profile: see `thick_slices`.
        thickest_mm: scans whose own slices are thicker than this say nothing about thin ones, and are left out.

    Raises:
        ValueError: if a value is out of range.
    """

    group: int = 4
    profile: str = "box"
    thickest_mm: float = 2.0

    def __post_init__(self) -> None:
        if self.group < 2 or not self.thickest_mm > 0:
            raise ValueError(
                f"expected a group of at least 2 slices and a thickness above 0 mm, found {self.group} and "
                f"{self.thickest_mm}"
            )

    def __call__(self, slices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """All thin slices (S, H, W) of a scan in [0, 1]; as many as are in whole groups come back."""
        del generator
        return thin_again(thick_slices(slices, self.group, self.profile), self.group)


Degradation = Noise | Undersampling | ThickSlices


def _check_range(name: str, values: Sequence[float], least: float, most: float) -> None:
    low, high = values
    if not least <= low <= high <= most or high == math.inf:
        raise ValueError(f"{name} is a range from a least to a largest value in [{least:g}, {most:g}], found {values}")


def _drawn(between: Sequence[float], generator: torch.Generator | None) -> float:
    low, high = between
    return low + (high - low) * float(torch.rand((), generator=generator))
