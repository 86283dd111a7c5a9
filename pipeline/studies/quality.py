"""Whether an adversary makes degraded images better, or only sharper (survey, Sections 5.3 and 6).

Real slices are degraded in known ways and restored by networks of one architecture under three losses, beside
classical controls: how close to the truth they come (distortion), how like true images they look (perception; Blau and
Michaeli 2018 show that the two compete), and what becomes of lesions.
"""

import itertools
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from pipeline.devices import pick_device
from pipeline.errors import UsageError
from pipeline.evaluation.probes import AREA_MM2, regions
from pipeline.files import sha256
from pipeline.metrics import psnr, ssim
from pipeline.metrics.generation import frechet_distance
from pipeline.metrics.restoration import KEPT, lesion_contrast_kept, planted_kept
from pipeline.mosaic import body_box, difference, grey, mosaic, outlined, save_png
from pipeline.phantoms.small_lesions import ADDED, DIAMETERS_MM
from pipeline.preprocessing.cohort_format import COHORT_FILE, read_cohort
from pipeline.preprocessing.degradation import ThickSlices
from pipeline.preprocessing.degraded import LABELS, DegradedDataset, Run
from pipeline.preprocessing.foreground import AIR, foreground
from pipeline.preprocessing.slices import SliceDataset
from pipeline.reports.markdown import count, escaped, table
from pipeline.studies.feature_network import FeatureNetwork, of_places
from pipeline.studies.pictures import spread
from pipeline.studies.quality_methods import TASKS, Row, Scale, Setting, rows_of
from pipeline.studies.study import file_name, mean_sd, once, open_study, over_seeds, write_study

logger = logging.getLogger(__name__)

# Column, heading, digits.
COLUMNS = {
    "psnr": ("PSNR, dB ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "fid": ("Fréchet distance ↓", 2),
    "lesion_kept": ("lesion contrast kept, %", 0),
    "planted_kept": ("planted lesions: contrast kept, %", 0),
    "planted_lost": ("lost, % ↓", 0),
    "appeared": ("regions appeared, a slice ↓", 2),
    "vanished": ("vanished, a slice ↓", 2),
}
# Of the difference to the truth: a planted lesion of 7 mm that is lost whole has twice as much after the same blur.
BLUR_MM, STANDS_OUT = 3.0, 0.05
SHOWN = 4
LEGEND = "SYNTHETIC - not for diagnosis; below each image its difference to the truth: orange too dark, blue too bright"


def quality(
    cohort: Path,
    folder: Path,
    tasks: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    seeds: int = 3,
    scale: Scale | None = None,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Train every restoration of each task with several seeds, and measure them beside the controls.

    Started again, it skips what is finished and goes on with a training that was stopped; seeds may be added then.
    `runs/` holds the trainings, `results/` what was measured, `pictures_<task>.png` slices.

    Args:
        cohort: folder made by `preprocess`.
        folder: of the study.
        tasks: some of `TASKS`; None: all that the cohort has slices for.
        channels: the channel to restore, then one that networks are shown beside it in the task k-space; None: the
            cohort's first two, or its only one.
        seeds: trainings of each restoration.
        scale: sizes; `Scale()` if None.
        split: whose patients are measured.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if a task or channel is none, the cohort has no slices for a task, or the folder holds another
            study.
    """
    scale = scale or Scale()
    tasks = _possible(cohort, tasks, scale, split)
    chosen = tuple(channels or read_cohort(cohort).channels[:2] or ("image",))
    settings = {
        "study": "quality",
        "cohort_sha256": sha256(cohort / COHORT_FILE),
        "channels": list(chosen),
        "split": split,
        "scale": asdict(scale),
    }
    open_study(folder, settings)
    where = pick_device(device)
    judge: FeatureNetwork | None = None
    results: list[dict[str, Any]] = []
    for name in tasks:
        setting = Setting(TASKS[name], cohort, folder, chosen, split, scale, where)
        judge = judge or _judge(setting)
        rows = rows_of(setting)
        # Seeds outermost: what is stopped has whole ones.
        for seed, row in itertools.product(range(seeds), rows):
            if seed and not row.seeded:
                continue
            logger.info("%s: %s, seed %d", name, row.name, seed)
            path = folder / "results" / f"{name}_{file_name(row.name)}_seed={seed}.json"
            results.append(once(path, partial(_measured, setting, row, seed, judge)))
        _write_pictures(folder / f"pictures_{name}.png", setting, {row.name: _shown(setting, row) for row in rows})
    frame = over_seeds(results, ["task", "restoration"], list(COLUMNS))
    assert judge is not None  # noqa: S101 (there is a task)
    page = _page(frame, results, setting, seeds, judge.name)
    write_study(folder, page, frame, results, lambda path: _figure(results).savefig(path, dpi=150))
    return page


def _possible(cohort: Path, tasks: Sequence[str] | None, scale: Scale, split: str) -> list[str]:
    """The tasks that are asked for, or those for which there are scans to train on and to measure.

    Raises:
        UsageError: if one that is asked for is none, or has no scans.
    """
    unknown = [name for name in tasks or () if name not in TASKS]
    if unknown:
        raise UsageError(f"--task: found {', '.join(unknown)}, expected some of {', '.join(TASKS)}")
    subjects, possible = read_cohort(cohort).subjects, []
    for name in tasks or TASKS:
        degradation = TASKS[name].degradation(scale)
        thickest = degradation.thickest_mm if isinstance(degradation, ThickSlices) else math.inf
        there = {subject.split for subject in subjects if subject.spacing_mm[0] <= thickest}
        if {"training", split} <= there:
            possible.append(name)
            continue
        lacks = (
            f"{cohort}: has no scan with slices of at most {thickest:g} mm for {name} in the "
            f"{split if 'training' in there else 'training'} split"
        )
        if tasks:
            raise UsageError(f"{lacks}, expected some; leave --task {name} out, or choose another cohort or --split")
        logger.warning("%s, so it is left out", lacks)
    if not possible:
        raise UsageError(f"{cohort}: has no scans in the training and {split} splits, expected some of each")
    return possible


def _judge(setting: Setting) -> FeatureNetwork:
    """Whose features the Fréchet distance is of: no restoration is trained by them."""
    scale, run = setting.scale, setting.folder / "runs" / "judge"
    clean = SliceDataset(setting.cohort, "training", scale.grid, LABELS, channels=setting.channels[:1])
    return of_places(run, clean, scale.judge_filters, scale.judge_steps, setting.device)


def _measured(setting: Setting, row: Row, seed: int, judge: FeatureNetwork) -> dict[str, Any]:
    """What a restoration makes of the split's scans, each patient with equal weight."""
    started = time.monotonic()
    restore = row.restore(setting, seed)
    seconds = time.monotonic() - started
    slices = setting.slices(setting.split, row.channels)
    scans, made, true = [], [], []
    for number, run in enumerate(slices.runs):
        given = slices.scan(run)
        restored = restore(given["image"])
        scans.append(
            {"patient": run.subject.patient, **_of_scan(setting, slices, run, number, given, restored, restore)}
        )
        made.append(restored)
        true.append(given["target_image"])
    numbers = [name for name in COLUMNS if name != "fid"]
    frame = pd.DataFrame(scans).astype(dict.fromkeys(numbers, float))
    patients = frame.groupby("patient")[numbers].mean()
    means = {name: None if math.isnan(value := float(patients[name].mean())) else value for name in numbers}
    return {
        "task": setting.task.name,
        "restoration": row.name,
        "seed": seed,
        **means,
        "fid": frechet_distance(judge(torch.cat(made))[0], judge(torch.cat(true))[0]),
        "patients": len(patients),
        "scans": len(scans),
        "slices": sum(len(one) for one in true),
        "of_patients": {str(name): values for name, values in patients["psnr"].items()},
        "seconds": round(seconds, 1),
    }


def _of_scan(
    setting: Setting,
    slices: DegradedDataset,
    run: Run,
    number: int,
    given: Mapping[str, Tensor],
    restored: Tensor,
    restore: Any,
) -> dict[str, float]:
    """All numbers of one scan but those of distributions."""
    truth, mask, mm = given["target_image"], given["mask"], setting.scale.spacing_mm
    inside = torch.from_numpy(foreground(truth[:, 0].numpy()))[:, None]
    some = inside.flatten(1).any(dim=1)
    change = (restored - truth)[:, 0].numpy()
    seen = inside[:, 0].numpy()
    planted, numbers = setting.planted(number, run, given)
    kept = planted_kept(restore(slices.scan(run, planted)["image"]), restored, planted, numbers)
    return {
        "psnr": float(psnr(restored, truth, inside)[some].clamp_max(MOST_DB).mean()),
        "ssim": float(ssim(restored, truth, inside)[some].mean()),
        "lesion_kept": 100 * lesion_contrast_kept(restored, truth, mask, inside, (mm, mm)),
        "planted_kept": 100 * float(kept.mean()),
        "planted_lost": 100 * float((kept < KEPT).float().mean()),
        "appeared": _structures(change, seen, mm),
        "vanished": _structures(-change, seen, mm),
    }


def _structures(change: NDArray[np.float32], inside: NDArray[np.bool_], mm: float) -> float:
    """Regions of a slice that are brighter, on average; blurred first, so that noise and soft edges do not count."""
    blurred = ndimage.gaussian_filter(change * inside, (0, BLUR_MM / mm, BLUR_MM / mm))
    return float(
        np.mean([regions(seen & (one > STANDS_OUT), mm**2) for one, seen in zip(blurred, inside, strict=True)])
    )


MOST_DB = 80.0  # a slice that came back to the bit would have an infinite PSNR


def _shown(setting: Setting, row: Row) -> Tensor:
    """Some slices of the split, each a scan's with the largest lesion, restored with the first seed (N, 1, H, W)."""
    slices, restore = setting.slices(setting.split, row.channels), row.restore(setting, 0)
    return torch.cat([restore(slices.scan(run)["image"][place : place + 1]) for run, place in _places(setting)])


def _places(setting: Setting) -> list[tuple[Run, int]]:
    slices = setting.slices(setting.split)
    chosen = []
    for run in spread(slices.runs, SHOWN):
        areas = np.asarray(slices.clean.masks[run.first : run.end]).sum(axis=(1, 2, 3))
        chosen.append((run, int(areas.argmax()) if areas.any() else len(areas) // 2))
    return chosen


def _write_pictures(path: Path, setting: Setting, restored: Mapping[str, Tensor]) -> None:
    """Truth with the lesion's outline and every restoration; below each its difference to the truth."""
    slices, rows = setting.slices(setting.split), []
    for number, (run, place) in enumerate(_places(setting)):
        scan = slices.scan(run)
        truth, mask = scan["target_image"][place, 0].numpy(), scan["mask"][place, 0].numpy()
        body = body_box(truth > AIR)
        images = [one[number, 0].numpy()[body] for one in restored.values()]
        rows.append([outlined(truth[body], mask[body]), *map(grey, images)])
        rows.append([grey(np.zeros_like(truth[body])), *(difference(truth[body] - one) for one in images)])
    save_png(path, mosaic(["truth", *restored], rows, LEGEND))


def _page(frame: pd.DataFrame, results: Sequence[dict[str, Any]], setting: Setting, seeds: int, judge: str) -> str:
    scale, parts = setting.scale, []
    for task, part in frame.groupby("task", sort=False):
        ours = [result for result in results if result["task"] == task]
        first = ours[0]
        head = f"### {task} ({count(first['patients'], 'patient')}, {count(first['slices'], 'slice')})"
        rows = [
            [escaped(row["restoration"]), *(mean_sd(row, name, digits) for name, (_, digits) in COLUMNS.items()),
             f"{np.mean([r['seconds'] for r in ours if r['restoration'] == row['restoration']]):.0f}"]
            for _, row in part.iterrows()
        ]  # fmt: skip
        headings = ["", *(heading for heading, _ in COLUMNS.values()), "s"]
        parts.append(f"{head}\n\n{table(headings, rows)}\n\n{_verdict(part)}")
    over = (
        f"Mean ± deviation over {count(seeds, 'seed')} of means over the {setting.split} patients, each with the same "
        "weight; controls have no seed. PSNR (peak 1) and SSIM over head or body against the slice before it was "
        f"degraded. The Fréchet distance is between restored and true slices, by features of {judge}; it compares the "
        "rows of a task and nothing else. Lesion contrast: mean of the drawn lesion less that of its surroundings, "
        "restored over true (100: kept, below: faded, above: exaggerated)."
    )
    probe = (
        f"Hallucination probe: up to {scale.planted} soft balls of {DIAMETERS_MM[0]:g} to {DIAMETERS_MM[1]:g} mm, "
        f"{ADDED:g} of the window brighter in their middle, are planted in healthy tissue of each scan before it is "
        f"degraded, with the same draws; kept is what of each is left after restoration, lost are those below "
        f"{100 * KEPT:g} %. Appeared and vanished: regions of {AREA_MM2:g} mm² or more that, blurred by {BLUR_MM:g} "
        f"mm, are brighter or darker than the truth by more than {STANDS_OUT:g} of the window: a structure is seen "
        "where none is, or the reverse. *s*: seconds of training."
    )
    sizes = (
        f"Grid {'×'.join(map(str, scale.grid.size))} pixels of {scale.spacing_mm:g} mm, {scale.filters} filters, "
        f"{scale.steps} steps of batches of {scale.batch_size} for every network. Noise {scale.noise:g} of the "
        f"window (Rician); {scale.fraction:.0%} of k-space lines, {scale.centre:.0%} in the centre; "
        f"{scale.group} thin slices a thick one. Everything is simulated, from magnitude images on this grid."
    )
    return "\n\n".join([*parts, over, probe, sizes])


def _verdict(part: pd.DataFrame) -> str:
    """Who is closest to the truth and who looks most like it, told as it is found."""
    ordered = part.set_index("restoration")
    closest, likest = str(ordered["psnr"].idxmax()), str(ordered["fid"].idxmin())
    if closest == likest:
        return f"Closest to the truth by PSNR, and most like true slices by the Fréchet distance: {escaped(closest)}."
    return (
        f"Closest to the truth by PSNR: {escaped(closest)}; most like true slices by the Fréchet distance: "
        f"{escaped(likest)}."
    )


def _figure(results: Sequence[dict[str, Any]]) -> Any:
    """Distortion against perception: a panel for each task, a point for each training."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(result["task"] for result in results))
    names = list(dict.fromkeys(result["restoration"] for result in results))
    drawn = Figure(figsize=(1 + 4.5 * len(tasks), 4.5), layout="constrained")
    for axes, task in zip(drawn.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for number, name in enumerate(names):
            points = [(r["psnr"], r["fid"]) for r in results if r["task"] == task and r["restoration"] == name]
            if points:
                axes.scatter(*zip(*points, strict=True), label=name, color=f"C{number % 10}", s=30, alpha=0.8)
        axes.set_title(task)
        axes.set_xlabel("PSNR, dB (distortion: right is better)")
        axes.set_ylabel("Fréchet distance (perception: down is better)")
        axes.legend(fontsize="small")
    return drawn
