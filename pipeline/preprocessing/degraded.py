"""Slices that were made worse, beside what they were: what restoration is trained and measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort_format import LEVELS, Subject
from pipeline.preprocessing.degradation import Degradation, ThickSlices
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.mapped import DiskArray
from pipeline.preprocessing.neighbours import with_neighbours
from pipeline.preprocessing.slices import SliceDataset

# Whatever a slice shows, it can be restored.
LABELS = ("healthy", "pathological", "excluded", "unknown")


@dataclass(frozen=True)
class Run:
    """Slices of a scan, by their place in the dataset of clean slices.

    Attributes:
        subject: the scan.
        first: place of the first slice.
        end: place after the last.
    """

    subject: Subject
    first: int
    end: int


class DegradedDataset(Dataset[dict[str, Tensor]]):
    """Each slice of a split, degraded, and as it was (survey, Section 5.3).

    What is drawn is drawn anew each time, from torch's global random state, which checkpoints keep, or, if `fixed`, is
    the same each time. Degradation is simulated on the network's grid, from images that are themselves magnitude
    images of some noise and resolution: these are the truth.

    Args:
        cohort: a folder made by `phs-pipeline preprocess`.
        split: `training`, `validation` or `test`.
        grid: the network's grid.
        degradation: what is done to the slices of the first channel.
        channels: the channel that is degraded and restored, then others of the same scan that the network is shown as
            they are (survey: "high-resolution images with different contrasts as additional input"). None or `image`:
            the only one.
        neighbours: slices above and below that are given with each, of all channels.
        fixed: the same draws each time, of `seed` and the slice.
        fraction: share of the split's patients to use, as in `SliceDataset`.
        seed: of their order, and of fixed draws.

    Attributes:
        clean: all slices as they were.
        runs: which of them are used, scan by scan.
        patients: whose each slice is.

    Raises:
        UsageError: if no slice is left, but in a validation split.
    """

    def __init__(
        self,
        cohort: Path | str,
        split: str,
        grid: Grid,
        degradation: Degradation,
        channels: Sequence[str] | None = None,
        neighbours: int = 0,
        fixed: bool = False,
        fraction: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.clean = SliceDataset(
            cohort, split, grid, LABELS, fraction, seed, channels, neighbours, unseen_lesions=True
        )
        self.degradation, self.neighbours, self.fixed, self.seed = degradation, neighbours, fixed, seed
        self.runs = self._runs()
        self._items = [(run, place) for run in self.runs for place in range(run.first, run.end)]
        self.patients = [run.subject.patient for run, _ in self._items]
        # Of whole scans, nothing is drawn: made once, two bytes a pixel.
        self._spans: dict[int, slice] = {}
        written = DiskArray(np.float16, grid.size)
        for run in self.runs if self.across else ():
            self._spans[run.first] = written.append(self._volume(run).numpy())
        self._volumes = written.mapped()
        if split != "validation" and not self._items:
            raise UsageError(
                f"{cohort}: found no scan in the {split} split with slices of at most {self._thickest:g} mm, expected "
                "thin ones, which thick slices are simulated from; use another cohort or thickest_mm"
            )

    @property
    def across(self) -> bool:
        """Whether the degradation looks across slices."""
        return isinstance(self.degradation, ThickSlices)

    @property
    def _thickest(self) -> float:
        return self.degradation.thickest_mm if isinstance(self.degradation, ThickSlices) else np.inf

    def _runs(self) -> list[Run]:
        """The slices of each scan, as many as are in whole groups."""
        group = self.degradation.group if isinstance(self.degradation, ThickSlices) else 1
        ends = np.cumsum([0, *map(len, self.clean.places)]).tolist()
        return [
            Run(subject, first, first + (end - first) // group * group)
            for subject, (first, end) in zip(self.clean.subjects, pairwise(ends), strict=True)
            if subject.spacing_mm[0] <= self._thickest and end - first >= group
        ]

    def _truth(self, first: int, end: int) -> Tensor:
        """Clean slices of the first channel in [0, 1], (S, H, W)."""
        levels = np.asarray(self.clean.images[first:end, 0]).astype(np.float32)
        return torch.from_numpy(levels / np.float32(LEVELS))

    def _volume(self, run: Run) -> Tensor:
        return self.degradation(self._truth(run.first, run.end)).half()

    def _slices(self, truth: Tensor, first: int) -> Tensor:
        """Clean slices (S, H, W), the first at a place, degraded, each by draws of its own."""
        made = [self.degradation(one[None], self._generator(first + place)) for place, one in enumerate(truth)]
        return torch.cat(made)

    def _generator(self, place: int) -> torch.Generator:
        drawn = self.seed * 1_000_003 + place if self.fixed else int(torch.randint(2**62, ()))
        return torch.Generator().manual_seed(drawn)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One slice.

        Returns:
            `image` (C · (2 · neighbours + 1), H, W), the degraded slice with its neighbours from the lowest, then those
            of the other channels as they are; `target_image` (1, H, W), the slice as it was; both float32 in [0, 1];
            and `mask` (1, H, W) float32 in {0, 1}, the lesion.
        """
        run, place = self._items[index]
        sample, n = self.clean[place], self.neighbours
        seen, target = sample["image"], sample["image"][n : n + 1]
        if self.across:
            block = self._volumes.array[self._spans[run.first]][:, None]
            degraded = torch.from_numpy(with_neighbours(block, np.array([place - run.first]), n))[0].float()
        else:
            first, end = max(run.first, place - n), min(run.end, place + n + 1)
            made = self._slices(self._truth(first, end), first)[:, None]
            degraded = with_neighbours(made, np.array([place - first]), n)[0].float()
        return {"image": torch.cat([degraded, seen[2 * n + 1 :]]), "target_image": target, "mask": sample["mask"]}

    def scan(self, run: Run, change: Tensor | None = None) -> dict[str, Tensor]:
        """All slices of a run, as `__getitem__` gives each, one after the other.

        Args:
            run: one of `runs`.
            change: added to the truth before it is degraded, shape (S, 1, H, W): what would the same scan have looked
                like with something else in it? Fixed draws are the same with it and without.

        Returns:
            `image` (S, C · (2 · neighbours + 1), H, W), `target_image` and `mask` (S, 1, H, W).
        """
        samples = [self.clean[place] for place in range(run.first, run.end)]
        n, count = self.neighbours, run.end - run.first
        truth = self._truth(run.first, run.end)
        if change is not None:
            truth = (truth + change[:, 0]).clamp(0, 1)
        block = self.degradation(truth) if self.across else self._slices(truth, run.first)
        others = torch.stack([sample["image"][2 * n + 1 :] for sample in samples])
        return {
            "image": torch.cat([with_neighbours(block[:, None], np.arange(count), n), others], dim=1),
            "target_image": truth[:, None],
            "mask": torch.stack([sample["mask"] for sample in samples]),
        }
