"""A-Dice of a method between its brackets: the original images above, healthy slices with random lesions below.

Beside it the A-Dice of the controls: what an empty fill of the lesion reaches.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.evaluation.volumes import HEALTHY, Volume, cohort_grid, read_volume, subjects_with
from pipeline.files import sha256, small_text, write_json
from pipeline.metrics import a_dice, random_lesion_masks
from pipeline.metrics.a_dice import MOMENTUM
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.preprocessing.grid import Grid

logger = logging.getLogger(__name__)

# Rows that are no method: what A-Dice can be at most, and at least.
ORIGINAL, HEALTHY_ROW = "original images", "healthy slices, random masks"
BRACKETS = (ORIGINAL, HEALTHY_ROW)
# Below this A-Dice even the lesions that are there were hardly found: the trainings were too short for these slices.
LEARNED = 0.1


@dataclass(frozen=True)
class ADiceSettings:
    """How A-Dice is measured.

    Args:
        seeds: one training each.
        epochs: E of GVS, Eq. 8.
        rate: of the optimiser.
        filters: of the U-Net's first stage.
        batch_size: slices in a step.
        spacing_mm: pixel size of the grid.
        optimizer: `sgd`, with momentum, or `adam`.
    """

    seeds: Sequence[int] = (0, 1, 2)
    epochs: int = 20
    rate: float = 0.1
    filters: int = 8
    batch_size: int = 8
    spacing_mm: float = 2.0
    optimizer: str = "sgd"


class ADiceSlices:
    """Collects slices on the grid of A-Dice, volume by volume, and measures it between its brackets.

    Slices whose lesion vanishes on the grid (less than half a pixel of it) have nothing to learn; they are counted and
    left out.

    Args:
        cohort: folder of the preprocessed cohort.
        split: whose slices these are.
        settings: how to measure.
    """

    def __init__(self, cohort: Path, split: str, settings: ADiceSettings) -> None:
        self.cohort = cohort
        self.split = split
        self.settings = settings
        self.grid = cohort_grid(cohort, settings.spacing_mm)
        self.lesions: list[Tensor] = []
        self.images: dict[str, list[Tensor]] = {}
        self.vanished = 0

    def add(self, volume: Volume, images: Mapping[str, Tensor]) -> None:
        """What the rows of the table made of a volume's slices, by name, shape (N, 1, H, W) in [0, 1]."""
        lesions = self.grid.masks(volume.lesion.float(), volume.spacing_mm)
        seen = lesions.flatten(1).any(dim=1)
        self.vanished += int((~seen).sum())
        self.lesions.append(lesions[seen])
        for name, image in {ORIGINAL: volume.image, **images}.items():
            self.images.setdefault(name, []).append(self.grid.images(image.cpu(), volume.spacing_mm)[seen])

    def collected(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The lesion masks, and the images of each row of the table and of `ORIGINAL`, shape (N, 1, H, W)."""
        return torch.cat(self.lesions), {row: torch.cat(parts) for row, parts in self.images.items()}

    def measure(self, name: str, device: torch.device) -> dict[str, Any]:
        """A-Dice of the method `name`, of the other rows, and of the brackets; see `bracketed_a_dice`."""
        lesions, images = self.collected()
        own, originals = images.pop(name), images.pop(ORIGINAL)
        found = bracketed_a_dice(
            name, own, originals, lesions, self.grid, self.cohort, self.split, self.settings, device, images
        )
        return {**found, "vanished": self.vanished}


def bracketed_a_dice(
    name: str,
    images: Tensor,
    originals: Tensor,
    lesions: Tensor,
    grid: Grid,
    cohort: Path,
    split: str,
    settings: ADiceSettings,
    device: torch.device,
    controls: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """A-Dice of the method's images, of the originals, and of healthy slices under other patients' lesion masks.

    The brackets and the controls depend on the cohort alone; they are measured once and kept in `<cohort>/a_dice`.

    Args:
        name: of the method.
        images: its pseudo-healthy images on the grid, shape (N, 1, H, W) in [0, 1].
        originals: what they were made from, same shape.
        lesions: masks, same shape.
        grid: of all of these.
        cohort: folder of the preprocessed cohort.
        split: whose slices these are.
        settings: how to measure.
        device: where to train.
        controls: images that controls made of the same originals, by name.

    Returns:
        `settings`; `images`: the scores by name of the row, `BRACKETS` among them, the lower one only where the split
        has a healthy slice, and none at all where no lesion is left on the grid; `learned`: whether the lesions of the
        original images were learned, without which values cannot be ranked.
    """
    told = {
        "network": f"UNetSegmentor(filters={settings.filters})",
        "optimizer": (
            f"SGD, rate {settings.rate}, momentum {MOMENTUM}"
            if settings.optimizer == "sgd"
            else f"Adam, rate {settings.rate}"
        ),
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "spacing_mm": grid.spacing_mm,
        "slices": len(images),
        "seeds": list(settings.seeds),
    }
    if not lesions.any():
        return {"settings": told, "images": {}, "learned": False}
    logger.info("A-Dice: %d trainings of %d epochs on %d slices", len(settings.seeds), settings.epochs, len(images))
    scores = {name: _measured(images, lesions, settings, device)}
    kept = {which: (others, lesions) for which, others in {**(controls or {}), ORIGINAL: originals}.items()}
    healthy = _healthy_slices(cohort, split, grid, len(images))
    if healthy is not None:
        slices, foreground = healthy
        kept[HEALTHY_ROW] = slices, random_lesion_masks(lesions.cpu(), foreground)
    for which, (others, masks) in kept.items():
        key = {**told, "images": which, "split": split, "cohort_sha256": sha256(cohort / COHORT_FILE)}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        path = cohort / "a_dice" / f"{which.replace(' ', '_').replace(',', '')}_{digest}.json"
        try:
            scores[which] = json.loads(small_text(path))["scores"]
        except (OSError, ValueError, KeyError, TypeError):
            logger.info("A-Dice of %s, once for this cohort", which)
            scores[which] = _measured(others, masks, settings, device)
            write_json(path, {**key, "scores": scores[which]})
    return {"settings": told, "images": scores, "learned": (scores[ORIGINAL]["mean"] or 0) >= LEARNED}


def _measured(images: Tensor, masks: Tensor, settings: ADiceSettings, device: torch.device) -> dict[str, Any]:
    result = a_dice(
        images,
        masks,
        settings.seeds,
        settings.epochs,
        settings.rate,
        settings.batch_size,
        settings.filters,
        device,
        settings.optimizer,
    )
    per_seed = [None if failed else value for value, failed in zip(result.per_seed, result.collapsed, strict=True)]
    return {**asdict(result), "per_seed": per_seed, "seeds": list(settings.seeds), "mean": result.mean, "sd": result.sd}


def _healthy_slices(cohort: Path, split: str, grid: Grid, count: int) -> tuple[Tensor, Tensor] | None:
    """As many healthy slices as there are pathological ones, taken again and again in turn if they are fewer."""
    images, foregrounds = [], []
    for record in subjects_with(cohort, split, HEALTHY):
        volume = read_volume(cohort, record, HEALTHY)
        images.append(grid.images(volume.image, volume.spacing_mm))
        foregrounds.append(grid.masks(volume.foreground.float(), volume.spacing_mm) > 0)
    if not images:
        return None
    turns = torch.arange(count) % sum(len(part) for part in images)
    return torch.cat(images)[turns], torch.cat(foregrounds)[turns]
