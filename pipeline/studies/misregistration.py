"""Paired against unpaired translation where pairs do not lie on each other (survey Sections 3.2 and 5.2).

The survey's argument: regression of misaligned pairs (MR → CT) predicts a blurred image, since like sources go with
unlike targets; methods that need no pairs do not mind. Here the pairs are aligned, and the training targets are shifted
by known amounts, each in a direction of its own, to whole pixels so that nothing is interpolated. Errors are measured
against the aligned truth.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.devices import pick_device
from pipeline.files import sha256
from pipeline.methods import Method, PairedTranslation
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.reports.markdown import table
from pipeline.studies.paired_slices import (
    DEFINITIONS,
    METRICS,
    Pairs,
    Scale,
    Translations,
    Unpaired,
    about,
    control_scores,
    read_pairs,
    settings_of,
)
from pipeline.studies.study import mean_sd, open_study, over_seeds, write_study

SHIFTS = (0, 1, 2, 4)
REGRESSION, BOTH, SELF, CYCLE = "regression (L1)", "pix2pix", "self-regularised, unpaired", "CycleGAN, unpaired"
METHODS = (REGRESSION, BOTH, SELF, CYCLE)
LEGEND = "SYNTHETIC - not for diagnosis; trained on the largest shift"


def misregistration(
    cohort: Path,
    folder: Path,
    source: str,
    target: str,
    shifts: Sequence[float] = SHIFTS,
    seeds: int = 3,
    lambda_self: float = 1.0,
    scale: Scale | None = None,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Train paired and unpaired methods on pairs shifted by each amount, with each seed.

    Started again, it skips what is finished and goes on with a training that was stopped; shifts and seeds may be added
    then.

    Args:
        cohort: folder made by `preprocess --channels`.
        folder: of the study.
        source: channel to translate from.
        target: channel to translate into.
        shifts: of the training targets, in pixels of the grid.
        seeds: trainings of each method at each shift; each also draws the directions.
        lambda_self: λ of the self-regularised method (Eq. 8).
        scale: of networks and trainings.
        split: patients to measure on.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if the cohort has no such pairs, or the folder holds another study.
    """
    scale = scale or Scale()
    open_study(
        folder,
        {
            "study": "misregistration",
            "cohort_sha256": sha256(cohort / COHORT_FILE),
            "source": source,
            "target": target,
            "lambda_self": lambda_self,
            "split": split,
            **settings_of(scale),
        },
    )
    training, measured = (read_pairs(cohort, part, scale.spacing_mm, [source], target) for part in ("training", split))
    rows = Translations(folder, measured, scale, pick_device(device))
    results: list[dict[str, Any]] = []
    for seed in range(seeds):
        for shift in shifts:
            moved = shifted(training, shift, seed)
            results += [{"shift": shift, "seed": seed, **row} for row in control_scores(moved, measured)]
            for name, (build, data) in _methods(scale, moved, lambda_self).items():
                keys = {"row": name, "shift": shift, "seed": seed}
                results.append(rows.result(keys, build, data, rows.scores))
    shown = {name: {"row": name, "shift": max(shifts), "seed": 0} for name in METHODS}
    rows.write_pictures(shown, LEGEND)
    frame = over_seeds(results, ["row", "shift"], list(METRICS)).sort_values("shift", kind="stable")
    page = _page(frame, f"{about(training, measured, scale, split, seeds)} Task: {source} → {target}.", lambda_self)
    write_study(folder, page, frame, results, lambda path: _figure(frame).savefig(path, dpi=150))
    return page


def shifted(pairs: Pairs, shift: float, seed: int) -> Pairs:
    """Pairs whose targets are moved by so many pixels, each in a direction of its own, rounded to whole pixels.

    What comes in at the border is air. The masks stay where they are: they are of the source.

    Args:
        pairs: aligned.
        shift: in pixels, 0 or more.
        seed: of the directions.
    """
    angles = np.random.default_rng([seed, 1]).uniform(0, 2 * math.pi, len(pairs))
    moved = [
        _moved(image, round(shift * math.cos(angle)), round(shift * math.sin(angle)))
        for image, angle in zip(pairs.target_image, angles, strict=True)
    ]
    return replace(pairs, target_image=torch.stack(moved))


def _moved(image: Tensor, rows: int, columns: int) -> Tensor:
    out = torch.zeros_like(image)
    height, width = image.shape[-2:]
    there = [slice(max(0, by), length + min(0, by)) for by, length in ((rows, height), (columns, width))]
    here = [slice(max(0, -by), length - max(0, by)) for by, length in ((rows, height), (columns, width))]
    out[:, there[0], there[1]] = image[:, here[0], here[1]]
    return out


def _methods(
    scale: Scale, moved: Pairs, lambda_self: float
) -> dict[str, tuple[Callable[[], Method], torch.utils.data.Dataset[dict[str, Tensor]]]]:
    """By name how each is built, and what it is trained on."""
    unpaired = Unpaired(moved.image, moved.target_image)
    return {
        REGRESSION: (scale.regression, moved),
        BOTH: (lambda: PairedTranslation(scale.generator(), scale.discriminator(2)), moved),
        SELF: (partial(scale.self_regularised, lambda_self), unpaired),
        CYCLE: (partial(scale.cycle_gan, moved.size), unpaired),
    }


def _page(frame: pd.DataFrame, told: str, lambda_self: float) -> str:
    rows = [
        [f"{row['shift']:g}", row["row"], *(mean_sd(row, name, digits) for name, (_, digits) in METRICS.items())]
        for _, row in frame.iterrows()
    ]
    notes = (
        "Training targets were shifted, each in a direction of its own, to whole pixels; errors are against the "
        "aligned truth. Unpaired methods saw the same images in another order; λ of Eq. 8 is "
        f"{lambda_self:g}, CycleGAN has no identity loss."
    )
    return "\n\n".join([table(["shift, pixels", "", *(heading for heading, _ in METRICS.values())], rows), told, notes,
                        DEFINITIONS])  # fmt: skip


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("psnr", "sharpness"), strict=True):
        for row, group in frame.groupby("row", sort=False):
            axes.errorbar(group["shift"], group[name], group[f"{name}_sd"], marker="o", capsize=2, label=row)
        axes.set_xlabel("shift of the training targets, pixels")
        axes.set_ylabel(METRICS[name][0].removesuffix(" ↑"))
    figure.axes[0].legend(fontsize="x-small")
    return figure
