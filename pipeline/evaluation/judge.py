"""f_pre, the segmentor that judges healthiness (PHS-GAN, Section 4.2), trained once per cohort and kept with it."""

import contextlib
import hashlib
import json
import logging
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader, DistributedSampler

from pipeline.evaluation.volumes import PATHOLOGICAL, in_plane_shape, pathological_subjects, read_volume
from pipeline.files import sha256, write_json
from pipeline.methods import Segmentation
from pipeline.networks import UNetSegmentor
from pipeline.preprocessing.cohort_format import COHORT_FILE, read_cohort
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset
from pipeline.training import CheckpointLoader, CheckpointSaver, PlayerTrainer, ProgressBar
from pipeline.training.checkpoint import CHECKPOINT, WEIGHTS, load_tensors

logger = logging.getLogger(__name__)

SEED = 1234  # trainings start from 0: the judge is never the segmentor that a method trained against
ITERATIONS = 600
FILTERS = 16
BATCH_SIZE = 8
RATE = 1e-3
POWER = 0.8
SPACING_MM = 2.0
SMALLEST_SIDE = 32  # below, the U-Net's lowest stage is a single pixel, which instance norm cannot normalise

RECORD = "judge.json"
SLICES_AT_ONCE = 16
TESTED = ("validation", "test")  # the splits whose patients it was not trained on


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
            found.append(self.grid.residuals_back(logits, shape, spacing_mm) > 0)
        return torch.cat(found).to(slices.device)


def load_judge(
    cohort: Path, seed: int = SEED, iterations: int = ITERATIONS, device: torch.device | str = "cpu"
) -> Judge:
    """The judge of a cohort, from `<cohort>/judge/<key>/`; trained there first if it is not.

    It is a U-Net trained on the cohort's training patients, pathological and healthy slices, on a grid of 2 mm, with
    a seed of its own. The key is a hash of its settings and of the cohort, so a changed cohort gets another judge.
    `judge.json` is written last: without it, or where it is damaged or tells of other weights than those beside it, the
    training is taken up from its last whole epoch, or done again.

    Args:
        cohort: folder made by `phs-pipeline preprocess`.
        seed: of its weights and of the order of its slices; the global random state is neither used nor changed.
        iterations: about how many; whole epochs are trained.
        device: where to train and to compute.

    Raises:
        UsageError: if the folder is no cohort, or no training patient has a lesion.
    """
    cohort, device = Path(cohort), torch.device(device)
    grid = _grid(cohort)
    settings = {
        "network": f"UNetSegmentor(filters={FILTERS})",
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
            _train(cohort, folder, grid, seed, iterations, device)
            judge = Judge(_network(folder, device), grid, device, settings)
            dice = {split: _own_dice(judge, cohort, split) for split in TESTED}
            about = {**settings, "weights_sha256": sha256(folder / WEIGHTS), "dice": dice}
            write_json(folder / RECORD, about)
            (folder / CHECKPOINT).unlink(missing_ok=True)
        return Judge(_network(folder, device), grid, device, about)


def _finished(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    try:
        about: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        whole = about.keys() >= {*settings, "dice"} and about["dice"].keys() >= set(TESTED)
        return about if whole and about["weights_sha256"] == sha256(folder / WEIGHTS) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _grid(cohort: Path) -> Grid:
    """A canvas just large enough for the largest field of view."""
    grid = Grid(SPACING_MM, (SMALLEST_SIDE, SMALLEST_SIDE))
    for subject in read_cohort(cohort).subjects:
        grid = Grid(SPACING_MM, grid.canvas(grid.resampled(in_plane_shape(cohort, subject), subject.pixel_mm)))
    return grid


def _train(cohort: Path, folder: Path, grid: Grid, seed: int, iterations: int, device: torch.device) -> None:
    patients = len({subject.patient for subject in pathological_subjects(cohort, "training")})
    logger.info("training the independent segmentor on %d patients, once for this cohort", patients)
    dataset = SliceDataset(cohort, "training", grid, labels=(PATHOLOGICAL, "healthy"))
    method = Segmentation(UNetSegmentor(filters=FILTERS))
    # One process trains for itself; this sampler's order depends on seed and epoch alone, which makes it resumable.
    sampler: DistributedSampler[Any] = DistributedSampler(dataset, num_replicas=1, rank=0, seed=seed)
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, sampler=sampler)
    epochs = math.ceil(iterations / len(loader))
    optimizer = Adam(method.networks["segmentor"].parameters(), lr=RATE)
    interrupted = (folder / CHECKPOINT).is_file()
    PlayerTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=loader,
        method=method,
        optimizers={"segmentor": optimizer},
        schedulers={"segmentor": PolynomialLR(optimizer, total_iters=epochs, power=POWER)},
        train_handlers=[
            *([CheckpointLoader(folder)] if interrupted else []),
            ProgressBar(),
            CheckpointSaver(folder),
        ],
    ).run()


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


def _network(folder: Path, device: torch.device) -> nn.Module:
    network = UNetSegmentor(filters=FILTERS)
    network.load_state_dict(load_tensors(folder / WEIGHTS))
    return network.to(device).eval()


def _own_dice(judge: Judge, cohort: Path, split: str) -> dict[str, float | int] | None:
    """Dice on the real pathological slices of patients that it was not trained on; None where a split has none."""
    if not read_cohort(cohort).slices(split, PATHOLOGICAL):
        return None
    subjects = pathological_subjects(cohort, split)
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
        "patients": len({subject.patient for subject in subjects}),
    }
