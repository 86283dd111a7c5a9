"""Does a critic make better segmentations than a loss of pixels (survey, Section 5.4)?

All arms train the same U-Net on the same slices for as many steps; they differ by what it is trained for. The survey's
claim is one about holes and fragments, so these are counted beside Dice and HD95.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.bundles import Bundle
from pipeline.comparison.significance import ALPHA, holm, wilcoxon_signed_rank
from pipeline.evaluation.controls import THRESHOLD, fitted_threshold
from pipeline.evaluation.predictions import volume_of
from pipeline.evaluation.volumes import cohort_grid
from pipeline.reports.markdown import count, table
from pipeline.studies.arms import (
    MEASURES,
    Arm,
    check_settings,
    measured,
    prediction_of,
    settings_of,
    volumes_of,
    write_found,
)
from pipeline.studies.study import file_name, mean_sd, once, open_study, over_seeds, write_study

logger = logging.getLogger(__name__)

PLAIN, ADVERSARIAL = "unet_segmentation", "adversarial_segmentation"
CROSS_ENTROPY, DICE_LOSS = "cross-entropy", "Dice loss"
LUC, LUC_PAIR, KOHL, SEGAN = "Luc", "Luc, mask beside image", "Kohl", "SegAN"
BASELINES: dict[str, Arm] = {
    CROSS_ENTROPY: Arm(PLAIN, settings={"loss": "ce"}),
    DICE_LOSS: Arm(PLAIN, settings={"loss": "dice"}),
}
CRITICS: dict[str, Arm] = {
    LUC: Arm(ADVERSARIAL, ("luc",)),
    LUC_PAIR: Arm(ADVERSARIAL, ("luc",), {"sees": "pair"}),
    KOHL: Arm(ADVERSARIAL, ("kohl",)),
    SEGAN: Arm(ADVERSARIAL, ("segan",)),
}
ARMS = {**BASELINES, **CRITICS}
# A laptop's size: three seeds of all arms within an hour on two cores.
LAPTOP: dict[str, Any] = {"spacing_mm": 3.0, "filters": 8, "critic_filters": 8, "epochs": 4, "batch_size": 8}
ADDED = ("dice", "holes", "fragments")
OF_STUDY = ("seed", "size", "device_name", "validate_every")


def segmentation(
    cohort: Path,
    folder: Path,
    seeds: int = 3,
    overrides: dict[str, Any] | None = None,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Train each arm with each seed, and measure what it finds in whole scans.

    `runs/` holds the trainings, each a bundle; `segmentations.png` what the arms of seed 0 find.

    Started again, it skips what is finished and goes on with a training that was stopped; seeds may be added then.

    Args:
        cohort: folder made by `preprocess`.
        folder: of the study.
        seeds: trainings of each arm, with the seeds 0, 1, …
        overrides: settings over `LAPTOP`, of the bundles that have them.
        split: patients to measure on.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if a setting is none, the split has no lesion, or the folder holds another study.
    """
    common = {**LAPTOP, **(overrides or {})}
    check_settings(overrides or {}, ARMS.values(), OF_STUDY)
    items = list(volumes_of(cohort, split))
    open_study(folder, settings_of("segmentation", cohort, common, split, ARMS.values()))
    common["size"] = list(cohort_grid(cohort, common["spacing_mm"]).size)

    def run_of(name: str, seed: int) -> Bundle:
        path = folder / "runs" / f"{file_name(name)}_seed={seed}"
        own = {"seed": seed, "device_name": device, "validate_every": common["epochs"]}
        return ARMS[name].trained(cohort, path, common, own)

    def result(name: str, seed: int) -> dict[str, Any]:
        logger.info("training %s, seed %d", name, seed)
        return {"arm": name, "seed": seed, **measured(prediction_of(run_of(name, seed), device), items)}

    def threshold() -> dict[str, Any]:
        cut = fitted_threshold(volume_of(item) for item in volumes_of(cohort, "training"))
        return {"arm": THRESHOLD, "seed": None, **measured(lambda item: {"prediction": cut(volume_of(item))}, items)}

    results, picture = [], folder / "segmentations.png"
    # All arms with one seed, then with the next: a study that is stopped has compared them.
    for seed in range(seeds):
        results += [
            once(folder / "results" / f"{file_name(name)}_seed={seed}.json", partial(result, name, seed))
            for name in ARMS
        ]
        if not picture.is_file():
            found = {name: partial(lambda name: prediction_of(run_of(name, 0), device), name) for name in ARMS}
            write_found(picture, items, found)
    control = once(folder / "results" / f"{file_name(THRESHOLD)}.json", threshold)
    frame = over_seeds([*results, control], ["arm"], [metric.name for metric in MEASURES])
    page = _page(frame, results, seeds, split, len(items), common)
    write_study(folder, page, frame, [*results, control], lambda path: _figure(frame).savefig(path, dpi=150))
    return page


def _page(
    frame: pd.DataFrame, results: Sequence[dict[str, Any]], seeds: int, split: str, scans: int, common: dict[str, Any]
) -> str:
    best = {metric.name: metric.best(list(frame[metric.name].dropna())) for metric in MEASURES}
    rows = [
        [row["arm"], *(_cell(row, metric.name, metric.digits, best) for metric in MEASURES)]
        for _, row in frame.iterrows()
    ]
    over = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "**One seed, so without deviation**"
    told = (
        f"{over}; means over patients, but for what is pooled, on all slices of {count(scans, 'scan')} of the {split} "
        "split, on the scans' own pixels. **Best** of each column, controls included. Holes, fragments and HD95 are of "
        "slices in which something was found: who finds nothing has none."
    )
    definitions = "\n".join(f"- {metric.label}: {metric.definition}" for metric in MEASURES)
    settings = ", ".join(f"`{name}` {value}" for name, value in common.items())
    ours = (
        f"All arms: {settings}; else the settings of the bundles `{PLAIN}` and `{ADVERSARIAL}`, whose cards say what "
        "departs from the papers."
    )
    return "\n\n".join(
        [
            table(["trained for", *(metric.heading for metric in MEASURES)], rows),
            told,
            _verdict(frame, results),
            definitions,
            ours,
        ]
    )


def _cell(row: pd.Series, metric: str, digits: int, best: dict[str, float]) -> str:
    text = mean_sd(row, metric, digits)
    return f"**{text}**" if row[metric] == best[metric] else text


def _verdict(frame: pd.DataFrame, results: Sequence[dict[str, Any]]) -> str:
    """Each critic against the better baseline, with a test over patients, and whose masks have fewer pieces."""
    means: dict[str, dict[str, float]] = {
        what: dict(zip(frame["arm"], frame[what].astype(float), strict=True)) for what in ADDED
    }
    rival = max(BASELINES, key=means["dice"].__getitem__)
    by_patient = pd.DataFrame(
        [
            {"arm": one["arm"], "patient": patient, "dice": value}
            for one in results
            for patient, value in one["patients"].items()
        ]
    ).pivot_table(index="patient", columns="arm", values="dice")
    tests = {name: wilcoxon_signed_rank(by_patient[name], by_patient[rival]) for name in CRITICS}
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    lines = []
    for name in CRITICS:
        better = "above" if means["dice"][name] > means["dice"][rival] else "**not above**"
        fewer = [
            f"{'fewer' if means[what][name] < means[what][rival] else '**not fewer**'} {what}"
            for what in ("holes", "fragments")
        ]
        lines.append(f"- {name}: Dice {better} that of {rival} (p = {corrected[name]:.2g}), {' and '.join(fewer)}")
    lines.append(
        f"- What the critic adds to Luc's cross-entropy: "
        f"{', '.join(f'{what} {means[what][LUC] - means[what][CROSS_ENTROPY]:+.3f}' for what in ADDED)}"
    )
    least = min(test.least_p for test in tests.values()) * len(tests)
    powerless = f" **With so few patients no p can be below {min(least, 1):.2g}.**" if least >= ALPHA else ""
    tested = (
        "p: two-sided Wilcoxon signed-rank test over patients of their mean Dice over seeds, corrected by Holm for "
        f"{count(len(tests), 'test')}.{powerless}"
    )
    return "\n".join(lines) + f"\n\n{tested}"


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("holes", "fragments"), strict=True):
        for number, (_, row) in enumerate(frame.iterrows()):
            axes.errorbar(
                row["dice"], row[what], xerr=row["dice_sd"], yerr=row[f"{what}_sd"], capsize=3, color=f"C{number}",
                marker="o" if row["arm"] in CRITICS else "s", linestyle="none", label=row["arm"],
            )  # fmt: skip
        axes.set_xlabel("Dice of a volume")
        # A threshold has a hundred times as many as a network; 0 is to be seen too.
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"{what} in a slice")
    axes.legend(fontsize="small", title="squares: controls")
    return figure
