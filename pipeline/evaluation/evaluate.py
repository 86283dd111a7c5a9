"""Score a trained method on a preprocessed cohort, beside controls."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pipeline import RESEARCH_ONLY, __version__
from pipeline.errors import UsageError
from pipeline.evaluation.bracketed import bracketed_a_dice
from pipeline.evaluation.controls import CONTROLS, UNTOUCHED
from pipeline.evaluation.judge import ITERATIONS, SEED, Judge, load_judge
from pipeline.evaluation.probes import Hallucination, Steganography
from pipeline.evaluation.scores import DEFINITIONS, score_methods, score_slices, score_volumes
from pipeline.evaluation.twins import FOLDER as TWINS
from pipeline.evaluation.twins import Twins, write_twins
from pipeline.evaluation.volumes import HEALTHY, Volume, pathological_subjects, read_volume, subjects_with
from pipeline.files import sha256
from pipeline.inference import Translator
from pipeline.metrics import ms_ssim_padding
from pipeline.preprocessing.cohort_format import COHORT_FILE, Subject
from pipeline.reports.evaluation_report import Case, write_report

RESERVED = (*CONTROLS, "original", "healthy", "original images", "healthy slices, random masks")


def evaluate(
    synthesizer: Translator,
    cohort_dir: Path,
    report_dir: Path,
    name: str,
    provenance: dict[str, Any],
    split: str = "test",
    judge_iterations: int = ITERATIONS,
    overwrite: bool = False,
    cycle: nn.Module | None = None,
    a_dice_seeds: Sequence[int] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Identity, fidelity and healthiness of a method and of the controls, on the pathological slices of a split.

    Images are compared on the scans' own pixels, with the method's residual carried there as `synthesize` does. One
    volume is in memory at a time.

    Args:
        synthesizer: the trained method; its device is used throughout.
        cohort_dir: folder made by `phs-pipeline preprocess`; the judge is kept in its folder `judge`.
        report_dir: receives slices.csv, patients.csv, summary.json, report.md, cases.png, and in `twins/` the images.
        name: of the method, in tables.
        provenance: where the method comes from (bundle, hashes), for the summary.
        split: `training`, `validation` or `test`.
        judge_iterations: of the judge's training.
        overwrite: write into a folder that holds something.
        cycle: the method's way back, for the steganography probe; None where it has none.
        a_dice_seeds: seeds of the A-Dice trainings; without any, A-Dice is not measured.
        progress: called with (volumes done, volumes in all).

    Returns:
        The content of `summary.json`.

    Raises:
        UsageError: if the split has no pathological slice, or the report's folder is not empty.
    """
    cohort_dir, report_dir = Path(cohort_dir), Path(report_dir)
    if report_dir.exists() and not overwrite and (not report_dir.is_dir() or any(report_dir.iterdir())):
        raise UsageError(f"{report_dir}: exists and is not empty; choose another folder, or give --overwrite")
    if name in RESERVED:
        raise UsageError(f"{name}: is what a row of every table is called; give the method another name")
    records = pathological_subjects(cohort_dir, split)
    judge = load_judge(cohort_dir, SEED, judge_iterations, synthesizer.device)

    rows: list[dict[str, Any]] = []
    padding: dict[tuple[int, int], tuple[int, int]] = {}
    on_grid: list[tuple[Tensor, ...]] = []
    hallucination = Hallucination()
    steganography = Steganography(synthesizer, cycle) if cycle is not None else None
    for done, record in enumerate(records, start=1):
        volume = read_volume(cohort_dir, record)
        twin = pseudo_healthy(synthesizer, volume)
        rows += score_slices(name, twin, volume, judge)
        write_twins(report_dir / TWINS, _twins(volume, twin))
        hallucination.add("outside_lesion", volume, twin)
        if steganography is not None:
            steganography.add(volume)
        filled = {name: make(volume.image, volume.lesion, volume.foreground) for name, make in CONTROLS.items()}
        for control, image in filled.items():
            rows += score_slices(control, image.to(judge.device), volume, judge)
        if a_dice_seeds:
            images = (twin.cpu(), *filled.values())
            on_grid.append(
                (
                    judge.grid.masks(volume.lesion.float(), volume.spacing_mm),
                    *(judge.grid.images(image, volume.spacing_mm) for image in images),
                )
            )
        height, width = volume.image.shape[-2:]
        padding[height, width] = ms_ssim_padding(height, width)
        if progress:
            progress(done, len(records))

    for record in subjects_with(cohort_dir, split, HEALTHY):
        volume = read_volume(cohort_dir, record, HEALTHY)
        hallucination.add("healthy_slices", volume, pseudo_healthy(synthesizer, volume))

    slices = pd.DataFrame(rows)
    volumes = score_volumes(slices)
    cases = _cases(volumes[volumes["method"] == name], records, cohort_dir, synthesizer, judge)
    of_method = slices[slices["method"] == name]
    summary = {
        "format": 1,
        "pipeline_version": __version__,
        "warning": RESEARCH_ONLY,
        "method": name,
        "provenance": provenance,
        "device": str(synthesizer.device),
        "cohort": {
            "sha256": sha256(cohort_dir / COHORT_FILE),
            "split": split,
            "patients": int(of_method["patient"].nunique()),
            "volumes": int(of_method["subject"].nunique()),
            "slices": len(of_method),
        },
        "methods": score_methods(volumes),
        "judge": judge.about,
        "probes": {
            "hallucination": hallucination.summary(),
            "steganography": steganography.summary() if steganography is not None else None,
        },
        "a_dice": None,
        "ms_ssim_padding": [
            {"slice": list(shape), "added": list(added)} for shape, added in padding.items() if any(added)
        ],
        "cases": [{"title": case.title, "subject": case.subject, "slice": case.place} for case in cases],
        "definitions": DEFINITIONS,
    }
    if a_dice_seeds:
        lesions, twins, *others = (torch.cat(parts) for parts in zip(*on_grid, strict=True))
        controls = dict(zip(CONTROLS, others, strict=True))
        summary["a_dice"] = bracketed_a_dice(
            name,
            twins,
            controls.pop(UNTOUCHED),
            lesions,
            judge.grid,
            cohort_dir,
            split,
            a_dice_seeds,
            synthesizer.device,
            controls,
        )
    write_report(report_dir, summary, slices, volumes, cases)
    return summary


def pseudo_healthy(synthesizer: Translator, volume: Volume) -> Tensor:
    """x_s = x_p + residual inside the foreground, in [0, 1], shape (N, 1, H, W), on the synthesizer's device."""
    residual = torch.from_numpy(synthesizer.residual(volume.image.numpy(), volume.voxel_mm))[:, None]
    return (volume.image + residual * volume.foreground).clamp(0, 1).to(synthesizer.device)


def _twins(volume: Volume, twin: Tensor) -> Twins:
    image, lesion, foreground = (t[:, 0].numpy() for t in (volume.image, volume.lesion, volume.foreground))
    return Twins(
        subject=volume.subject,
        places=np.asarray(volume.places),
        image=image,
        twin=twin[:, 0].cpu().numpy(),
        lesion=lesion,
        foreground=foreground,
        spacing_mm=volume.spacing_mm,
    )


def _cases(
    volumes: pd.DataFrame,
    records: list[Subject],
    cohort_dir: Path,
    synthesizer: Translator,
    judge: Judge,
) -> list[Case]:
    """Best, median and worst volume by healthiness, each by the slice with its largest lesion."""
    ordered = volumes.sort_values("healthiness", ascending=False, kind="stable").reset_index(drop=True)
    last = len(ordered) - 1
    # In this order, so that one or two volumes are called best and worst.
    chosen = {0: "best", last: "worst"} if last < 2 else {0: "best", last // 2: "median", last: "worst"}
    by_subject = {record.subject: record for record in records}
    cases = []
    for rank, title in chosen.items():
        row = ordered.iloc[rank]
        volume = read_volume(cohort_dir, by_subject[row["subject"]])
        largest = int(volume.lesion.sum(dim=(1, 2, 3)).argmax())
        image = pseudo_healthy(synthesizer, volume)[largest : largest + 1]
        cases.append(
            Case(
                title=title,
                subject=volume.subject,
                place=volume.places[largest],
                healthiness=float(row["healthiness"]),
                image=volume.image[largest, 0].numpy(),
                lesion=volume.lesion[largest, 0].numpy(),
                pseudo_healthy=image[0, 0].cpu().numpy(),
                predicted=judge.predict(image, volume.spacing_mm)[0, 0].cpu().numpy(),
                spacing_mm=volume.spacing_mm,
            )
        )
    return cases
