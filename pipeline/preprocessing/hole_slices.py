"""Slices with holes in healthy tissue, whose truth is known: what a filler is trained on."""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.preprocessing.brain import SCALP_MM, depth_mm
from pipeline.preprocessing.cohort_format import LEVELS, Subject
from pipeline.preprocessing.contrasts import other_contrast
from pipeline.preprocessing.domain import measure
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.harmonic import harmonic_fill
from pipeline.preprocessing.holes import LEAST_VOXELS, apart, lesions, place_shape, scale_to
from pipeline.preprocessing.mapped import DiskArray, Mapped
from pipeline.preprocessing.neighbours import with_neighbours
from pipeline.preprocessing.slices import SliceDataset
from pipeline.preprocessing.symmetry import line_of, mirrored_about

LABELS = ("healthy", "pathological", "excluded", "unknown")
# Slices of a volume that are looked at together, and how thick thin ones become at most.
BLOCK, THICKEST_MM = 24, 6.0
HOLES = 6
SIZES_ML = (0.02, 100.0)
SCALES = (0.3, 3.0)  # of a lesion's size in mm
# Bits of a pixel's region.
HEAD, ALLOWED = np.uint8(1), np.uint8(2)
SHARE = 0.25  # of the healthy tissue, at most, that one hole takes


class HoleDataset(Dataset[list[dict[str, Tensor]]]):
    """Healthy tissue with holes, the holes filled harmonically in three dimensions, and the tissue that was there.

    Each item takes a block of a scan's slices, thicker than they are or in another contrast, cuts some holes into its
    healthy tissue, and gives a few of the slices. Holes have the shapes of lesions of the split's patients, and sizes
    between `SIZES_ML`, evenly on a logarithmic scale. What is drawn is drawn anew each time, from torch's global random
    state, which checkpoints keep.

    Args:
        cohort: a folder made by `phs-pipeline preprocess`, of one channel.
        split: `training`, `validation` or `test`.
        grid: the network's grid.
        neighbours: slices above and below that the network sees with each.
        slices: at most, of each item.
        crop: pixels of each slice that are shown, around a pixel of a hole, each side divisible by the grid's stride;
            the other side of the head is among the channels, so that little is lost. None shows the whole canvas.
        fixed: the same holes each time, one set for each block of a scan, in the scans as they are.
        fraction: share of the split's patients to use, as in `SliceDataset`.
        seed: of their order, and of fixed holes.

    Raises:
        UsageError: if no patient of the split has a lesion or healthy tissue, but in a validation split.
    """

    def __init__(
        self,
        cohort: Path | str,
        split: str,
        grid: Grid,
        neighbours: int = 1,
        slices: int = 8,
        crop: tuple[int, int] | None = None,
        fixed: bool = False,
        fraction: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.scans = SliceDataset(cohort, split, grid, LABELS, fraction, seed)
        # A crop is held to what a canvas is.
        self.crop = grid.size if crop is None else Grid(grid.spacing_mm, crop, grid.stride).size
        self.neighbours, self.slices, self.fixed, self.seed = neighbours, slices, fixed, seed
        ends = np.cumsum([0, *map(len, self.scans.places)])
        self.volumes: list[_Volume] = []
        self.shapes: list[tuple[NDArray[np.bool_], tuple[float, float, float]]] = []
        written = DiskArray(np.uint8, grid.size)
        for given in zip(self.scans.subjects, ends, ends[1:], strict=False):
            volume = _Volume(self.scans, *given)
            head, allowed = volume.looked_at()
            written.append(head * HEAD | allowed * ALLOWED)
            if allowed.any():
                self.volumes.append(volume)
                self.shapes += [(piece, volume.spacing_mm) for piece in lesions(volume.lesion, LEAST_VOXELS)]
        regions = written.mapped()
        for volume in self.volumes:
            volume.regions = regions
        if split != "validation" and not (self.volumes and self.shapes):
            raise UsageError(
                f"{cohort}: found {'no lesion' if self.volumes else 'no healthy tissue'} in the {split} split, "
                "expected healthy tissue and lesions, whose shapes the holes take; preprocess a cohort with masks"
            )
        step = BLOCK if fixed else slices
        self.items = [volume for volume in self.volumes if self.shapes for _ in range(volume.first, volume.end, step)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> list[dict[str, Tensor]]:
        """A few slices of one block.

        Returns:
            Of each, `image` (1, H, W), what was there, in [0, 1]; `mask` (1, H, W), the holes, in {0, 1}; and `shown`
            (4 · (2 · neighbours + 1), H, W), as `network_channels` and `with_neighbours` have it.
        """
        drawn = (self.seed, index) if self.fixed else int(torch.randint(2**62, ()))
        rng = np.random.default_rng(drawn)
        volume = self.items[index]
        truth, head, hole, spacing_mm = self._with_holes(volume, rng)
        filled = harmonic_fill(truth, hole, head & ~hole, spacing_mm)
        channels = network_channels(torch.from_numpy(filled), torch.from_numpy(hole), volume.line)
        areas = hole.sum(axis=(1, 2))
        count = min(self.slices, int((areas > 0).sum()))
        chosen = np.sort(rng.choice(len(areas), count, replace=False, p=np.sqrt(areas) / np.sqrt(areas).sum()))
        shown = with_neighbours(channels, chosen, self.neighbours)
        mirrored = not self.fixed and rng.random() < 0.5
        samples = []
        for place, seen in zip(chosen, shown, strict=True):
            whole = {"image": torch.from_numpy(truth[place])[None], "mask": channels[place, 1:2], "shown": seen}
            rows, columns = self._window(hole[place], rng)
            sample = {name: value[:, rows, columns] for name, value in whole.items()}
            samples.append({name: value.flip(1) for name, value in sample.items()} if mirrored else sample)
        return samples

    def _window(self, hole: NDArray[np.bool_], rng: np.random.Generator) -> tuple[slice, slice]:
        """The rows and columns that are shown of a slice, around any pixel of its hole."""
        pixels = np.argwhere(hole)
        centre = pixels[rng.integers(len(pixels))]
        first = np.clip(centre - np.array(self.crop) // 2, 0, np.array(hole.shape) - self.crop)
        return slice(first[0], first[0] + self.crop[0]), slice(first[1], first[1] + self.crop[1])

    def _with_holes(
        self, volume: "_Volume", rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], tuple[float, float, float]]:
        """Truth, head or body, holes, and voxel size of a block."""
        while True:
            truth, head, allowed, spacing_mm = volume.block(
                1 if self.fixed else _thicker(volume.spacing_mm[0], rng), rng
            )
            if not allowed.any():
                continue
            if not self.fixed:
                truth = other_contrast(truth, head, rng)
            hole = np.zeros(truth.shape, dtype=bool)
            for _ in range(int(rng.integers(1, HOLES + 1))):
                placed = self._hole(allowed & ~hole, spacing_mm, rng)
                if placed is not None:
                    hole |= placed
            if hole.any():
                return truth, head, hole, spacing_mm

    def _hole(
        self, allowed: NDArray[np.bool_], spacing_mm: tuple[float, float, float], rng: np.random.Generator
    ) -> NDArray[np.bool_] | None:
        voxel_ml = float(np.prod(spacing_mm)) / 1000
        most = min(SIZES_ML[1], max(SIZES_ML[0], SHARE * float(allowed.sum()) * voxel_ml))
        size_ml = math.exp(rng.uniform(math.log(SIZES_ML[0]), math.log(most)))
        shape, its_spacing = self.shapes[rng.integers(len(self.shapes))]
        scale = float(np.clip(scale_to(shape, its_spacing, size_ml), *SCALES))
        return place_shape(shape, its_spacing, allowed, spacing_mm, rng, scales=(scale, scale))


def network_channels(filled: Tensor, hole: Tensor, line: tuple[float, float]) -> Tensor:
    """What a filling network sees of a volume.

    Args:
        filled: with the hole filled harmonically, in [0, 1], shape (slices, H, W).
        hole: same shape.
        line: tilt and position of the mid-sagittal line.

    Returns:
        Shape (slices, 4, H, W): the filled slices and the hole, then both mirrored to the other side; there, a pixel
        that is a hole in part counts as hole.
    """
    both = torch.stack([filled, hole.to(filled)], dim=1)
    other = mirrored_about(both, *line)
    other[:, 1] = (other[:, 1] > 0).to(other)
    return torch.cat([both, other], dim=1)


def healthy_tissue(
    image: NDArray[np.float32],
    lesion: NDArray[np.bool_],
    head: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.bool_]:
    """Where holes with known truth may be: away from the drawn lesion, and in whole heads away from the scalp.

    Args:
        image: slices in [0, 1], shape (slices, right, anterior).
        lesion: same shape.
        head: head or body, same shape.
        spacing_mm: voxel size along the same axes.
    """
    if not head.any():
        return head
    features = measure(image, spacing_mm)
    stripped = features is not None and features.skull_stripped
    return apart(head if stripped else depth_mm(head, spacing_mm) > SCALP_MM, lesion, spacing_mm)


class _Volume:
    """Slices of one scan on the network's grid.

    Attributes:
        regions: of all scans' slices, by bits, where the head is and where holes may be.
    """

    regions: Mapped

    def __init__(self, scans: SliceDataset, subject: Subject, first: int, end: int) -> None:
        self.scans, self.first, self.end = scans, int(first), int(end)
        self.spacing_mm = (subject.spacing_mm[0], scans.grid.spacing_mm, scans.grid.spacing_mm)
        image = self.image(self.first, self.end)
        self.line = line_of(torch.from_numpy(image)) if len(image) else (0.0, 0.0)

    @property
    def lesion(self) -> NDArray[np.bool_]:
        """Shape (slices, H, W)."""
        return np.asarray(self.scans.masks[self.first : self.end, 0]) > 0

    @property
    def head(self) -> NDArray[np.bool_]:
        """Head or body, shape (slices, H, W)."""
        return self.regions.array[self.first : self.end] & HEAD > 0

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """Where holes may be, same shape."""
        return self.regions.array[self.first : self.end] & ALLOWED > 0

    def looked_at(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where the head is and where holes may be, each of shape (slices, H, W)."""
        image = self.image(self.first, self.end)
        head = foreground(image)
        return head, healthy_tissue(image, self.lesion, head, self.spacing_mm)

    def image(self, first: int, end: int) -> NDArray[np.float32]:
        """Slices in [0, 1]."""
        return np.asarray(self.scans.images[first:end, 0]).astype(np.float32) / np.float32(LEVELS)

    def block(
        self, group: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], tuple[float, float, float]]:
        """Some neighbouring slices, each the mean of `group`: image, head, where holes may be, and voxel size."""
        count = min(BLOCK * group, self.end - self.first) // group * group
        start = int(rng.integers(self.end - self.first - count + 1))

        shape = (count // group, group, *self.scans.grid.size)
        block = slice(start, start + count)
        thin = self.image(self.first + start, self.first + start + count).reshape(shape)
        image: NDArray[np.float32] = thin.mean(axis=1, dtype=np.float32)
        head: NDArray[np.bool_] = np.logical_or.reduce(self.head[block].reshape(shape), axis=1)
        allowed: NDArray[np.bool_] = np.logical_and.reduce(self.allowed[block].reshape(shape), axis=1)
        return image, head, allowed, (group * self.spacing_mm[0], *self.spacing_mm[1:])


def _thicker(spacing_mm: float, rng: np.random.Generator) -> int:
    """How many slices become one."""
    return int(rng.integers(1, max(1, int(THICKEST_MM / spacing_mm)) + 1))
