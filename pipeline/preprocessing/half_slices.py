"""Half-slices: slices left and right of the mid-sagittal line, standardised over the brain (GenSeg, Section 4.2).

Scans of patients alone give both domains: where a lesion lies in one half of a slice, the other half shows none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.preprocessing.augmentation import Augmentation
from pipeline.preprocessing.brain import brain_region
from pipeline.preprocessing.cohort_format import LEVELS, Subject, read_mask, read_part
from pipeline.preprocessing.foreground import AIR, foreground
from pipeline.preprocessing.grid import Grid, placed
from pipeline.preprocessing.slices import Loaded, SliceDataset
from pipeline.preprocessing.symmetry import line_of

HALF_MM2 = 240 * 120  # half a slice of BraTS, the field of view of which the paper counts shares
MARGIN = 32  # of a canvas's width, this part lies beyond the line: 4 of 128 pixels around BraTS' 120
LEAST_DEVIATION = 1e-2  # of a window: a sequence that is flat in the brain has nothing to scale
LEAST_PIECE = 0.05  # of the largest, what is head or brain, too
KNOWN = ("healthy", "pathological", "excluded")


@dataclass(frozen=True)
class HalfSliceRule:
    """Which half-slices belong to which domain; the defaults are the paper's.

    Args:
        least_brain: share of a half-slice of 240×120 mm that is brain, at least, in both domains: slices of the head's
            ends, hardly any of which have a lesion, would tell the domains apart. Counted in millimetres, it does not
            depend on how closely an image is cropped.
        least_lesion: share of the brain pixels that are lesion, at least, in presence; in absence none is, and what
            lies between belongs to neither.
    """

    least_brain: float = 0.25
    least_lesion: float = 0.01

    def __post_init__(self) -> None:
        for name in ("least_brain", "least_lesion"):
            share = getattr(self, name)
            if not 0 < share < 1:
                raise UsageError(f"{name} is a share between 0 and 1, found {share}")

    def label(self, brain_px: float, lesion_px: float, spacing_mm: float) -> str | None:
        """`pathological`, `healthy`, or None of a half-slice that belongs to neither."""
        if brain_px * spacing_mm**2 < self.least_brain * HALF_MM2:
            return None
        if lesion_px == 0:
            return "healthy"
        return "pathological" if lesion_px >= self.least_lesion * brain_px else None


@dataclass(frozen=True)
class Halves:
    """How the slices of one volume are halved and standardised: the same in training and in use.

    Each pixel belongs to one half, the side of the line that it lies on; on the other half's canvas it is background.
    Nothing is turned or mirrored, so that joined halves are the slice again. The line is that of the whole volume, and
    a canvas begins a little beyond it: the anatomy lies in the same place whatever the field of view.

    Args:
        grid: whose canvas, (right, anterior), one half lies on.
        tilt: of the line's normal, and
        position: its distance from the centre in pixels, as `line_of` gives them.
        mean: of each sequence's brain pixels in [0, 1], shape (C, 1, 1).
        deviation: theirs, same shape.
    """

    grid: Grid
    tilt: float
    position: float
    mean: Tensor
    deviation: Tensor

    def standardised(self, images: Tensor) -> Tensor:
        """Images (…, C, H, W) in [0, 1] as the network is shown them; background, 0 in the first sequence, is 0."""
        inside = images[..., :1, :, :] > 0
        return torch.where(inside, (images - self.mean.to(images)) / self.deviation.to(images), 0)

    def in_range(self, standardised: Tensor, inside: Tensor) -> Tensor:
        """What a network makes of standardised images, in [0, 1]; 0 where `inside`, (…, 1, H, W), is False."""
        images = standardised * self.deviation.to(standardised) + self.mean.to(standardised)
        return torch.where(inside, images, 0).clamp(0, 1)

    def sides(self, shape: tuple[int, int]) -> Tensor:
        """Which pixels of slices (H, W) lie left of the line and which right of it: bool, shape (2, H, W)."""
        height, width = shape
        h = (torch.arange(height) - (height - 1) / 2)[:, None]
        w = (torch.arange(width) - (width - 1) / 2)[None, :]
        right = h * math.cos(self.tilt) + w * math.sin(self.tilt) > self.position
        return torch.stack([~right, right])

    def split(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """Left and right halves of slices (N, C, H, W), each (N, C, width of a canvas, W), 0 beyond the line."""
        shape = (slices.shape[-2], slices.shape[-1])
        size = (self.grid.size[0], shape[1])
        left, right = (
            placed(slices * side.to(slices), (start, 0), size)
            for side, start in zip(self.sides(shape), self._starts(shape), strict=True)
        )
        return left, right

    def joined(self, halves: Sequence[Tensor], shape: tuple[int, int], beyond: float = 0.0) -> Tensor:
        """Slices (N, K, *shape) of what was made of both halves; `beyond` where neither canvas lies."""
        left, right = (
            placed(half, (-start, 0), shape, beyond) for half, start in zip(halves, self._starts(shape), strict=True)
        )
        return torch.where(self.sides(shape)[1].to(left.device), right, left)

    def _starts(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Rows of the slices at which the canvases of the left and the right half begin."""
        height, width = shape
        side = self.grid.size[0]
        line = math.floor((height - 1) / 2 + self.position / math.cos(self.tilt)) + 1
        # A tilted line leaves its middle by so much on its way through the slice.
        margin = min(max(side // MARGIN, math.ceil(abs(math.tan(self.tilt)) * width / 2)), side // 2)
        return line + margin - side, line - margin


def without_air(slices: Tensor) -> Tensor:
    """Slices (N, C, H, W) in [0, 1] with 0 around the head or brain, and no 0 within it in the first sequence."""
    first = slices[:, 0].numpy()
    pieces, count = ndimage.label(first > AIR)
    sizes = np.bincount(pieces.ravel(), minlength=2)
    sizes[0] = 0
    # A slab may cut a brain into pieces; specks of noise are none.
    head = (sizes >= LEAST_PIECE * sizes.max())[pieces] if count else pieces > 0
    inside = torch.from_numpy(np.stack([ndimage.binary_fill_holes(one) for one in head]))[:, None]
    shown = torch.where(inside, slices, 0)
    shown[:, :1] = torch.where(inside, slices[:, :1].clamp_min(1 / LEVELS), 0)
    return shown


def halved(slices: Tensor, slice_mm: float, grid: Grid) -> tuple[Halves, NDArray[np.bool_]]:
    """How a volume is halved and standardised, and where its brain is.

    Args:
        slices: of the whole slab, without air, with pixels of the grid, shape (N, C, h, w).
        slice_mm: distance of neighbouring slices.
        grid: of the halves.

    Returns:
        The brain has the shape (N, h, w); it is found in the first sequence.
    """
    first = slices[:, 0].numpy()
    brain = np.zeros(first.shape, dtype=bool)
    filled = np.flatnonzero(foreground(first).any(axis=(1, 2)))
    tilt, position = 0.0, 0.0
    if len(filled):
        # Slices of air at a slab's ends, which not every reader gives, count for nothing.
        span = slice(filled[0], filled[-1] + 1)
        brain[span] = brain_region(first[span], (slice_mm, grid.spacing_mm, grid.spacing_mm))
        tilt, position = line_of(slices[span, 0])
    pixels = slices.transpose(0, 1)[:, torch.from_numpy(brain)]
    if not brain.any():
        pixels = slices.new_zeros(slices.shape[1], 1)
    mean, deviation = pixels.mean(dim=1), pixels.std(dim=1, correction=0).clamp_min(LEAST_DEVIATION)
    return Halves(grid, tilt, position, mean[:, None, None], deviation[:, None, None]), brain


@dataclass(frozen=True)
class _Volume:
    """How a volume is halved, and how many pixels of its halves are brain or lesion.

    Attributes:
        halves: of its slices.
        brain_px: of each half, those of the lesion too, shape (slices, 2).
        lesion_px: the lesion's, same shape.
        held_px: of both, those that lie on a canvas, shape (2, slices, 2).
    """

    halves: Halves
    brain_px: Tensor
    lesion_px: Tensor
    held_px: Tensor

    @classmethod
    def of(cls, slices: Tensor, lesion: Tensor, slice_mm: float, grid: Grid) -> "_Volume":
        """Of slices without air (N, C, h, w) and lesions (N, 1, h, w), bool."""
        halves, brain = halved(slices, slice_mm, grid)
        mm = (grid.spacing_mm, grid.spacing_mm)
        both = torch.cat([torch.from_numpy(brain)[:, None] | lesion, lesion], dim=1)
        sides = halves.sides((slices.shape[-2], slices.shape[-1]))
        brain_px, lesion_px = (both[:, :, None] & sides).sum(dim=(3, 4)).transpose(0, 1)
        held = [grid.images(half, mm).sum(dim=(2, 3)) for half in halves.split(both.float())]
        return cls(halves, brain_px, lesion_px, torch.stack(held, dim=2).transpose(0, 1))

    def pixels(self, place: int, side: int) -> tuple[int, int]:
        """Brain and lesion pixels of one half."""
        return int(self.brain_px[place, side]), int(self.lesion_px[place, side])

    def lost(self, chosen: Sequence[tuple[int, int]]) -> tuple[float, float]:
        """Share of the lesions, and of the brain, of some halves that lies on no canvas."""
        places, sides = (torch.tensor(each) for each in zip(*chosen, strict=True))
        brain, lesion = (
            1 - float(held[places, sides].sum()) / max(1, int(px[places, sides].sum()))
            for held, px in zip(self.held_px, (self.brain_px, self.lesion_px), strict=True)
        )
        return (lesion if self.lesion_px[places, sides].any() else 0.0), brain


class HalfSliceDataset(SliceDataset):
    """Half-slices of one split, standardised, with their lesion masks; or whole slices as they are.

    Args:
        cohort: a folder made by `phs-pipeline preprocess`.
        split: `training`, `validation` or `test`.
        grid: the network's grid; where it is none of halves, slices are whole, as `SliceDataset` has them.
        labels: `pathological` for presence, `healthy` for absence, by `rule`, of slices whose lesions are known.
        fraction: share of the split's patients to use, as in `SliceDataset`.
        seed: of their order.
        channels: which of the cohort's channels, by name; None: all. The brain is found in the first.
        rule: which half-slices belong to which domain; None: the paper's.
        like: half-slices of other labels and else the same, whose brains need not be found again.
        augmentation: of each slice with its mask, anew each time; None: none.

    Raises:
        UsageError: as `SliceDataset`.
    """

    def __init__(
        self,
        cohort: Path | str,
        split: str,
        grid: Grid,
        labels: Sequence[str] = ("pathological",),
        fraction: float = 1.0,
        seed: int = 0,
        channels: Sequence[str] | None = None,
        rule: HalfSliceRule | None = None,
        like: "HalfSliceDataset | None" = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.rule = rule or HalfSliceRule()
        self.augmentation = augmentation
        self.unit = "half-slice" if grid.halves else "slice"
        self._volumes: dict[str, _Volume] = {} if like is None else like._volumes
        super().__init__(cohort, split, grid, labels, fraction, seed, channels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One half-slice, as `SliceDataset` gives a slice, `image` standardised."""
        sample = super().__getitem__(index)
        inside = sample["image"][:1] > 0
        if self.augmentation is not None:
            masks = torch.cat([sample["mask"], inside.float()])
            sample["image"], masks = self.augmentation(sample["image"], masks)
            sample["mask"], inside = masks[:1], masks[1:] > 0
        if not self.grid.halves:
            return sample
        halves = self._volumes[self.subject_of[index].subject].halves
        return {**sample, "image": halves.standardised(sample["image"] * inside)}

    def in_range(self, index: int, standardised: Tensor) -> Tensor:
        """What a network makes of one half-slice, (C, H, W), in [0, 1]."""
        if not self.grid.halves:
            return standardised.clamp(0, 1)
        inside = super().__getitem__(index)["image"][:1] > 0
        return self._volumes[self.subject_of[index].subject].halves.in_range(standardised, inside)

    def _load(self, subject: Subject) -> Loaded:
        if not self.grid.halves:
            return super()._load(subject)
        known = [place for place, label in enumerate(subject.labels) if label in KNOWN]
        if not known or self._lacks_target(subject):
            return self._nothing()
        volume = [read_part(self.cohort, subject, subject.channels[name]) for name in self.channels]
        stored = torch.from_numpy(np.stack(volume, axis=1).astype(np.float32)) / LEVELS
        slices = without_air(self.grid.interpolated(stored, subject.pixel_mm))
        drawn = torch.from_numpy(read_mask(self.cohort, subject)[:, None].astype(np.float32))
        lesion = self.grid.interpolated(drawn, subject.pixel_mm) >= 0.5
        if subject.subject not in self._volumes:
            self._volumes[subject.subject] = _Volume.of(slices, lesion, subject.spacing_mm[0], self.grid)
        found = self._volumes[subject.subject]
        chosen = [
            (place, side)
            for place in known
            for side in (0, 1)
            if self.rule.label(*found.pixels(place, side), self.grid.spacing_mm) in self.labels
        ]
        if not chosen:
            return self._nothing()
        images, masks = (self._canvases(found.halves, part.float(), chosen) for part in (slices, lesion))
        lesion_lost, brain_lost = found.lost(chosen)
        self._check_held(subject, (stored.shape[-2], stored.shape[-1]), lesion_lost)
        return Loaded(
            (images * LEVELS).round().clamp(0, LEVELS).numpy().astype(np.uint16),
            masks.numpy().astype(np.uint8),
            [place for place, _ in chosen],
            lost=brain_lost,
        )

    def _canvases(self, halves: Halves, slices: Tensor, chosen: Sequence[tuple[int, int]]) -> Tensor:
        """Some halves, by slice and side, on canvases."""
        places = sorted({place for place, _ in chosen})
        row = {place: index for index, place in enumerate(places)}
        mm = (self.grid.spacing_mm, self.grid.spacing_mm)
        both = [self.grid.images(half, mm) for half in halves.split(slices[places])]
        return torch.stack([both[side][row[place]] for place, side in chosen])

    def _remedy(self, present: Sequence[str], vanished: int) -> str:
        if "unknown" in present or not self.grid.halves:
            return super()._remedy(present, vanished)
        return "ask for less brain or a smaller lesion (half_slice_rule), or preprocess with another slab"
