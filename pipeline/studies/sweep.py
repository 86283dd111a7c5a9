"""One setting of a bundle at several values: how sensitive a method is (GVS, Section V-H and Figs. 5d, 8d)."""

import json
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.bundles import Bundle, find_bundle, read_config
from pipeline.errors import UsageError
from pipeline.evaluation import evaluate
from pipeline.evaluation.judge import ITERATIONS
from pipeline.files import sha256
from pipeline.inference import load_predictor
from pipeline.launch import RECORD, train
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.studies.study import markdown_table, mean_sd, open_study, over_seeds, write_study

logger = logging.getLogger(__name__)

# Heading, digits, and what it means that a row which was measured has no mean.
METRICS = {
    "healthiness": ("healthiness, all slices pooled ↑", 3, "–"),
    "psnr_normal": ("PSNR of normal tissue, dB ↑", 2, "identical"),
    "ssim_normal": ("SSIM of normal tissue ↑", 4, "–"),
    "a_dice": ("A-Dice ↓", 3, "collapsed"),
}
BRACKETS = {"original": "untouched input", "healthy": "healthy slices, random masks"}


def sweep(
    bundle: Bundle,
    cohort: Path,
    folder: Path,
    setting: str,
    values: Sequence[Any],
    seeds: int = 3,
    presets: Sequence[str] = (),
    overrides: dict[str, Any] | None = None,
    split: str = "validation",
    a_dice: bool = False,
    judge_iterations: int = ITERATIONS,
    device: str = "auto",
) -> str:
    """Train a bundle for each value of a setting and each seed, and evaluate each.

    Started again, it skips what is finished and goes on with a training that was stopped; values and seeds may be
    added then, all else stays. `runs/` holds the trainings, each a bundle; `reports/` their evaluations.

    Args:
        bundle: what to train.
        cohort: folder made by `preprocess`.
        folder: of the study.
        setting: any id of the bundle's `train.json` but `seed`, for example `lambda` (Fig. 8d) or `fraction` (Fig. 5d;
            each seed draws its own patients, a larger share of which contains a smaller one).
        values: of the setting, as JSON can hold them.
        seeds: trainings for each value, with the seeds 0, 1, …
        presets: names of `bundle.presets`.
        overrides: further ids and values, the same for all.
        split: which patients to evaluate on.
        a_dice: measure A-Dice too, its segmentor starting from the seed of the run.
        judge_iterations: of the training of the judge of healthiness.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if a setting is unknown or given twice, or the folder holds another study.
    """
    overrides = overrides or {}
    for name in {setting, *overrides} & {"seed"} | {setting} & set(overrides):
        raise UsageError(f"{name}: is set by the study itself; leave it out, and say how many --seeds")
    open_study(
        folder,
        {
            "study": "sweep",
            "bundle": bundle.name,
            "bundle_config_sha256": sha256(bundle.config("train")),
            "cohort_sha256": sha256(cohort / COHORT_FILE),
            "setting": setting,
            "presets": list(presets),
            "overrides": overrides,
            "split": split,
            "a_dice": a_dice,
            "judge_iterations": judge_iterations,
        },
    )
    measured: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for seed in range(seeds):
        for value in values:
            name = f"{setting}={value if isinstance(value, str) else json.dumps(value)}"
            run = re.sub(r"[^\w.=+-]", "-", name) + f"_seed={seed}"
            logger.info("run %d of %d: %s, seed %d", len(measured) + 1, seeds * len(values), name, seed)
            report = folder / "reports" / run
            if (report / "summary.json").is_file():
                summary = read_config(report / "summary.json")
            else:
                settings = {**overrides, setting: value, "seed": seed, "device_name": device}
                _train(bundle, cohort, folder / "runs" / run, presets, settings)
                synthesizer, provenance = load_predictor(find_bundle(str(folder / "runs" / run)), "translator", device)
                summary = evaluate(
                    synthesizer,
                    cohort,
                    report,
                    name,
                    provenance,
                    split=split,
                    judge_iterations=judge_iterations,
                    overwrite=True,  # what a stopped evaluation left
                    a_dice_seeds=(seed,) if a_dice else (),
                )
            measured.append({"row": name, "kind": "method", "seed": seed, **_figures(summary, name)})
    controls = [
        {"row": name, "kind": "control", "seed": None, **_figures(summary, name)}
        for name in [*list(summary["methods"])[1:], *([BRACKETS["healthy"]] if a_dice else [])]
    ]
    # The values in the order of the command, whatever part of them was there before.
    results = [*sorted(measured, key=lambda result: _place(result, measured)), *controls]
    metrics = [metric for metric in METRICS if metric != "a_dice" or a_dice]
    frame = over_seeds(results, ["row", "kind"], metrics)
    page = _page(frame, results, metrics, setting, seeds, summary)
    write_study(folder, page, frame, results, lambda path: _figure(frame, metrics, setting).savefig(path, dpi=150))
    return page


def _place(result: dict[str, Any], measured: list[dict[str, Any]]) -> int:
    return next(place for place, other in enumerate(measured) if other["row"] == result["row"])


def _train(bundle: Bundle, cohort: Path, run: Path, presets: Sequence[str], settings: dict[str, Any]) -> None:
    if (run / RECORD).is_file():
        train(bundle, cohort, run, overrides={"device_name": settings["device_name"]}, resume=True)
        return
    # What was stopped before it began has nothing to go on from.
    shutil.rmtree(run, ignore_errors=True)
    train(bundle, cohort, run, presets, settings)


def _figures(summary: dict[str, Any], name: str) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    if name in summary["methods"]:
        scores = summary["methods"][name]
        figures["healthiness"] = scores["healthiness_pooled"]
        figures |= {metric: scores["metrics"][metric]["mean"] for metric in ("psnr_normal", "ssim_normal")}
    images = (summary.get("a_dice") or {"images": {}})["images"]
    by_row = {BRACKETS.get(image, image): scores["mean"] for image, scores in images.items()}
    return figures | ({"a_dice": by_row[name]} if name in by_row else {})


def _page(
    frame: pd.DataFrame,
    results: list[dict[str, Any]],
    metrics: list[str],
    setting: str,
    seeds: int,
    summary: dict[str, Any],
) -> str:
    known = {(result["row"], metric) for result in results for metric in metrics if metric in result}
    rows = []
    for _, row in frame.iterrows():
        cells = [
            mean_sd(row, metric, METRICS[metric][1], METRICS[metric][2] if (row["row"], metric) in known else "–")
            for metric in metrics
        ]
        rows.append([row["row"], *cells])
    cohort, dice = summary["cohort"], summary["judge"]["dice"].get(summary["cohort"]["split"])
    seen = "" if dice is None else f", whose own Dice on them is {dice['pooled']:.3f}"
    over = (
        f"Mean ± standard deviation over {seeds} trainings with different seeds; the rows below the values of "
        f"`{setting}` are controls, which depend on no training."
    )
    split = (
        f"On the {cohort['slices']} pathological slices of the {cohort['patients']} patients of the "
        f"{cohort['split']} split. Healthiness is judged by an independent segmentor{seen}."
    )
    notes = [over, split]
    if "a_dice" in metrics:
        notes.append(
            "A-Dice of the untouched input and of healthy slices with random lesion masks bracket the others'; "
            "a training of its segmentor that collapsed enters no mean."
        )
    return "\n\n".join([markdown_table([setting, *(METRICS[metric][0] for metric in metrics)], rows), *notes])


def _figure(frame: pd.DataFrame, metrics: list[str], setting: str) -> Any:
    from matplotlib.figure import Figure

    trained = frame[frame["kind"] == "method"]
    untouched = frame[frame["row"] == BRACKETS["original"]]
    figure = Figure(figsize=(3.4 * len(metrics), 3), layout="constrained")
    for place, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(1, len(metrics), place)
        axes.errorbar(range(len(trained)), trained[metric], yerr=trained[f"{metric}_sd"], marker="o", capsize=3)
        for value in untouched[metric].dropna():
            # PSNR has no line: it is infinite. SSIM's would be 1.
            if metric != "ssim_normal":
                axes.axhline(value, linestyle="--", color="grey", label="untouched input")
                axes.legend(fontsize="small")
        axes.set_xticks(range(len(trained)), [row.split("=", maxsplit=1)[1] for row in trained["row"]])
        axes.set_xlabel(setting)
        axes.set_title(METRICS[metric][0], fontsize="medium")
    return figure
