"""Segmentation of lesions whose contrast a generator enhanced (GVS, Sections III-C and V-G, Table III, Figs. 8b, 8c).

A segmentor is trained on images in which the extracted pathological signal was added once more,
x_en = x_p + α (x_p − x_s), and tested on other patients' images enhanced alike. The sign is that of the text, not of
Eq. 7 as printed (see `pipeline.inference.enhance`). What leaves [0, 1] is kept: clipped to 1, the bright lesions that
enhancement is for would look like bright tissue again.

Where the segmentor learns from a share of the training patients (Fig. 8b), the generator has learned from the same
ones: one that has seen all masks would hand the others' labels on.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Beta
from torch.utils.data import Dataset

from pipeline.bundles import Bundle
from pipeline.errors import UsageError
from pipeline.evaluation import Judge
from pipeline.evaluation.predictions import shown_to
from pipeline.evaluation.volumes import (
    HEALTHY,
    PATHOLOGICAL,
    Volume,
    cohort_grid,
    pathological_subjects,
    read_volume,
)
from pipeline.files import sha256
from pipeline.inference import Translator, load_predictor
from pipeline.launch import check_unseen
from pipeline.methods import Segmentation
from pipeline.methods.base import Batch, Shared, Terms
from pipeline.metrics import hd95
from pipeline.networks import UNetSegmentor
from pipeline.preprocessing.cohort_format import COHORT_FILE, Subject, read_cohort
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset
from pipeline.reports.markdown import table
from pipeline.studies.generators import generator_for, require_run_of
from pipeline.studies.segmentations import write_segmentations
from pipeline.studies.study import mean_sd, once, open_study, over_seeds, write_study
from pipeline.studies.training import trained
from pipeline.training.single import BATCH_SIZE

logger = logging.getLogger(__name__)

# The paper's α and losses.
ALPHAS = (0.0, 0.3, 0.5, 0.7, 1.0)
LOSSES = ("ce", "ce+dice", "ce+mixup", "ce+dice+mixup")
# Zhang et al. (2018) recommend 0.1 to 0.4; with 0.4 a third of the pairs are mixed by more than a fifth.
MIXUP, MIXED = 0.4, "mixup"
LABELS = (PATHOLOGICAL, HEALTHY)  # healthy slices too: there, whatever is found is a false alarm

COLUMNS = {
    "dice": ("Dice, pooled ↑", 3),
    "dice_patients": ("Dice, mean over patients ↑", 3),
    "precision": ("precision ↑", 3),
    "recall": ("recall ↑", 3),
    "hd95_mm": ("HD95, mm ↓", 1),
}
KEYS = ["loss", "fraction", "alpha"]


@dataclass(frozen=True)
class Scale:
    """How large the segmentor and its training are.

    Args:
        spacing_mm: pixel size of its grid.
        filters: of its U-Net's first stage.
        epochs: passes over all training slices; with a fraction of them, as many iterations.
    """

    spacing_mm: float
    filters: int
    epochs: int


PAPER = Scale(spacing_mm=1.0, filters=32, epochs=20)
PRESETS = {"laptop": Scale(spacing_mm=2.0, filters=16, epochs=6)}


class MixupSegmentation(Segmentation):
    """Segmentation with some of its loss terms, and mixup (Zhang et al. 2018) of images and masks.

    Args:
        segmentor: images (B, 1, H, W) to lesion logits of the same shape.
        loss: `ce` and, joined by `+`, `dice` and `mixup`: cross-entropy, Dice loss (V-Net), and convex combinations of
            each image and its mask with another of the batch, their share drawn once a batch from Beta(0.4, 0.4).
    """

    def __init__(self, segmentor: nn.Module, loss: str) -> None:
        parts = loss.split("+")
        super().__init__(segmentor, "+".join(part for part in parts if part != MIXED))
        self.mixed = MIXED in parts

    def supervise(self, batch: Batch, shared: Shared) -> Terms:
        """Find the lesion, in a mixture of the images if asked to."""
        if self.mixed:
            share = Beta(MIXUP, MIXUP).sample()
            order = torch.randperm(len(batch["image"]))
            batch = {name: share * value + (1 - share) * value[order] for name, value in batch.items()}
        return super().supervise(batch, shared)


class EnhancedSlices(Dataset[dict[str, Tensor]]):
    """Training slices x_en = x_p + α (x_p − x_s), with their lesion masks.

    Args:
        slices: x_p on the segmentor's grid.
        residuals: x_s − x_p of the same slices, on the same grid, shape (slices, 1, H, W).
        alpha: degree of enhancement.
    """

    def __init__(self, slices: SliceDataset, residuals: NDArray[np.float16], alpha: float) -> None:
        self.slices = slices
        self.residuals = residuals
        self.alpha = alpha

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One slice: `image` (1, H, W) float32, not clipped, and `mask` (1, H, W) float32 in {0, 1}."""
        sample = self.slices[index]
        residual = torch.from_numpy(self.residuals[index].astype(np.float32))
        return {**sample, "image": sample["image"] - self.alpha * residual}


class EnhancedCohort:
    """A cohort's slices with the generator's residual, which is computed once for each scan.

    Args:
        cohort: folder made by `preprocess`.
        synthesizer: the generator, on its own grid.
        grid: the segmentor's.
    """

    def __init__(self, cohort: Path, synthesizer: Translator, grid: Grid) -> None:
        self.cohort = cohort
        self.synthesizer = synthesizer
        self.grid = grid
        self._on_grid: dict[str, NDArray[np.float16]] = {}
        self._volumes: dict[str, list[tuple[Volume, Tensor]]] = {}

    def training(self, fraction: float, seed: int, alpha: float) -> EnhancedSlices:
        """Pathological and healthy slices of a share of the training patients."""
        slices = SliceDataset(self.cohort, "training", self.grid, LABELS, fraction, seed)
        residuals = [
            self._residuals_on_grid(subject, places)
            for subject, places in zip(slices.subjects, slices.places, strict=True)
        ]
        return EnhancedSlices(slices, np.concatenate(residuals), alpha)

    def volumes(self, split: str) -> list[tuple[Volume, Tensor]]:
        """Pathological and healthy slices of a split on the scans' own pixels, with x_s − x_p."""
        if split not in self._volumes:
            records = pathological_subjects(self.cohort, split)
            self._volumes[split] = [pair for record in records for pair in self._with_residuals(record)]
        return self._volumes[split]

    def _with_residuals(self, record: Subject) -> list[tuple[Volume, Tensor]]:
        volumes = [read_volume(self.cohort, record, label) for label in LABELS if label in record.labels]
        return [(volume, self._residual(volume)) for volume in volumes]

    def _residual(self, volume: Volume) -> Tensor:
        windowed, chosen = shown_to(self.synthesizer, volume)
        residual = self.synthesizer.residual(windowed, volume.voxel_mm)[chosen]
        return torch.from_numpy(residual)[:, None] * volume.foreground

    def _residuals_on_grid(self, record: Subject, wanted: list[int]) -> NDArray[np.float16]:
        """Those of the slices that `SliceDataset` has, in its order: that of the slab, whatever their label."""
        if record.subject not in self._on_grid:
            pairs = self._with_residuals(record)
            parts = [self.grid.images(residual, volume.spacing_mm) for volume, residual in pairs]
            parts = parts or [torch.empty(0, 1, *self.grid.size)]
            indices = [index for volume, _ in pairs for index in volume.places]
            chosen = [indices.index(index) for index in wanted]
            self._on_grid[record.subject] = torch.cat(parts).numpy()[chosen].astype(np.float16)
        return self._on_grid[record.subject]


def enhancement(
    run: Bundle,
    cohort: Path,
    folder: Path,
    alphas: Sequence[float] = ALPHAS,
    fractions: Sequence[float] = (1.0,),
    losses: Sequence[str] = LOSSES[:1],
    seeds: int = 3,
    scale: Scale = PAPER,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Train a U-Net for each α, share of the training patients, loss and seed, and test each on enhanced images.

    Each segmentor's generator has learned from no other patients than itself (`generator_for`), those that are trained
    for it in `generators/`. `segmentations_alpha=….png` and `.csv` show what is found with and without enhancement
    (Fig. 9): the first loss, the largest share, the first α above 0, seed 0.

    Started again, it skips what is finished and goes on with a training that was stopped; alphas, fractions, losses and
    seeds may be added then, all else stays.

    Args:
        run: the trained generator; for shares below 1 a run on this cohort, whose settings others are trained with.
        cohort: folder made by `preprocess`.
        folder: of the study.
        alphas: degrees of enhancement; with 0, against which gains are measured.
        fractions: shares of the training patients; each seed draws its own, a larger share contains a smaller one.
        losses: of `LOSSES`.
        seeds: trainings of each kind, with the seeds 0, 1, …
        scale: of the segmentor and its training.
        split: patients to test on.
        device: where to compute.

    Returns:
        The tables, in Markdown.

    Raises:
        UsageError: if α = 0 is missing, a loss is unknown, the generator was trained on patients of the split or cannot
            be trained on a smaller share, or the folder holds another study.
    """
    _check(run, cohort, alphas, fractions, losses, split)
    synthesizer, provenance = load_predictor(run, "translator", device)
    grid = cohort_grid(cohort, scale.spacing_mm)
    open_study(
        folder,
        {
            "study": "enhancement",
            "generator": provenance,
            "cohort_sha256": sha256(cohort / COHORT_FILE),
            "split": split,
            "spacing_mm": grid.spacing_mm,
            "size": list(grid.size),
            "filters": scale.filters,
            "epochs": scale.epochs,
        },
    )
    content = read_cohort(cohort)
    iterations = scale.epochs * -(-sum(content.slices("training", label) for label in LABELS) // BATCH_SIZE)
    kinds = [(loss, fraction, alpha) for loss in losses for fraction in fractions for alpha in alphas]

    @functools.lru_cache(maxsize=1)  # residuals of a whole cohort: those of one generator at a time
    def enhanced_by(generator: Bundle) -> EnhancedCohort:
        return EnhancedCohort(cohort, load_predictor(generator, "translator", device)[0], grid)

    def generators(fraction: float, seed: int) -> Bundle:
        return generator_for(run, cohort, folder / "generators", fraction, seed, device)

    def enhanced(fraction: float, seed: int) -> EnhancedCohort:
        return enhanced_by(generators(fraction, seed))

    def segmentor(loss: str, fraction: float, alpha: float, seed: int) -> Judge:
        images = enhanced(fraction, seed)  # before the segmentor's random state is set: a generator may be trained here
        network = trained(
            folder / "segmentors" / _name(loss, fraction, alpha, seed),
            lambda: MixupSegmentation(UNetSegmentor(filters=scale.filters), loss),
            lambda: images.training(fraction, seed, alpha),
            iterations,
            seed,
            synthesizer.device,
        )
        return Judge(network, grid, synthesizer.device, {})

    def result(loss: str, fraction: float, alpha: float, seed: int) -> dict[str, Any]:
        name = _name(loss, fraction, alpha, seed)

        def train_and_test() -> dict[str, Any]:
            logger.info("segmentor %s, of %d in all", name, len(kinds) * seeds)
            found = segmentor(loss, fraction, alpha, seed)
            scores = score(found, enhanced(fraction, seed).volumes(split), alpha)
            generator = sha256(generators(fraction, seed).weights)
            kind = {"loss": loss, "fraction": fraction, "alpha": alpha, "seed": seed}
            return {**kind, "generator_sha256": generator, **scores}

        return once(folder / "results" / f"{name}.json", train_and_test)

    # One generator after the other, whatever the order of the table.
    order = sorted(((kind, seed) for kind in kinds for seed in range(seeds)), key=lambda each: (each[0][1], each[1]))
    by_kind = {(kind, seed): result(*kind, seed) for kind, seed in order}
    results = [by_kind[kind, seed] for kind in kinds for seed in range(seeds)]
    for alpha in [alpha for alpha in alphas if alpha][:1]:
        picture = folder / f"segmentations_alpha={alpha:g}.png"
        if not picture.is_file():
            plain, strong = (segmentor(losses[0], max(fractions), degree, 0) for degree in (0.0, alpha))
            write_segmentations(picture, enhanced(max(fractions), 0).volumes(split), plain, strong, alpha)
    frame = _with_gains(results)
    page = _page(frame, seeds, split, results[0], scale)
    write_study(folder, page, frame, results, lambda path: _figure(frame).savefig(path, dpi=150))
    return page


def _check(
    run: Bundle,
    cohort: Path,
    alphas: Sequence[float],
    fractions: Sequence[float],
    losses: Sequence[str],
    split: str,
) -> None:
    """Refuse what cannot be studied, before anything is written."""
    if 0 not in alphas:
        raise UsageError(f"--alphas: found {list(alphas)}, expected 0 among them, which gains are measured against")
    for loss in set(losses) - set(LOSSES):
        raise UsageError(f"--losses: found {loss!r}, expected some of {', '.join(LOSSES)}")
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise UsageError(f"--fractions: found {fraction:g}, expected shares above 0 and at most 1")
    check_unseen(run, cohort, split)
    if min(fractions) < 1:
        require_run_of(run, cohort)


def _name(loss: str, fraction: float, alpha: float, seed: int) -> str:
    return f"{loss}_fraction={fraction:g}_alpha={alpha:g}_seed={seed}"


def score(segmentor: Judge, volumes: Sequence[tuple[Volume, Tensor]], alpha: float) -> dict[str, Any]:
    """How well a segmentor finds the lesions of enhanced slices, on the scans' own pixels.

    Args:
        segmentor: images on its grid to lesion logits.
        volumes: slices with x_s − x_p, shape (N, 1, H, W).
        alpha: degree of enhancement.

    Returns:
        `dice`, `precision` and `recall` of all pixels of all slices together; `dice_patients`, the mean over patients
        of the Dice of all their slices; `hd95_mm`, the mean over the `hd95_slices` slices in which a lesion is
        annotated and one was found. None where nothing was found to divide by.
    """
    pixels: dict[str, NDArray[np.int64]] = {}  # of each patient: in both, found, annotated
    distances: list[float] = []
    for volume, residual in volumes:
        found = segmentor.predict(volume.image - alpha * residual, volume.spacing_mm)
        lesion = volume.lesion
        counts = np.array([int((found & lesion).sum()), int(found.sum()), int(lesion.sum())])
        pixels[volume.patient] = pixels.get(volume.patient, np.zeros_like(counts)) + counts
        distances += [value for value in hd95(found, lesion, volume.spacing_mm).tolist() if not np.isnan(value)]
    overlap, predicted, annotated = np.sum(list(pixels.values()), axis=0).tolist()
    return {
        "dice": 2 * overlap / (predicted + annotated),
        "dice_patients": float(np.mean([2 * both / (one + other) for both, one, other in pixels.values()])),
        "precision": overlap / predicted if predicted else None,
        "recall": overlap / annotated,
        "hd95_mm": float(np.mean(distances)) if distances else None,
        "hd95_slices": len(distances),
        "patients": len(pixels),
        "slices": sum(len(volume.places) for volume, _ in volumes),
    }


def _with_gains(results: list[dict[str, Any]]) -> pd.DataFrame:
    """Mean and deviation over seeds, and those of the gain in Dice over α = 0 with the same seed."""
    plain = {(r["loss"], r["fraction"], r["seed"]): r["dice"] for r in results if r["alpha"] == 0}
    gains = [{**r, "gain": r["dice"] - plain[r["loss"], r["fraction"], r["seed"]]} for r in results]
    return over_seeds(gains, KEYS, [*COLUMNS, "gain"])


def _page(frame: pd.DataFrame, seeds: int, split: str, result: dict[str, Any], scale: Scale) -> str:
    alphas = list(dict.fromkeys(frame["alpha"]))
    rows = []
    for (loss, fraction), group in frame.groupby(["loss", "fraction"], sort=False):
        by_alpha = group.set_index("alpha")
        ranks = by_alpha["dice"].rank(ascending=False, method="min")
        cells = [_cell(by_alpha.loc[alpha], ranks[alpha]) for alpha in alphas]
        rows.append([f"{loss}, {fraction:.0%} of patients", *cells])
    everything = [
        [f"{row['loss']}, {row['fraction']:.0%}, α = {row['alpha']:g}"]
        + [mean_sd(row, metric, digits) for metric, (_, digits) in COLUMNS.items()]
        for _, row in frame.iterrows()
    ]
    reading = (
        "Dice of all pixels of all slices, and in brackets its gain over α = 0 with the same seed; **best** and "
        "<u>second</u> of each row, α = 0 included:"
    )
    tested = (
        f"Mean ± standard deviation over {seeds} trainings with different seeds, on the {result['slices']} "
        f"pathological and healthy slices of the {result['patients']} patients of the {split} split, enhanced as "
        "x_p + α (x_p − x_s) without clipping. HD95 is a mean over slices in which a lesion is annotated and one was "
        "found."
    )
    trained_with = (
        f"U-Net of {scale.filters} filters on pixels of {scale.spacing_mm:g} mm; as many iterations as "
        f"{scale.epochs} epochs of all training patients take, whatever share of them was used. Its generator learned "
        "from no other patients of this cohort."
    )
    gains = table(["segmentor trained with", *(f"α = {alpha:g}" for alpha in alphas)], rows)
    metrics = table(["segmentor", *(heading for heading, _ in COLUMNS.values())], everything)
    return f"{reading}\n\n{gains}\n\n{metrics}\n\n{tested}\n\n{trained_with}"


def _cell(row: pd.Series, rank: float) -> str:
    text = mean_sd(row, "dice", 3)
    if row.name != 0:
        deviation = "" if pd.isna(row["gain_sd"]) else f" ± {row['gain_sd']:.3f}"
        text += f" ({row['gain']:+.3f}{deviation})"
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(int(rank), text)


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    shares = sorted(frame["fraction"].unique())
    figure = Figure(figsize=(4.5 * (2 + (len(shares) > 1)), 3.5), layout="constrained")
    left, right, *more = figure.subplots(1, 2 + (len(shares) > 1))
    for (loss, fraction), group in frame.groupby(["loss", "fraction"], sort=False):
        for axes, metric in ((left, "dice"), (right, "gain")):
            label = f"{loss}, {fraction:.0%} of patients"
            axes.errorbar(group["alpha"], group[metric], yerr=group[f"{metric}_sd"], marker="o", capsize=3, label=label)
    right.axhline(0, color="grey", linewidth=0.8)
    for axes, title in ((left, COLUMNS["dice"][0]), (right, "gain over α = 0")):
        axes.set_xlabel("α")
        axes.set_title(title, fontsize="medium")
    left.legend(fontsize="small")
    for axes in more:
        for (loss, alpha), group in frame.sort_values("fraction").groupby(["loss", "alpha"], sort=False):
            axes.errorbar(
                *(group["fraction"], group["dice"]), yerr=group["dice_sd"], marker="o", capsize=3,
                label=f"{loss}, α = {alpha:g}",
            )  # fmt: skip
        axes.set_xlabel("share of training patients")
        axes.set_title(COLUMNS["dice"][0], fontsize="medium")
        axes.legend(fontsize="small")
    return figure
