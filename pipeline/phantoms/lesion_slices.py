"""Slices with drawn and with planted lesions, as various as scanners are: what a detector is trained on."""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.phantoms.appearance import APPEARANCES, Spacing, Tissue, paint
from pipeline.preprocessing.brain import brain_tissue
from pipeline.preprocessing.cohort_format import LEVELS, Subject
from pipeline.preprocessing.contrasts import other_contrast
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.holes import LEAST_VOXELS, apart, lesions, place_shape, scale_to
from pipeline.preprocessing.mapped import DiskArray, Mapped
from pipeline.preprocessing.neighbours import with_neighbours
from pipeline.preprocessing.slices import SliceDataset

LABELS = ("healthy", "pathological", "excluded")
# Slices of a volume that are looked at together, and how thick thin ones become at most.
BLOCK, THICKEST_MM = 16, 6.0
PLANTED, PLANTS = 0.5, 3  # how often lesions are planted, and how many at most
SIZES_ML = (0.05, 60.0)
SCALES = (0.3, 3.0)  # of a lesion's size in mm
STRIPPED = 0.3  # how often a whole head is shown without skull and scalp
TURN_DEGREES, SCALE = 12.0, 0.12  # of the slices, at most
VARIED = 0.7  # how often intensities are
CLOSED = 3  # pixels, of half a sulcus or more
# Bits of a pixel's region: where lesions may be planted, and the brain.
FREE, BRAIN = np.uint8(1), np.uint8(2)
ALL = slice(None)


class LesionSlices(Dataset[list[dict[str, Tensor]]]):
    """Slices, each with its neighbours, and where their lesions are.

    Each item takes a block of a scan's slices, thicker than they are, or without the skull, or with further lesions
    planted in it (bright, dark, rimmed, cystic: what few patients have), and gives a few of them, turned, scaled,
    mirrored and with other intensities. What is drawn is drawn anew each time, from torch's global random state, which
    checkpoints keep. `SliceDataset` gives the slices as they are.

    Args:
        cohort: a folder made by `phs-pipeline preprocess`, of one channel and with lesion masks.
        split: `training`, `validation` or `test`.
        grid: the network's grid.
        neighbours: slices above and below that the network sees with each.
        slices: of each item.
        fraction: share of the split's patients to use, as in `SliceDataset`.
        seed: of their order.

    Raises:
        UsageError: if no slice of the split has a lesion.
    """

    def __init__(
        self,
        cohort: Path | str,
        split: str,
        grid: Grid,
        neighbours: int = 1,
        slices: int = 8,
        fraction: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.scans = SliceDataset(cohort, split, grid, LABELS, fraction, seed)
        self.neighbours, self.slices = neighbours, slices
        ends = np.cumsum([0, *map(len, self.scans.places)])
        self.volumes = [
            _Volume(self.scans, *given)
            for given in zip(self.scans.subjects, ends, ends[1:], strict=False)
            if given[2] > given[1]
        ]
        self.shapes: list[tuple[NDArray[np.bool_], Spacing]] = []
        written = DiskArray(np.uint8, grid.size)
        for volume in self.volumes:  # which are all slices, one after the other
            free, brain = volume.looked_at()
            written.append(free * FREE | brain * BRAIN)
            self.shapes += [(piece, volume.spacing_mm) for piece in lesions(volume.lesion, LEAST_VOXELS)]
        regions = written.mapped()
        for volume in self.volumes:
            volume.regions = regions
        if not self.shapes:
            raise UsageError(
                f"{cohort}: found no lesion in the {split} split, expected some to learn from; preprocess a cohort "
                "with masks"
            )
        self.items = [volume for volume in self.volumes for _ in range(0, len(volume), slices)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> list[dict[str, Tensor]]:
        """Slices of a scan.

        Returns:
            Of each, `image` (2 · neighbours + 1, H, W) in [0, 1], from the lowest slice, and `mask` (1, H, W) in
            {0, 1} of the middle one.
        """
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        image, lesion = self._varied(self.items[index], rng)
        chosen = _chosen(lesion, self.slices, rng)
        images = with_neighbours(torch.from_numpy(image)[:, None], chosen, self.neighbours)
        masks = torch.from_numpy(lesion[chosen].astype(np.float32))[:, None]
        moved = _moved(images, masks, rng)
        return [{"image": one, "mask": mask} for one, mask in zip(*moved, strict=True)]

    def _varied(self, volume: "_Volume", rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A block of a scan as another scanner might show it, with further lesions planted: image and lesions."""
        image, lesion, brain, free, spacing_mm = volume.block(rng)
        if rng.random() < PLANTED and free.any():
            image, lesion = self._planted(image, lesion, free, spacing_mm, rng)
        tissue = foreground(image)
        if rng.random() < STRIPPED and brain.any():
            tissue &= brain | lesion
        if rng.random() < VARIED:
            return other_contrast(image, tissue, rng, inverted=0.0), lesion
        return np.where(tissue, image, np.float32(0)), lesion

    def _planted(
        self,
        image: NDArray[np.float32],
        lesion: NDArray[np.bool_],
        free: NDArray[np.bool_],
        spacing_mm: Spacing,
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """With up to `PLANTS` lesions more, where there is healthy brain."""
        tissue, lesion = Tissue.of(image, free), lesion.copy()
        for _ in range(int(rng.integers(1, PLANTS + 1))):
            shape, its_spacing = self.shapes[rng.integers(len(self.shapes))]
            size_ml = math.exp(rng.uniform(*np.log(SIZES_ML)))
            scale = float(np.clip(scale_to(shape, its_spacing, size_ml), *SCALES))
            placed = place_shape(shape, its_spacing, free & ~lesion, spacing_mm, rng, scales=(scale, scale))
            if placed is not None:
                appearance = str(rng.choice(list(APPEARANCES)))
                image = paint(image, placed, appearance, tissue, spacing_mm, rng).clip(0, 1)
                lesion |= placed
        return image, lesion


class _Volume:
    """Slices of one scan on the network's grid.

    Attributes:
        regions: of all scans' slices, by bits, where the brain is and where further lesions may be planted.
    """

    regions: Mapped

    def __init__(self, scans: SliceDataset, subject: Subject, first: int, end: int) -> None:
        self.scans, self.span = scans, slice(int(first), int(end))
        self.spacing_mm = (subject.spacing_mm[0], scans.grid.spacing_mm, scans.grid.spacing_mm)

    def __len__(self) -> int:
        return self.span.stop - self.span.start

    @property
    def lesion(self) -> NDArray[np.bool_]:
        """Shape (slices, H, W)."""
        return np.asarray(self.scans.masks[self.span, 0]) > 0

    @property
    def free(self) -> NDArray[np.bool_]:
        """Where further lesions may be planted, same shape."""
        return self.regions.array[self.span] & FREE > 0

    @property
    def brain(self) -> NDArray[np.bool_]:
        """Same shape."""
        return self.regions.array[self.span] & BRAIN > 0

    def looked_at(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where lesions may be planted and where the brain is, each of shape (slices, H, W)."""
        lesion = self.lesion
        tissue = brain_tissue(self.image(), self.spacing_mm, lesion)
        return apart(tissue, lesion, self.spacing_mm), np.stack([_filled(one) for one in tissue | lesion])

    def image(self, block: slice = ALL) -> NDArray[np.float32]:
        """Some or all slices in [0, 1], shape (slices, H, W)."""
        return np.asarray(self.scans.images[self.span, 0][block]).astype(np.float32) / np.float32(LEVELS)

    def block(
        self, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], Spacing]:
        """Some neighbouring slices, each the mean of a few: image, lesions, brain, where it is healthy, voxel size."""
        most = max(1, min(int(THICKEST_MM / self.spacing_mm[0]), len(self)))
        group = int(rng.integers(1, most + 1))
        count = min(BLOCK * group, len(self) // group * group)
        start = int(rng.integers(len(self) - count + 1))
        shape = (count // group, group, *self.scans.grid.size)
        block = slice(start, start + count)
        image: NDArray[np.float32] = self.image(block).reshape(shape).mean(axis=1, dtype=np.float32)
        # As a drawer sees it: what fills half of a slice.
        lesion, brain, free = (
            region[block].reshape(shape).mean(axis=1) >= 0.5 for region in (self.lesion, self.brain, self.free)
        )
        return image, lesion, brain, free & ~lesion, (group * self.spacing_mm[0], *self.spacing_mm[1:])


def _filled(tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Brain tissue of a slice with the ventricles and sulci in it."""
    closed = ndimage.binary_closing(np.pad(tissue, CLOSED), iterations=CLOSED)[CLOSED:-CLOSED, CLOSED:-CLOSED]
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(closed)
    return filled


def _chosen(lesion: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Slices of a block, those with a lesion twice as likely as others."""
    weights = 1.0 + lesion.any(axis=(1, 2))
    drawn = rng.choice(len(lesion), min(count, len(lesion)), replace=False, p=weights / weights.sum())
    return np.sort(drawn)


def _moved(images: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Images and masks turned, scaled and mirrored together."""
    angle, scale = math.radians(rng.uniform(-TURN_DEGREES, TURN_DEGREES)), math.exp(rng.uniform(-SCALE, SCALE))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    height, width = images.shape[2:]
    cos, sin, aspect = math.cos(angle) / scale, math.sin(angle) / scale, height / width
    # Rows run along right, columns along anterior: mirroring swaps the rows.
    turn = torch.tensor([[cos, -sin * aspect, 0.0], [mirror * sin / aspect, mirror * cos, 0.0]])
    both = torch.cat([images, masks], dim=1)
    grid = functional.affine_grid(turn.expand(len(both), 2, 3), list(both.shape), align_corners=False)
    moved = functional.grid_sample(both, grid, mode="bilinear", align_corners=False)
    return moved[:, :-1], (moved[:, -1:] >= 0.5).to(masks)
