"""What restorers make of scans that are degraded as those that they were trained on, on the network's own grid."""

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.errors import UsageError
from pipeline.evaluation.volumes import Volume
from pipeline.preprocessing.degradation import ThickSlices
from pipeline.preprocessing.neighbours import with_neighbours


@torch.inference_mode()
def restored(restorer: Any, volume: Volume, slab: np.ndarray, untouched: bool = False) -> dict[str, Any]:
    """A volume's slices degraded and restored, beside what they were.

    On the network's grid, since degradation is defined there: noise of a level means another one on other pixels.

    Args:
        restorer: with the degradation that it was trained to undo.
        volume: whose slices are measured.
        slab: all slices of the slab with the sequences that the restorer takes, in [0, 1], shape (slices, C, H, W).
        untouched: leave them degraded.

    Returns:
        `translated`, `target_image`, `mask` and `foreground`, shape (N, 1, H, W), and `spacing_mm`, all of the grid.

    Raises:
        UsageError: if the restorer does not say what it undoes, or the slices are too thick for it.
    """
    if restorer.degradation is None:
        raise UsageError("this restorer's inference.json says no degradation, expected one, which is simulated; add it")
    if restorer.thickest_mm is not None and volume.slice_mm > restorer.thickest_mm:
        raise UsageError(
            f"{volume.subject}: has slices of {volume.slice_mm:g} mm, expected at most {restorer.thickest_mm:g} mm; "
            "evaluate on a cohort of thin slices"
        )
    grid, runner = restorer.runner.grid, restorer.runner
    clean = grid.images(torch.from_numpy(slab), volume.spacing_mm)
    degraded = _degraded(restorer.degradation, clean[:, 0], volume.subject)
    shown = torch.cat([degraded[:, None], clean[:, 1:]], dim=1)
    made = degraded[volume.places, None]
    if not untouched:
        inputs = with_neighbours(shown, np.array(volume.places), runner.neighbours)
        parts = [runner.inferer(part.to(runner.device), runner.network) for part in inputs.split(runner.batch_size)]
        made = torch.cat(parts).float().cpu().clamp(0, 1)
    masks = [grid.masks(part.float(), volume.spacing_mm) > 0 for part in (volume.lesion, volume.foreground)]
    return {
        "translated": made,
        "target_image": clean[volume.places, :1],
        **dict(zip(("mask", "foreground"), masks, strict=True)),
        "spacing_mm": (grid.spacing_mm, grid.spacing_mm),
    }


def _degraded(degradation: Any, clean: Tensor, subject: str) -> Tensor:
    """Slices (S, H, W) degraded by draws of the subject's name."""
    if not isinstance(degradation, ThickSlices):
        made: Tensor = degradation(clean, torch.Generator().manual_seed(zlib.crc32(subject.encode())))
        return made
    # The last thick slice is completed by the last thin one.
    missing = -len(clean) % degradation.group
    whole = pad(clean.flatten(1).T[None], (0, missing), mode="replicate")[0].T.reshape(-1, *clean.shape[1:])
    return degradation(whole)[: len(clean)]
