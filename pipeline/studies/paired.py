"""Paired translation (survey Sections 3.1 and 5.2, Eq. 6): the three cases of λ, and patches against whole images.

The same generator is trained with the L1 term alone, with a discriminator alone, and with both; with both, the
discriminator scores patches of 16, 34 or 70 pixels, or the whole image. Beside them stand the source as it is and two
maps of its intensities. The task is another modality or sketch of the same slice, or the same slice with noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pipeline.devices import pick_device
from pipeline.files import sha256
from pipeline.methods import PairedTranslation
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.reports.markdown import table
from pipeline.studies.paired_slices import (
    DEFINITIONS,
    METRICS,
    Output,
    Pairs,
    Sample,
    Scale,
    Translations,
    about,
    control_scores,
    read_pairs,
    settings_of,
)
from pipeline.studies.study import mean_sd, open_study, over_seeds, write_study

LEGEND = "SYNTHETIC - not for diagnosis; the target's lesion outlined"


@dataclass(frozen=True)
class Case:
    """One row of the table that is trained.

    Args:
        lambda_gan: λ₁.
        lambda_l1: λ₂.
        strided: layers of the discriminator that set the patch it sees.
        whole_image: whether it scores the whole image instead.
    """

    lambda_gan: float = 1.0
    lambda_l1: float = 100.0
    strided: int = 2
    whole_image: bool = False

    def method(self, scale: Scale, sources: int, output: Output) -> PairedTranslation:
        """With new networks."""
        discriminator = scale.discriminator(sources + 1, self.strided, self.whole_image) if self.lambda_gan else None
        return PairedTranslation(
            scale.generator(sources, output),
            discriminator,
            lambda_gan=self.lambda_gan,
            lambda_l1=self.lambda_l1,
        )


CASES = {
    "L1 alone": Case(lambda_gan=0.0),
    "adversarial alone": Case(lambda_l1=0.0),
    "both, patches of 16": Case(strided=1),
    "both, patches of 34": Case(),
    "both, patches of 70": Case(strided=3),
    "both, whole image": Case(strided=3, whole_image=True),
}


@dataclass(frozen=True)
class NoisyPairs(Pairs):
    """Pairs whose source is the target with noise, drawn anew each time from torch's global random state.

    Attributes:
        noise: standard deviation of both parts of the signal, in units of the window.
    """

    noise: float = 0.1

    def __getitem__(self, index: int) -> Sample:
        return {**super().__getitem__(index), "image": noisy(self.target_image[index], self.noise)}


def noisy(image: torch.Tensor, noise: float, draw: torch.Generator | None = None) -> torch.Tensor:
    """A magnitude image with Rician noise, as a scanner measures it: |x + n₁ + i n₂|, clipped to [0, 1]."""
    real, imaginary = (noise * torch.randn(image.shape, generator=draw) for _ in range(2))
    return torch.hypot(image + real, imaginary).clamp(0, 1)


def paired(
    cohort: Path,
    folder: Path,
    sources: Sequence[str],
    target: str,
    noise: float | None = None,
    seeds: int = 3,
    scale: Scale | None = None,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Train every case with each seed and measure it beside the controls.

    Started again, it skips what is finished and goes on with a training that was stopped; seeds may be added then.

    Args:
        cohort: folder made by `preprocess --channels`.
        folder: of the study.
        sources: channels to translate from, or `mask` and `edges`; ignored with noise.
        target: channel to translate into.
        noise: standard deviation of noise that is added to the target and to be taken away again; generators then
            predict the difference. None translates.
        seeds: trainings of each case.
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
            "study": "paired",
            "cohort_sha256": sha256(cohort / COHORT_FILE),
            "sources": list(sources) if noise is None else [],
            "target": target,
            "noise": noise,
            "split": split,
            **settings_of(scale),
        },
    )
    training, measured = (_pairs(cohort, part, scale, sources, target, noise) for part in ("training", split))
    rows = Translations(folder, measured, scale, pick_device(device))
    output: Output = "image" if noise is None else "residual"
    results = [{"seed": None, "seconds": None, **row} for row in control_scores(training, measured)]
    for seed in range(seeds):
        for name, case in CASES.items():
            build = partial(case.method, scale, training.image.shape[1], output)
            results.append(rows.result({"row": name, "seed": seed}, build, training, rows.scores))
    rows.write_pictures({name: {"row": name, "seed": 0} for name in CASES}, LEGEND)
    frame = over_seeds(results, ["row"], [*METRICS, "seconds"])
    page = _page(frame, f"{about(training, measured, scale, split, seeds)} {_task(sources, target, noise)}")
    write_study(folder, page, frame, results, lambda path: _figure(frame).savefig(path, dpi=150))
    return page


def _pairs(cohort: Path, split: str, scale: Scale, sources: Sequence[str], target: str, noise: float | None) -> Pairs:
    if noise is None:
        return read_pairs(cohort, split, scale.spacing_mm, sources, target)
    # A sketch is drawn from any target, so that no other channel is asked for; the noisy image takes its place.
    clean = read_pairs(cohort, split, scale.spacing_mm, ["mask"], target)
    fixed = noisy(clean.target_image, noise, torch.Generator().manual_seed(0))
    return NoisyPairs(fixed, clean.target_image, clean.mask, clean.patients, clean.spacing_mm, noise)


def _task(sources: Sequence[str], target: str, noise: float | None) -> str:
    if noise is None:
        return f"Task: {' and '.join(sources)} → {target}."
    return f"Task: {target} with Rician noise of {noise:g} of the window → {target}; generators predict the difference."


def _page(frame: pd.DataFrame, told: str) -> str:
    rows = [
        [row["row"], *(mean_sd(row, name, digits) for name, (_, digits) in METRICS.items()), _seconds(row)]
        for _, row in frame.iterrows()
    ]
    headings = ["", *(heading for heading, _ in METRICS.values()), "seconds"]
    return "\n\n".join([table(headings, rows), told, DEFINITIONS])


def _seconds(row: pd.Series) -> str:
    return "–" if pd.isna(row["seconds"]) else f"{row['seconds']:.0f}"


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for _, row in frame.iterrows():
        axes.errorbar(row["sharpness"], row["psnr"], row["psnr_sd"], row["sharpness_sd"], fmt="o", label=row["row"])
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("sharpness, 1 as the target")
    axes.set_ylabel("PSNR, dB")
    axes.legend(fontsize="small")
    return figure
