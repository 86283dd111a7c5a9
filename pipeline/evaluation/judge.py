"""f_pre, the segmentor that judges healthiness (PHS-GAN, Section 4.2), trained once per cohort and kept with it."""

import contextlib
import hashlib
import json
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice
from torch import Tensor, nn

from pipeline import JUDGE_ITERATIONS
from pipeline.evaluation.scores import SLICES_AT_ONCE
from pipeline.evaluation.volumes import (
    HEALTHY,
    PATHOLOGICAL,
    cohort_grid,
    finest_spacing,
    pathological_subjects,
    patients_of,
    read_volume,
    subjects_with,
)
from pipeline.files import sha256, small_text, write_json
from pipeline.methods import Segmentation
from pipeline.networks import ResidualUNet, UNetSegmentor
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset
from pipeline.training.checkpoint import CHECKPOINT, WEIGHTS, load_tensors
from pipeline.training.single import BATCH_SIZE, POWER, RATE, train_alone

logger = logging.getLogger(__name__)

SEED = 1234  # trainings start from 0: the judge is never the segmentor that a method trained against
ITERATIONS = JUDGE_ITERATIONS

RECORD = "judge.json"
# Of the weights: a judge of another one is trained anew.
FORMAT = 2
TESTED = ("validation", "test")  # the splits whose patients it was not trained on


@dataclass(frozen=True)
class Scale:
    """How large the judge is.

    Args:
        spacing_mm: pixel size of its grid; None for that of the cohort's finest slices.
        network: its architecture.
        filters: of the network's first stage.
        departure: what a reader must know who compares with the paper, for the report.
    """

    spacing_mm: float | None
    network: Callable[..., nn.Module]
    filters: int
    departure: str = ""

    @property
    def name(self) -> str:
        """The architecture with its width."""
        return f"{getattr(self.network, '__name__', self.network)}(filters={self.filters})"

    def build(self) -> nn.Module:
        """The network with new weights."""
        return self.network(filters=self.filters)


SCALES = {
    "default": Scale(
        2.0,
        UNetSegmentor,
        16,
        "PHS-GAN's f_pre has the structure of its S, a residual U-Net of 64 filters that sees slices at full "
        "resolution (`--judge paper`); this one is smaller and coarser, so its healthiness is not the paper's",
    ),
    "paper": Scale(None, ResidualUNet, 64),
}


@dataclass(frozen=True)
class Judge:
    """A trained f_pre.

    Args:
        network: images on the grid to lesion logits.
        grid: its grid.
        device: where to compute.
        about: content of `judge.json`: settings, hashes, and its own `dice` by split.
    """

    network: nn.Module
    grid: Grid
    device: torch.device
    about: dict[str, Any]

    @torch.inference_mode()
    def predict(self, slices: Tensor, spacing_mm: tuple[float, float]) -> Tensor:
        """Where the judge sees lesion.

        Args:
            slices: on the scan's own pixels, shape (N, 1, H, W), values in [0, 1].
            spacing_mm: pixel size along (H, W).

        Returns:
            Bool, shape (N, 1, H, W), on the device of `slices`.
        """
        shape = (slices.shape[-2], slices.shape[-1])
        found = []
        for part in slices.split(SLICES_AT_ONCE):
            logits = self.network(self.grid.images(part.to(self.device), spacing_mm))
            # Logits are smooth where a mask is not: brought back first and cut after, the border has no steps.
            found.append(self.grid.back({self.grid.middle(shape, spacing_mm): logits}, shape, spacing_mm) > 0)
        return torch.cat(found).to(slices.device)


def load_judge(
    cohort: Path,
    seed: int = SEED,
    iterations: int = ITERATIONS,
    device: torch.device | str = "cpu",
    scale: Scale = SCALES["default"],
) -> Judge:
    """The judge of a cohort, from `<cohort>/judge/<key>/`; trained there first if it is not.

    It is a U-Net trained on the cohort's training patients, pathological and healthy slices, with a seed of its own.
    The key is a hash of its settings and of the cohort, so a changed cohort gets another judge. `judge.json` is written
    last: without it, or where it is damaged or tells of other weights than those beside it, the training is taken up
    from its last whole epoch, or done again.

    Args:
        cohort: folder made by `phs-pipeline preprocess`.
        seed: of its weights and of the order of its slices; the global random state is neither used nor changed.
        iterations: about how many; whole epochs are trained.
        device: where to train and to compute.
        scale: how large it is.

    Raises:
        UsageError: if the folder is no cohort, or no training patient has a lesion.
    """
    cohort, device = Path(cohort), torch.device(device)
    grid = cohort_grid(cohort, scale.spacing_mm or finest_spacing(cohort))
    settings = {
        "format": FORMAT,
        "network": scale.name,
        "loss": "two-class cross-entropy + Dice loss",
        "spacing_mm": grid.spacing_mm,
        "size": list(grid.size),
        "seed": seed,
        "iterations": iterations,
        "batch_size": BATCH_SIZE,
        "rate": RATE,
        "poly_power": POWER,
        "cohort_sha256": sha256(cohort / COHORT_FILE),
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    folder = cohort / "judge" / key
    with _own_random_state(seed):
        about = _finished(folder, settings)
        if about is None:
            patients = len(patients_of(pathological_subjects(cohort, "training")))
            logger.info("training the independent segmentor on %d patients, once for this cohort", patients)
            slices = SliceDataset(cohort, "training", grid, labels=(PATHOLOGICAL, HEALTHY))
            method = Segmentation(scale.build())
            train_alone(folder, method, slices, iterations, seed, device)
            judge = Judge(_network(folder, scale, device), grid, device, settings)
            dice = {split: _own_dice(judge, cohort, split) for split in TESTED}
            about = {**settings, "weights_sha256": sha256(folder / WEIGHTS), "dice": dice}
            write_json(folder / RECORD, about)
            (folder / CHECKPOINT).unlink(missing_ok=True)
        return Judge(_network(folder, scale, device), grid, device, about)


def _finished(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    try:
        about: dict[str, Any] = json.loads(small_text(folder / RECORD))
        whole = about.keys() >= {*settings, "dice"} and about["dice"].keys() >= set(TESTED)
        return about if whole and about["weights_sha256"] == sha256(folder / WEIGHTS) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextlib.contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    # A resumed training also sets Python's and NumPy's states.
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


def _network(folder: Path, scale: Scale, device: torch.device) -> nn.Module:
    network = scale.build()
    network.load_state_dict(load_tensors(folder / WEIGHTS))
    return network.to(device).eval()


def _own_dice(judge: Judge, cohort: Path, split: str) -> dict[str, float | int] | None:
    """Dice on the real pathological slices of patients that it was not trained on; None where a split has none."""
    subjects = subjects_with(cohort, split, PATHOLOGICAL)
    if not subjects:
        return None
    by_slice, overlap, areas = [], 0, 0
    for subject in subjects:
        volume = read_volume(cohort, subject)
        found = judge.predict(volume.image, volume.spacing_mm)
        by_slice += compute_dice(found.float(), volume.lesion.float()).flatten().tolist()
        overlap += int((found & volume.lesion).sum())
        areas += int(found.sum() + volume.lesion.sum())
    return {
        "pooled": 2 * overlap / areas,
        "mean_per_slice": float(np.mean(by_slice)),
        "slices": len(by_slice),
        "patients": len(patients_of(subjects)),
    }
