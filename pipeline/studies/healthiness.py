"""How far healthiness depends on the segmentor that judges it, by run and epoch (GVS, Section IV and Fig. 5a).

Several f_pre (PHS-GAN, Section 4.2) are trained with other seeds on the same patients and kept after each epoch; each
of them judges the same synthetic images.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from pipeline.bundles import Bundle
from pipeline.devices import pick_device
from pipeline.evaluation import Judge
from pipeline.evaluation.controls import UNTOUCHED
from pipeline.evaluation.judge import SCALES, SEED
from pipeline.evaluation.predictions import pseudo_healthy
from pipeline.evaluation.volumes import (
    HEALTHY,
    PATHOLOGICAL,
    cohort_grid,
    finest_spacing,
    pathological_subjects,
    read_volume,
)
from pipeline.files import sha256
from pipeline.inference import Translator
from pipeline.methods import Segmentation
from pipeline.metrics import healthiness_of_counts
from pipeline.preprocessing.cohort_format import COHORT_FILE, read_cohort
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset
from pipeline.reports.markdown import table
from pipeline.studies.study import judged_by, load_generators, once, open_study, write_study
from pipeline.studies.training import each_epoch, trained
from pipeline.training.single import BATCH_SIZE

logger = logging.getLogger(__name__)

EPOCHS = 20
LABELS = (PATHOLOGICAL, HEALTHY)


def healthiness(
    runs: Sequence[Bundle],
    cohort: Path,
    folder: Path,
    seeds: int = 3,
    epochs: int = EPOCHS,
    split: str = "validation",
    judge: str = "default",
    device: str = "auto",
) -> str:
    """Judge the images of trained generators, and the untouched input, by each epoch of several segmentors.

    Started again, it skips what is finished and goes on with a training that was stopped; seeds may be added then, all
    else stays.

    Args:
        runs: the trained generators, for example those of `study fraction`.
        cohort: folder made by `preprocess`.
        folder: of the study.
        seeds: segmentors, with the seeds 1234, 1235, …
        epochs: of their trainings.
        split: patients to judge.
        judge: how large they are, of `pipeline.evaluation.judge.SCALES`.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if a run was trained on patients of the split, or the folder holds another study.
    """
    generators, provenance = load_generators(runs, cohort, split, device)
    scale = SCALES[judge]
    grid = cohort_grid(cohort, scale.spacing_mm or finest_spacing(cohort))
    settings = {"generators": provenance, "cohort_sha256": sha256(cohort / COHORT_FILE), "split": split}
    open_study(folder, {"study": "healthiness", **settings, "epochs": epochs, "judge": judge})
    content = read_cohort(cohort)
    iterations = epochs * -(-sum(content.slices("training", label) for label in LABELS) // BATCH_SIZE)
    target = pick_device(device)

    def result(seed: int) -> dict[str, Any]:
        def train_and_judge() -> dict[str, Any]:
            logger.info("segmentor %d of %d", seed + 1, seeds)
            place = folder / "segmentors" / f"seed={seed}"
            trained(
                place,
                lambda: Segmentation(scale.build()),
                lambda: SliceDataset(cohort, "training", grid, LABELS),
                iterations,
                SEED + seed,
                target,
                keep_every=1,
            )
            networks = each_epoch(place, scale.build, target)
            return {"seed": seed, "rows": _judged(networks, generators, cohort, split, grid, target)}

        return once(folder / "results" / f"seed={seed}.json", train_and_judge)

    results = [result(seed) for seed in range(seeds)]
    frame = pd.DataFrame([{"seed": found["seed"], **row} for found in results for row in found["rows"]])
    page = f"{_page(frame, split)}\n\n{judged_by(scale)}"
    write_study(folder, page, frame, results, lambda path: _figure(frame).savefig(path, dpi=150))
    return page


def _judged(
    networks: Mapping[int, nn.Module],
    generators: Mapping[str, Translator],
    cohort: Path,
    split: str,
    grid: Grid,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Healthiness, all slices pooled, of each generator's images at each epoch, and the segmentor's own Dice then."""
    judges = {epoch: Judge(network, grid, device, {}) for epoch, network in networks.items()}
    images = [UNTOUCHED, *generators]
    predicted = {(epoch, name): 0 for epoch in judges for name in images}
    overlap = dict.fromkeys(judges, 0)
    annotated = 0
    for record in pathological_subjects(cohort, split):
        volume = read_volume(cohort, record)
        annotated += int(volume.lesion.sum())
        made = {name: pseudo_healthy(generator, volume).cpu() for name, generator in generators.items()}
        for name, image in {UNTOUCHED: volume.image, **made}.items():
            for epoch, judge in judges.items():
                found = judge.predict(image, volume.spacing_mm)
                predicted[epoch, name] += int(found.sum())
                if name == UNTOUCHED:
                    overlap[epoch] += int((found & volume.lesion).sum())
    return [
        {
            "epoch": epoch,
            "images": name,
            "healthiness": healthiness_of_counts(predicted[epoch, name], annotated),
            "dice": 2 * overlap[epoch] / (predicted[epoch, UNTOUCHED] + annotated),
        }
        for epoch in judges
        for name in images
    ]


def _page(frame: pd.DataFrame, split: str) -> str:
    last = frame["epoch"].max()
    end = frame[frame["epoch"] == last]
    rows = []
    for name, group in frame.groupby("images", sort=False):
        at_end = end.loc[end["images"] == name, "healthiness"]
        spread = "" if len(at_end) < 2 else f" ± {at_end.std(ddof=1):.3f}"
        later = group.loc[group["epoch"] > last // 2, "healthiness"]
        rows.append([str(name), f"{at_end.mean():.3f}{spread}", f"{later.min():.3f} … {later.max():.3f}"])
    trainings, dice = end["seed"].nunique(), end[end["images"] == UNTOUCHED]["dice"]
    head = [
        "images",
        f"healthiness after {last} epochs, mean ± sd over {trainings} segmentors",
        f"lowest … highest, epochs {last // 2 + 1} to {last}",
    ]
    note = (
        f"Healthiness of all pathological slices of the {split} split together, judged by segmentors that differ in "
        f"their seed alone; after {last} epochs their own Dice on the untouched slices is {dice.min():.3f} to "
        f"{dice.max():.3f}. Where the ranges of two rows overlap, the choice of segmentor and epoch decides which of "
        "them is called healthier (GVS, Section IV). Every epoch of every segmentor is in `table.csv`."
    )
    return f"{table(head, rows)}\n\n{note}"


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(frame["images"]))
    figure = Figure(figsize=(3.4 * len(names), 3), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for place, name in zip(axes, names, strict=True):
        for seed, group in frame[frame["images"] == name].groupby("seed"):
            place.plot(group["epoch"], group["healthiness"], marker=".", label=f"segmentor {int(seed) + 1}")
        place.set_title(name, fontsize="medium")
        place.set_xlabel("epoch of the segmentor")
        place.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("healthiness")
    axes[0].legend(fontsize="small")
    return figure
