"""A-Dice of a method between its brackets: the original images above, healthy slices with random lesions below.

Beside it the A-Dice of the controls: what an empty fill of the lesion reaches.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.evaluation.volumes import HEALTHY, read_volume, subjects_with
from pipeline.files import sha256, write_json
from pipeline.metrics import a_dice, random_lesion_masks
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.preprocessing.grid import Grid

logger = logging.getLogger(__name__)

EPOCHS = 20
RATE = 0.1
BATCH_SIZE = 8
FILTERS = 8
NAMES = {"original": "the original images", "healthy": "healthy slices with random lesion masks"}


def bracketed_a_dice(
    name: str,
    images: Tensor,
    originals: Tensor,
    lesions: Tensor,
    grid: Grid,
    cohort: Path,
    split: str,
    seeds: Sequence[int],
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
        seeds: trainings to repeat.
        device: where to train.
        controls: images that controls made of the same originals, by name.

    Returns:
        `settings`, and `images`: by name, by name of control, `original` and `healthy` the scores; `healthy` is missing
        where the split has no healthy slice.
    """
    settings = {
        "network": f"UNetSegmentor(filters={FILTERS})",
        "optimizer": f"SGD, rate {RATE}, momentum 0.9",
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "spacing_mm": grid.spacing_mm,
        "slices": len(images),
        "seeds": list(seeds),
    }
    logger.info("A-Dice: %d trainings of %d epochs on %d slices", len(seeds), EPOCHS, len(images))
    scores = {name: _measured(images, lesions, seeds, device)}
    kept = {which: (others, lesions) for which, others in {**(controls or {}), "original": originals}.items()}
    healthy = _healthy_slices(cohort, split, grid, len(images))
    if healthy is not None:
        slices, foreground = healthy
        kept["healthy"] = slices, random_lesion_masks(lesions.cpu(), foreground)
    for which, (others, masks) in kept.items():
        key = {**settings, "images": which, "split": split, "cohort_sha256": sha256(cohort / COHORT_FILE)}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        path = cohort / "a_dice" / f"{which.replace(' ', '_')}_{digest}.json"
        try:
            scores[which] = json.loads(path.read_text(encoding="utf-8"))["scores"]
        except (OSError, ValueError, KeyError, TypeError):
            logger.info("A-Dice of %s, once for this cohort", NAMES.get(which, which))
            scores[which] = _measured(others, masks, seeds, device)
            write_json(path, {**key, "scores": scores[which]})
    return {"settings": settings, "images": scores}


def _measured(images: Tensor, masks: Tensor, seeds: Sequence[int], device: torch.device) -> dict[str, Any]:
    result = a_dice(images, masks, seeds, EPOCHS, RATE, BATCH_SIZE, FILTERS, device)
    per_seed = [None if failed else value for value, failed in zip(result.per_seed, result.collapsed, strict=True)]
    return {**asdict(result), "per_seed": per_seed, "seeds": list(seeds), "mean": result.mean, "sd": result.sd}


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
