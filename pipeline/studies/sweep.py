"""One setting of a bundle at several values: how sensitive a method is (GVS, Section V-H and Figs. 5d, 8d)."""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.bundles import Bundle, read_config
from pipeline.errors import UsageError
from pipeline.evaluation import ADiceSettings, Settings
from pipeline.evaluation.bracketed import BRACKETS, LEARNED
from pipeline.evaluation.controls import UNTOUCHED
from pipeline.evaluation.judge import ITERATIONS
from pipeline.evaluation.own import own_networks
from pipeline.inference import load_predictor
from pipeline.metrics import A_DICE, Metric
from pipeline.reports.cohort_evaluation import evaluate_and_report
from pipeline.reports.markdown import table
from pipeline.studies.study import mean_sd, open_study, over_seeds, trainings_of, write_study
from pipeline.studies.training import run_trained

logger = logging.getLogger(__name__)

NOT_LEARNED = (
    f"**In some of these evaluations the lesions of the original images themselves were not learned (A-Dice below "
    f"{LEARNED:g}): the slices are too few for so short a training, and the column ranks nothing.**"
)


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
    a_dice: ADiceSettings | None = None,
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
        a_dice: how to measure A-Dice, its segmentor starting from the seed of the run; None does not measure it.
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
            **trainings_of(bundle, cohort, presets, overrides, split),
            "setting": setting,
            "a_dice": a_dice and {**asdict(a_dice), "seeds": "each run's own"},
            "judge_iterations": judge_iterations,
        },
    )
    measured: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    learned = True
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
                trained = run_trained(bundle, cohort, folder / "runs" / run, presets, settings)
                synthesizer, provenance = load_predictor(trained, "translator", device)
                measures = replace(a_dice, seeds=(seed,)) if a_dice else None
                how = Settings(name, provenance, split, judge_iterations, a_dice=measures)
                # Over what a stopped evaluation left.
                own = own_networks(trained)
                summary = evaluate_and_report(
                    synthesizer, cohort, report, how, overwrite=True, own_networks=own
                ).summary
            measured.append({"row": name, "kind": "method", "seed": seed, **_figures(summary, name)})
            learned &= summary["a_dice"] is None or summary["a_dice"]["learned"]
    controls = [
        {"row": name, "kind": "control", "seed": None, **_figures(summary, name)}
        for name in [*list(summary["methods"])[1:], *(BRACKETS[1:] if a_dice else [])]
    ]
    # The values in the order of the command, whatever part of them was there before.
    results = [*sorted(measured, key=lambda result: _place(result, measured)), *controls]
    metrics = [metric for record in summary["metrics"] if (metric := Metric.from_record(record)).headline]
    frame = over_seeds(results, ["row", "kind"], [metric.name for metric in metrics])
    page = _page(frame, results, metrics, setting, seeds, summary)
    page += "" if learned else f"\n\n{NOT_LEARNED}"
    write_study(folder, page, frame, results, lambda path: _figure(frame, metrics, setting).savefig(path, dpi=150))
    return page


def _place(result: dict[str, Any], measured: list[dict[str, Any]]) -> int:
    return next(place for place, other in enumerate(measured) if other["row"] == result["row"])


def _figures(summary: dict[str, Any], name: str) -> dict[str, float | None]:
    """The mean of each metric of a method or control; of a bracket, its A-Dice."""
    if name in summary["methods"]:
        return {metric: score["mean"] for metric, score in summary["methods"][name]["metrics"].items()}
    images = (summary["a_dice"] or {"images": {}})["images"]
    return {A_DICE.name: images[name]["mean"]} if name in images else {}


def _page(
    frame: pd.DataFrame,
    results: list[dict[str, Any]],
    metrics: list[Metric],
    setting: str,
    seeds: int,
    summary: dict[str, Any],
) -> str:
    known = {(result["row"], metric.name) for result in results for metric in metrics if metric.name in result}

    def cell(row: pd.Series, metric: Metric) -> str:
        without = metric.perfect_word or ("collapsed" if metric.name == A_DICE.name else "–")
        return mean_sd(row, metric.name, metric.digits, without if (row["row"], metric.name) in known else "–")

    rows = [[row["row"], *(cell(row, metric) for metric in metrics)] for _, row in frame.iterrows()]
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
    departure = summary["judge"].get("departure")
    notes = [over, f"{split} {departure}." if departure else split]
    if any(metric.name == A_DICE.name for metric in metrics):
        notes.append(
            "A-Dice of the untouched input and of healthy slices with random lesion masks bracket the others'; "
            "a training of its segmentor that collapsed enters no mean."
        )
    return "\n\n".join([table([setting, *(metric.heading for metric in metrics)], rows), *notes])


def _figure(frame: pd.DataFrame, metrics: list[Metric], setting: str) -> Any:
    from matplotlib.figure import Figure

    trained = frame[frame["kind"] == "method"]
    untouched = frame[frame["row"] == UNTOUCHED]
    figure = Figure(figsize=(3.4 * len(metrics), 3), layout="constrained")
    for place, metric in enumerate(metrics, start=1):
        name = metric.name
        axes = figure.add_subplot(1, len(metrics), place)
        axes.errorbar(range(len(trained)), trained[name], yerr=trained[f"{name}_sd"], marker="o", capsize=3)
        for value in untouched[name].dropna():
            # What is perfect by construction has no line: it would be infinite, or 1.
            if not metric.perfect_word:
                axes.axhline(value, linestyle="--", color="grey", label=UNTOUCHED)
                axes.legend(fontsize="small")
        axes.set_xticks(range(len(trained)), [row.split("=", maxsplit=1)[1] for row in trained["row"]])
        axes.set_xlabel(setting)
        axes.set_title(metric.heading, fontsize="medium")
    return figure
