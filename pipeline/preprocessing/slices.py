"""A preprocessed cohort's axial slices on a network's grid, in a memory-mapped file, ready for training."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort_format import LEVELS, Cohort, Subject, read_cohort, read_mask, read_part
from pipeline.preprocessing.foreground import AIR
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.mapped import DiskArray
from pipeline.preprocessing.neighbours import with_neighbours

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

# Of the head or body: what may lie outside the network's grid without a word.
UNSAID_LOSS = 0.01


class SliceDataset(Dataset[dict[str, Tensor]]):
    """Axial slices of one split, with their lesion masks.

    Slices are kept as 16-bit levels, two bytes a pixel, in an unnamed file in the folder for temporary files, of which
    the operating system holds in memory what there is room for: a cohort of 300 scans with 60 slices of 240×240 takes
    2.1 GB of disk. Scans are read a few at a time.

    A slice whose lesion is too small to be seen on the grid is neither healthy nor an example of disease: it is left
    out, and the number of these is said.

    Args:
        cohort: a folder made by `phs-pipeline preprocess`.
        split: `training`, `validation` or `test`.
        grid: the network's grid; slices that do not fit are cropped around their centre.
        labels: which slices, by label.
        fraction: share of the split's patients to use, for experiments on the amount of data (GVS Fig. 5d); taken in an
            order drawn from `seed`, so that a larger share contains a smaller one.
        seed: of that order.
        channels: which of the cohort's channels, by name, of the scans that have all of these; None: all channels,
            which each scan must then have; `image`: the only one, whatever its name.
        neighbours: slices above and below that are given with each as further channels, those of `labels`.
        unseen_lesions: keep slices whose lesion is too small to be seen; they are examples of nothing but slices.

    Attributes:
        subjects: whose slices may be among them.
        places: of each subject, the indices in its slab of the slices that are.
        patients: whose each slice is.
        classes: names of the cohort's classes, sorted, where its targets are no numbers.

    Raises:
        UsageError: if no slice is left, but in a validation split, without which a training does; or if the grid cuts
            off a lesion.
    """

    unit = "slice"  # as messages call it

    def __init__(
        self,
        cohort: Path | str,
        split: str,
        grid: Grid,
        labels: Sequence[str] = ("pathological",),
        fraction: float = 1.0,
        seed: int = 0,
        channels: Sequence[str] | None = None,
        neighbours: int = 0,
        unseen_lesions: bool = False,
    ) -> None:
        if not 0 < fraction <= 1:
            raise UsageError(f"the fraction of training patients must be above 0 and at most 1, found {fraction}")
        self.grid = grid
        self.neighbours, self.unseen_lesions = neighbours, unseen_lesions
        self.labels = tuple(labels)
        self.cohort = Path(cohort)
        content = read_cohort(self.cohort)
        self.channels = _channels(self.cohort, content, channels)
        self.subjects = _subjects(content, split, fraction, seed, self.channels)
        self._targets, self.classes = _targets(content)
        self.places: list[list[int]] = []
        inner = len(self.channels), *grid.size
        images, masks = DiskArray(np.uint16, inner), DiskArray(np.uint8, (1, *grid.size))
        vanished, lost = 0, 0.0
        for loaded in _in_turn(self._load, self.subjects):
            images.append(loaded.images)
            masks.append(loaded.masks)
            self.places.append(loaded.places)
            vanished += loaded.vanished
            lost = max(lost, loaded.lost)
        self._images, self._masks = images.mapped(), masks.mapped()
        self.subject_of = [
            subject for subject, places in zip(self.subjects, self.places, strict=True) for _ in range(len(places))
        ]
        self._place_of = [place for places in self.places for place in places]
        ends = np.cumsum([0, *map(len, self.places)])
        self._scan_of = [slice(int(first), int(end)) for first, end in pairwise(ends) for _ in range(first, end)]
        self.patients = [subject.patient for subject in self.subject_of]
        self._say(split, vanished, lost)

    def _say(self, split: str, vanished: int, lost: float) -> None:
        wanted = " or ".join(self.labels)
        if vanished:
            logger.warning(
                "%s: left out %d of %d %s slices (%s): their lesions are too small to be seen on the grid of %g mm; a "
                "finer grid (spacing_mm) would keep them",
                self.cohort, vanished, vanished + len(self), split, wanted, self.grid.spacing_mm,
            )  # fmt: skip
        if lost > UNSAID_LOSS:
            logger.warning(
                "%s: up to %.0f %% of the head or body in a %s scan lies outside the grid of %s pixels of %g mm and is "
                "cut off; a larger grid (size, spacing_mm) would hold it",
                self.cohort, 100 * lost, split, "×".join(map(str, self.grid.size)), self.grid.spacing_mm,
            )  # fmt: skip
        if len(self):
            return
        present = sorted({label for subject in self.subjects for label in subject.labels})
        found = (
            f"{self.cohort}: found no {wanted} {self.unit} among the {len(self.subjects)} {split} subjects"
            f"{f' (their slices are {chr(44).join(present)})' if present else ''}"
        )
        if split == "validation":
            logger.warning("%s, so validation figures and panels are off", found)
            return
        raise UsageError(f"{found}, expected some; {self._remedy(present, vanished)}")

    def _remedy(self, present: Sequence[str], vanished: int) -> str:
        """What to do where no slice is left, of the labels that the slices have."""
        if vanished:
            return f"all {vanished} lesions are too small to be seen on {self.grid.spacing_mm:g} mm; take a finer grid"
        if "unknown" in present:
            return "give lesion masks to preprocess, or --healthy if these are healthy people"
        return "preprocess with another split, slab or minimum lesion size"

    def _load(self, subject: Subject) -> "Loaded":
        wanted = [place for place, label in enumerate(subject.labels) if label in self.labels]
        if not wanted or self._lacks_target(subject):
            return self._nothing()
        stored = torch.from_numpy(
            np.stack(
                [read_part(self.cohort, subject, subject.channels[name])[wanted] for name in self.channels], axis=1
            )
        ).float()
        lesions = torch.from_numpy(read_mask(self.cohort, subject)[wanted, None].astype(np.float32))
        lost = 0.0
        if not self.grid.holds((stored.shape[2], stored.shape[3]), subject.pixel_mm):
            lost = self._cut_off(subject, stored[:, :1] / LEVELS, lesions)
        images = self.grid.images(stored, subject.pixel_mm).round().clamp(0, LEVELS)
        masks = self.grid.masks(lesions, subject.pixel_mm)
        pathological = torch.tensor([subject.labels[place] == "pathological" for place in wanted])
        vanished = pathological & ~masks.flatten(1).any(dim=1)
        if subject.masks is None or self.unseen_lesions:
            vanished[:] = False
        kept = (~vanished).numpy()
        return Loaded(
            images.numpy().astype(np.uint16)[kept],
            masks.numpy().astype(np.uint8)[kept],
            [place for place, is_kept in zip(wanted, kept, strict=True) if is_kept],
            int(vanished.sum()),
            lost,
        )

    def _lacks_target(self, subject: Subject) -> bool:
        """Whether other scans of the cohort have a target, and this one has none."""
        return bool(self._targets) and subject.subject not in self._targets

    def _nothing(self) -> "Loaded":
        size = self.grid.size
        return Loaded(np.empty((0, len(self.channels), *size), np.uint16), np.empty((0, 1, *size), np.uint8), [])

    def _cut_off(self, subject: Subject, images: Tensor, lesions: Tensor) -> float:
        """Share of the head or body that the crop to the grid cuts off.

        Raises:
            UsageError: if it cuts off a lesion.
        """
        wide = self.grid.enlarged((images.shape[2], images.shape[3]), subject.pixel_mm)
        shares = []
        for slices in (lesions, (images > AIR).float()):
            whole = float(wide.masks(slices, subject.pixel_mm).sum())
            shares.append(1 - float(self.grid.masks(slices, subject.pixel_mm).sum()) / max(whole, 1.0))
        lesion, body = shares if lesions.any() else (0.0, shares[1])
        self._check_held(subject, (images.shape[-2], images.shape[-1]), lesion)
        return body

    def _check_held(self, subject: Subject, shape: tuple[int, int], lesion: float) -> None:
        """Refuse a grid that cuts off some share of a subject's lesion.

        Raises:
            UsageError: see above.
        """
        if lesion > 0:
            height, width = (round(pixels * mm) for pixels, mm in zip(shape, subject.pixel_mm, strict=True))
            size = "×".join(f"{side * self.grid.spacing_mm:g}" for side in self.grid.size)
            raise UsageError(
                f"{self.cohort}: {subject.subject} has slices of {height}×{width} mm, and the network's grid of {size} "
                f"mm would cut off {lesion:.0%} of its lesions, expected a grid that holds them; take one (--preset "
                "lits, or --set size and --set spacing_mm)"
            )

    @property
    def images(self) -> NDArray[np.uint16]:
        """Levels, shape (N, C, H, W)."""
        return self._images.array

    @property
    def masks(self) -> NDArray[np.uint8]:
        """Shape (N, 1, H, W)."""
        return self._masks.array

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One slice.

        Returns:
            `image` (C · (2 · neighbours + 1), H, W) float32 in [0, 1]; `mask` (1, H, W) float32 in {0, 1}, zeros where
            no lesion was annotated; and, if the cohort has targets, `target` (1,) float32: the number, or the index of
            the class in `classes`.
        """
        sample = self._pictures(index)
        if self._targets:
            sample["target"] = torch.tensor([self._target(index)], dtype=torch.float32)
        return sample

    def _target(self, index: int) -> float:
        """Of a slice: its own, or its scan's."""
        subject = self.subject_of[index]
        if not subject.slice_targets:
            return self._targets[subject.subject]
        return subject.slice_targets[self._place_of[index]]

    def _pictures(self, index: int) -> dict[str, Float32[Tensor, "_ height width"]]:
        scan = self._scan_of[index]
        (image,) = with_neighbours(self.images[scan], np.array([index - scan.start]), self.neighbours)
        return {
            "image": torch.from_numpy(image.astype(np.float32) / LEVELS),
            "mask": torch.from_numpy(self.masks[index].astype(np.float32)),
        }


@dataclass(frozen=True)
class Loaded:
    """Slices of one subject on the grid.

    Attributes:
        images: levels, shape (N, C, H, W).
        masks: shape (N, 1, H, W).
        places: their indices in the slab.
        vanished: how many were left out, their lesions being too small to be seen.
        lost: share of the head or body that lies outside the grid.
    """

    images: NDArray[np.uint16]
    masks: NDArray[np.uint8]
    places: list[int]
    vanished: int = 0
    lost: float = 0.0


def images_of(slices: SliceDataset) -> Tensor:
    """All images of a dataset that fits into memory, shape (N, C, H, W), in [0, 1]."""
    return torch.stack([slices[index]["image"] for index in range(len(slices))])


def _in_turn(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Results in order, by threads that are never far ahead of who takes them."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                if len(waiting) > workers:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(work, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _channels(cohort: Path, content: Cohort, wanted: Sequence[str] | None) -> list[str]:
    # `image` is what bundles call a sequence of any name.
    if wanted is None or (list(wanted) == ["image"] and len(content.channels) == 1):
        if len({frozenset(subject.channels) for subject in content.subjects}) > 1:
            raise UsageError(
                f"{cohort}: has scans of the modalities {', '.join(content.channels)}, expected the same of each scan; "
                "name the one to use, or preprocess scans of one"
            )
        return content.channels or ["image"]
    missing = [name for name in wanted if name not in content.channels]
    if missing:
        raise UsageError(
            f"{cohort}: has the channels {', '.join(content.channels)}, expected {', '.join(missing)} too; preprocess "
            "with --channels"
        )
    return list(wanted)


def _targets(content: Cohort) -> tuple[dict[str, float], list[str]]:
    """Each subject's target as a number, and the classes by index where targets are names."""
    found = {subject.subject: subject.target for subject in content.subjects if subject.target is not None}
    if all(isinstance(target, (int, float)) for target in found.values()):
        return {name: float(target) for name, target in found.items()}, []
    classes = sorted({str(target) for target in found.values()})
    return {name: float(classes.index(str(target))) for name, target in found.items()}, classes


def _subjects(content: Cohort, split: str, fraction: float, seed: int, channels: Sequence[str]) -> list[Subject]:
    subjects = [subject for subject in content.having(channels) if subject.split == split]
    if fraction == 1:
        return subjects
    patients = np.random.default_rng(seed).permutation(sorted({subject.patient for subject in subjects}))
    kept = set(patients[: max(1, round(fraction * len(patients)))])
    return [subject for subject in subjects if subject.patient in kept]
