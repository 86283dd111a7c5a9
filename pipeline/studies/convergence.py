"""How fast a segmentor fits the original lesions in synthetic images, at several rates (GVS, Section IV, Figs. 5b, 5c).

The trainings of A-Dice (`pipeline.metrics.a_dice`), their Dice after each epoch shown instead of averaged. The paper's
rates are 0.0001, where all images end alike, and 0.1, where they are told apart.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.bundles import Bundle
from pipeline.devices import pick_device
from pipeline.evaluation import ADiceSettings
from pipeline.evaluation.bracketed import LEARNED, ADiceSlices, bracketed_a_dice
from pipeline.evaluation.predictions import pseudo_healthy
from pipeline.evaluation.volumes import pathological_subjects, read_volume
from pipeline.files import sha256
from pipeline.metrics import A_DICE
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.reports.markdown import table
from pipeline.studies.study import load_generators, mean_sd, once, open_study, over_seeds, write_study

logger = logging.getLogger(__name__)

RATES = (0.0001, 0.1)


def convergence(
    runs: Sequence[Bundle],
    cohort: Path,
    folder: Path,
    rates: Sequence[float] = RATES,
    settings: ADiceSettings | None = None,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Train segmentors on the images of generators, on the originals and on healthy slices under random lesion masks.

    Started again, it skips the runs and rates that are finished; rates may be added then, all else stays.

    Args:
        runs: the trained generators.
        cohort: folder made by `preprocess`, which keeps the trainings on originals and healthy slices.
        folder: of the study.
        rates: of the optimiser, in place of that of the settings.
        settings: how A-Dice is measured; its defaults if None.
        split: patients whose slices these are.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if a run was trained on patients of the split, or the folder holds another study.
    """
    settings = settings or ADiceSettings()
    generators, provenance = load_generators(runs, cohort, split, device)
    open_study(
        folder,
        {
            "study": "convergence",
            "generators": provenance,
            "cohort_sha256": sha256(cohort / COHORT_FILE),
            "split": split,
            "seeds": list(settings.seeds),
            "epochs": settings.epochs,
            "filters": settings.filters,
            "batch_size": settings.batch_size,
            "spacing_mm": settings.spacing_mm,
            "optimizer": settings.optimizer,
        },
    )
    slices = ADiceSlices(cohort, split, settings)
    for record in pathological_subjects(cohort, split):
        volume = read_volume(cohort, record)
        slices.add(volume, {name: pseudo_healthy(each, volume) for name, each in generators.items()})
    lesions, images = slices.collected()
    originals = images.pop(next(iter(images)))
    target = pick_device(device)

    def result(rate: float, name: str) -> dict[str, Any]:
        def train() -> dict[str, Any]:
            logger.info("%s at rate %g", name, rate)
            own = replace(settings, rate=rate)
            found = bracketed_a_dice(name, images[name], originals, lesions, slices.grid, cohort, split, own, target)
            return {"rate": rate, **found}

        return once(folder / "results" / f"rate={rate:g}_{name}.json", train)

    results = [result(rate, name) for rate in rates for name in generators]
    frame = pd.DataFrame([row for found in results for row in _curves(found)]).drop_duplicates()
    page = _page(frame, results, split, slices.vanished)
    write_study(folder, page, frame, results, lambda path: _figure(frame).savefig(path, dpi=150))
    return page


def _curves(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each image set, seed and epoch."""
    return [
        {"rate": found["rate"], "images": name, "seed": seed, "epoch": epoch, "dice": dice, "collapsed": collapsed}
        for name, scores in found["images"].items()
        for seed, curve, collapsed in zip(scores["seeds"], scores["curves"], scores["collapsed"], strict=True)
        for epoch, dice in enumerate(curve, start=1)
    ]


def _page(frame: pd.DataFrame, results: list[dict[str, Any]], split: str, vanished: int) -> str:
    by_seed = frame[~frame["collapsed"]].groupby(["rate", "images", "seed"], sort=False)["dice"]
    ends = by_seed.agg(mean="mean", last="last").reset_index()
    rows = [
        [
            f"{row['rate']:g}",
            row["images"],
            *(mean_sd(row, name, A_DICE.digits, "collapsed") for name in ("mean", "last")),
        ]
        for _, row in over_seeds(ends, ["rate", "images"], ["mean", "last"]).iterrows()
    ]
    told = results[0]["settings"]
    by = told["optimizer"].partition(",")[0]
    over = (
        f"Dice on the {told['slices']} slices of the {split} split that a segmentor is trained on, mean ± standard "
        f"deviation over {len(told['seeds'])} trainings ({told['network']}, {by}, pixels of {told['spacing_mm']:g} "
        "mm); its mean over epochs is A-Dice, whose brackets are the originals and the healthy slices. "
        "Every epoch of every training is in `table.csv`."
    )
    notes = [over]
    if vanished:
        notes.append(f"Slices whose lesion vanishes on that grid were left out: {vanished}.")
    flat = list(dict.fromkeys(f"{found['rate']:g}" for found in results if not found["learned"]))
    if flat:
        notes.append(
            f"**At the rate {', '.join(flat)} the lesions of the original images themselves were not learned (A-Dice "
            f"below {LEARNED:g}), so nothing can be ranked there;** train for more epochs."
        )
    heading = ["rate", "images", f"mean over {told['epochs']} epochs (A-Dice) ↓", "after the last epoch"]
    return "\n\n".join([table(heading, rows), *notes])


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    rates = list(dict.fromkeys(frame["rate"]))
    figure = Figure(figsize=(4.5 * len(rates), 3.2), layout="constrained")
    for axes, rate in zip(figure.subplots(1, len(rates), sharey=True, squeeze=False)[0], rates, strict=True):
        for name, group in frame[frame["rate"] == rate].groupby("images", sort=False):
            by_epoch = group.groupby("epoch")["dice"].agg(["mean", "min", "max"])
            axes.plot(by_epoch.index, by_epoch["mean"], label=name)
            axes.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], alpha=0.2)
        axes.set_title(f"rate {rate:g}", fontsize="medium")
        axes.set_xlabel("epoch")
        axes.set_ylim(0, 1)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].set_ylabel("Dice on its training slices")
    figure.axes[-1].legend(fontsize="small")
    return figure
