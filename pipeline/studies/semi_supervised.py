"""Do slices without a label help (survey, Section 5.6)? Zhang's critic for masks, K + 1 classes for classes.

All arms see the same labels: those of the same patients, or digits. The control learns from these alone, as often as
the others learn from any slice.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from pipeline.bundles import Bundle, read_config
from pipeline.comparison.significance import ALPHA, holm, wilcoxon_signed_rank
from pipeline.errors import UsageError
from pipeline.evaluation.controls import THRESHOLD, fitted_threshold
from pipeline.evaluation.predictions import volume_of
from pipeline.evaluation.volumes import HEALTHY, PATHOLOGICAL, cohort_grid
from pipeline.inference import load_predictor
from pipeline.metrics import METRICS
from pipeline.preprocessing.cohort_format import read_cohort
from pipeline.preprocessing.few_labels import LesionPresenceDataset, PartlyLabelledDataset
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset
from pipeline.reports.markdown import count, table
from pipeline.studies.arms import (
    LESION_SLICES,
    Arm,
    check_settings,
    measured,
    prediction_of,
    settings_of,
    volumes_of,
    write_found,
)
from pipeline.studies.study import file_name, label_shares, mean_sd, once, open_study, over_seeds, percent, write_study

logger = logging.getLogger(__name__)

Name = Literal["segmentation", "presence", "digits"]
LABELS = (0.01, 0.05, 0.2)
SUPERVISED, EVERY_LABEL = "supervised", "supervised, every label"
ZHANG, GENSEG, SALIMANS = "Zhang", "GenSeg", "K + 1 classes"
MOST_FREQUENT = "most frequent class"
CLASSIFIER, ADVERSARIAL = "semi_supervised", "adversarial_segmentation"
# GenSeg at the size of the others, on whole slices like them, with the weights of its preset for scans.
GENSEG_SETTINGS: dict[str, Any] = {
    "filters": [8, 16, 32, 64],
    "common_filters": 48,
    "unique_filters": 16,
    "discriminator_filters": [8, 8, 16, 32],
    "segmentation_norm": "own",
    "lambdas": [50.0, 50.0, 1.0, 50.0, 3.0],
    "labelled_share": 0.5,
    "rate": 0.001,
}
OF_STUDY = ("seed", "size", "labelled", "labelled_by", "device_name", "validate_every")


@dataclass(frozen=True)
class Task:
    """What is learned from few labels.

    Attributes:
        arms: by name, the control first.
        laptop: settings that all share: with them and `labels`, three seeds take less than an hour on two cores.
        labelled_by: what a share of the labels is of.
        metrics: headings of the numbers, by name, with their digits; the first decides.
        labels: shares that are measured unless others are asked for.
    """

    arms: Mapping[str, Arm]
    laptop: Mapping[str, Any]
    labelled_by: str
    metrics: Mapping[str, tuple[str, int]]
    labels: tuple[float, ...] = LABELS


CLASSIFIERS = {SUPERVISED: Arm(CLASSIFIER, ("supervised",)), SALIMANS: Arm(CLASSIFIER)}
DIGITS = {name: Arm(arm.bundle, ("digits", *arm.presets)) for name, arm in CLASSIFIERS.items()}
SMALL = {"filters": 16, "generator_filters": 16, "batch_size": 32, "average_decay": 0.99}
TASKS: dict[str, Task] = {
    "segmentation": Task(
        {
            SUPERVISED: Arm(ADVERSARIAL, ("semi_supervised",), {"labelled_share": 1.0}),
            ZHANG: Arm(ADVERSARIAL, ("semi_supervised",)),
            GENSEG: Arm("genseg", settings=GENSEG_SETTINGS),
        },
        {"spacing_mm": 4.0, "filters": 8, "critic_filters": 8, "epochs": 2, "batch_size": 8, "average_decay": 0.99},
        "patients",
        {
            LESION_SLICES: ("Dice, pooled over slices with a lesion ↑", 3),
            "dice_pooled": ("Dice, pooled over all slices ↑", 3),
            "dice": ("Dice of a volume, mean over patients ↑", 3),
        },
    ),
    "presence": Task(
        CLASSIFIERS,
        {**SMALL, "spacing_mm": 4.0, "epochs": 12},
        "patients",
        {"auroc": ("AUROC of slices ↑", 3), "accuracy": ("accuracy of slices ↑", 3)},
        (0.05, 0.2),
    ),
    "digits": Task(DIGITS, {**SMALL, "epochs": 10}, "examples", {"accuracy": ("accuracy ↑", 3)}),
}


def semi_supervised(
    cohort: Path,
    folder: Path,
    task: Name = "segmentation",
    labels: Sequence[float] | None = None,
    seeds: int = 3,
    overrides: dict[str, Any] | None = None,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Train each arm with each share of the labels and each seed, which draws the labels, and measure it.

    `runs/` holds the trainings, each a bundle; of segmentation, `segmentations.png` what is found with the first share
    and seed 0.

    Started again, it skips what is finished and goes on with a training that was stopped; labels and seeds may be added
    then.

    Args:
        cohort: folder made by `preprocess`; for `digits`, with the digit as target.
        folder: of the study.
        task: `segmentation`, the `presence` of a lesion in a slice, or `digits`.
        labels: shares of the patients, or of digits, whose labels may be used; None takes the task's own.
        seeds: trainings of each arm and share, with the seeds 0, 1, …
        overrides: settings over the task's own, of the bundles that have them.
        split: patients to measure on.
        device: where to compute.

    Returns:
        The tables, in Markdown.

    Raises:
        UsageError: if a share or setting makes no sense, or the folder holds another study.
    """
    this = TASKS[task]
    labels = this.labels if labels is None else labels
    _check(this, labels, overrides or {})
    common = {**this.laptop, **(overrides or {})}
    measure = _Segmentation(cohort, split, device) if task == "segmentation" else _Classes(cohort, split, device, task)
    open_study(folder, {**settings_of("semi-supervised", cohort, common, split, this.arms.values()), "task": task})
    if "spacing_mm" in common:
        common["size"] = list(cohort_grid(cohort, common["spacing_mm"]).size)

    def run_of(name: str, share: float, seed: int) -> Bundle:
        arm, path = this.arms[name], folder / "runs" / f"{file_name(name)}_labelled={share:g}_seed={seed}"
        epochs = _epochs(cohort, arm, common["epochs"])
        own = {"labelled": share, "labelled_by": this.labelled_by, "seed": seed, "device_name": device}
        return arm.trained(cohort, path, common, {**own, "epochs": epochs, "validate_every": epochs})

    def result(name: str, row: str, share: float, seed: int) -> dict[str, Any]:
        logger.info("training %s, %g %% of the labels, seed %d", name, 100 * share, seed)
        return {"arm": row, "labelled": share, "seed": seed, **measure.measured(run_of(name, share, seed))}

    def control(share: float, seed: int) -> dict[str, Any]:
        run = run_of(SUPERVISED, share, seed)
        return {"arm": measure.control, "labelled": share, "seed": seed, **measure.of_control(run)}

    def kept(row: str, share: float, seed: int, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return once(folder / "results" / f"{file_name(row)}_labelled={share:g}_seed={seed}.json", compute)

    results = []
    # All arms with one seed, then with the next: a study that is stopped has compared them.
    for seed in range(seeds):
        for share in labels:
            results += [kept(name, share, seed, partial(result, name, name, share, seed)) for name in this.arms]
            results.append(kept(measure.control, share, seed, partial(control, share, seed)))
        results.append(kept(EVERY_LABEL, 1.0, seed, partial(result, SUPERVISED, EVERY_LABEL, 1.0, seed)))
        measure.show(folder, {name: partial(run_of, name, labels[0], 0) for name in this.arms})
    frame = over_seeds(results, ["arm", "labelled"], list(this.metrics))
    page = _page(frame, results, this, seeds, split, common)
    write_study(folder, page, frame, results, lambda path: _figure(frame, this).savefig(path, dpi=150))
    return page


def _check(task: Task, labels: Sequence[float], overrides: Mapping[str, Any]) -> None:
    """Refuse what cannot be studied, before anything is written."""
    for share in labels:
        if not 0 < share <= 1:
            raise UsageError(f"--labels: found {share:g}, expected shares above 0 and at most 1")
    check_settings(overrides, task.arms.values(), OF_STUDY)


def _epochs(cohort: Path, arm: Arm, epochs: int) -> int:
    """So many that an arm takes about as many steps as the others: GenSeg's epochs are of pathological slices alone."""
    if arm.bundle != "genseg":
        return epochs
    content = read_cohort(cohort)
    pathological, healthy = (content.slices("training", label) for label in (PATHOLOGICAL, HEALTHY))
    return round(epochs * (pathological + healthy) / pathological)


class _Segmentation:
    """How well a segmenter of few labels finds lesions, and a threshold of the same labels."""

    control = THRESHOLD

    def __init__(self, cohort: Path, split: str, device: str) -> None:
        self.cohort, self.device = cohort, device
        self.items = list(volumes_of(cohort, split))

    def show(self, folder: Path, runs: Mapping[str, Callable[[], Bundle]]) -> None:
        """Write what some runs find, if it is not there."""
        if not (folder / "segmentations.png").is_file():
            found = {
                name: partial(lambda load: prediction_of(load(), self.device), load) for name, load in runs.items()
            }
            write_found(folder / "segmentations.png", self.items, found)

    def measured(self, run: Bundle) -> dict[str, Any]:
        return measured(prediction_of(run, self.device), self.items)

    def of_control(self, run: Bundle) -> dict[str, Any]:
        known = {patient for patient, label in zip(*_labelled(self.cohort, run), strict=True) if label}
        cut = fitted_threshold(volume_of(item) for item in volumes_of(self.cohort, "training", known))
        found = measured(lambda item: {"prediction": cut(volume_of(item))}, self.items)
        return {**found, "labelled_patients": sorted(known)}


class _Classes:
    """How often a classifier of few labels is right about slices, and the most frequent class."""

    control = MOST_FREQUENT

    def __init__(self, cohort: Path, split: str, device: str, task: str) -> None:
        self.cohort, self.split, self.device = cohort, split, device
        self.kind = LesionPresenceDataset if task == "presence" else SliceDataset

    def show(self, folder: Path, runs: Mapping[str, Callable[[], Bundle]]) -> None:
        """Nothing: a class has no picture."""

    def measured(self, run: Bundle) -> dict[str, Any]:
        predictor, _ = load_predictor(run, "scorer", self.device)
        slices = self._slices(run, self.split)
        with torch.inference_mode():
            batches = torch.utils.data.DataLoader(slices, batch_size=64)
            logits = torch.cat(
                [predictor.runner.network(batch["image"].to(predictor.device)).cpu() for batch in batches]
            )
        return _right(logits.softmax(dim=1), _classes(slices))

    def of_control(self, run: Bundle) -> dict[str, Any]:
        every = _classes(self._slices(run, "training"))
        counts = torch.bincount(every).float()
        truth = _classes(self._slices(run, self.split))
        return _right((counts / counts.sum()).expand(len(truth), -1), truth)

    def _slices(self, run: Bundle, split: str) -> SliceDataset:
        settings = read_config(run.config("train"))
        grid = Grid(settings["spacing_mm"], tuple(settings["size"]))
        slices = self.kind(self.cohort, split, grid, settings["labels"])
        if "target" not in slices[0]:
            raise UsageError(f"{self.cohort}: has no targets, expected classes; preprocess with --target digit")
        return slices


def _labelled(cohort: Path, run: Bundle) -> tuple[list[str], Sequence[bool]]:
    """Whose each training slice is, and whether a run was shown its label."""
    settings = read_config(run.config("train"))
    names = ("labels", "labelled", "labelled_by", "fraction", "seed")
    grid = Grid(settings["spacing_mm"], tuple(settings["size"]))
    data = PartlyLabelledDataset(cohort, "training", grid, **{name: settings[name] for name in names})
    return data.slices.patients, data.labelled.tolist()


def _classes(slices: SliceDataset) -> torch.Tensor:
    return torch.tensor([int(slices[index]["target"]) for index in range(len(slices))])


def _right(probabilities: torch.Tensor, truth: torch.Tensor) -> dict[str, Any]:
    """Accuracy, and of two classes AUROC."""
    found = {"accuracy": float((probabilities.argmax(dim=1) == truth).float().mean()), "slices": len(truth)}
    auroc = METRICS["auroc"].combine
    if probabilities.shape[1] == 2 and auroc is not None:
        found["auroc"] = auroc(pd.DataFrame({"prediction": probabilities[:, 1].numpy(), "label": truth.numpy()}))
    return found


def _page(
    frame: pd.DataFrame,
    results: Sequence[dict[str, Any]],
    task: Task,
    seeds: int,
    split: str,
    common: Mapping[str, Any],
) -> str:
    shares = list(dict.fromkeys(frame[frame["arm"] == SUPERVISED]["labelled"]))
    parts = [
        f"### {heading}\n\n{_table(frame, metric, digits, shares)}"
        for metric, (heading, digits) in task.metrics.items()
    ]
    over = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "**One seed, so without deviation**"
    told = (
        f"{over}; each seed draws its own labels, the same for all arms, for a share of the training "
        f"{task.labelled_by}, at least one. Measured on the {split} split. **Best** of each column, controls included; "
        "what is learned from every label stands beside them as a bound. All arms take about as many steps."
    )
    settings = ", ".join(f"`{name}` {value}" for name, value in common.items())
    return "\n\n".join([*parts, told, _verdict(frame, results, task, shares), f"Settings: {settings}."])


def _table(frame: pd.DataFrame, metric: str, digits: int, shares: Sequence[float]) -> str:
    rows = []
    compared = frame[frame["arm"] != EVERY_LABEL]
    best = compared.groupby("labelled")[metric].max()
    for arm in dict.fromkeys(compared["arm"]):
        of_arm = compared[compared["arm"] == arm].set_index("labelled")
        cells = []
        for share in shares:
            text = mean_sd(of_arm.loc[share], metric, digits)
            cells.append(f"**{text}**" if of_arm.loc[share, metric] == best[share] else text)
        rows.append([arm, *cells, ""])
    whole = frame[frame["arm"] == EVERY_LABEL].iloc[0]
    rows.append([EVERY_LABEL, *["" for _ in shares], mean_sd(whole, metric, digits)])
    return table(["labels for", *(percent(share) for share in shares), "100 %"], rows)


def _verdict(frame: pd.DataFrame, results: Sequence[dict[str, Any]], task: Task, shares: Sequence[float]) -> str:
    """Each arm against the control at each share; of segmentation with a test over patients."""
    metric = next(iter(task.metrics))
    means = {
        (arm, share): float(value) for arm, share, value in frame[["arm", "labelled", metric]].itertuples(index=False)
    }
    others = [name for name in task.arms if name != SUPERVISED]
    tests = _tests(results, others, shares)
    lines = []
    for share in shares:
        control = means[SUPERVISED, share]
        for name in others:
            found = means[name, share]
            above = "above" if found > control else "**not above**"
            p = f" (p = {tests[name, share]:.2g})" if (name, share) in tests else ""
            lines.append(f"- {percent(share)}: {name} {found:.3f}, {above} {SUPERVISED} {control:.3f}{p}")
    tested = (
        f"p: two-sided Wilcoxon signed-rank test over patients of their mean Dice over seeds, corrected by Holm for "
        f"{count(len(tests), 'test')}; below {ALPHA} it is no chance."
    )
    return "\n".join(lines) + (f"\n\n{tested}" if tests else "")


def _tests(
    results: Sequence[dict[str, Any]], others: Sequence[str], shares: Sequence[float]
) -> dict[tuple[str, float], float]:
    rows = [
        {"arm": one["arm"], "labelled": one["labelled"], "patient": patient, "dice": value}
        for one in results
        for patient, value in one.get("patients", {}).items()
    ]
    if not rows:
        return {}
    means = pd.DataFrame(rows).pivot_table(index="patient", columns=["arm", "labelled"], values="dice")
    pairs = [(name, share) for share in shares for name in others]
    found = [wilcoxon_signed_rank(means[name, share], means[SUPERVISED, share]).p for name, share in pairs]
    return dict(zip(pairs, holm(found), strict=True))


def _figure(frame: pd.DataFrame, task: Task) -> Any:
    from matplotlib.figure import Figure

    metric, (heading, _) = next(iter(task.metrics.items()))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for number, (arm, group) in enumerate(frame.groupby("arm", sort=False)):
        axes.errorbar(
            group["labelled"], group[metric], yerr=group[f"{metric}_sd"], marker="o", capsize=3, color=f"C{number}",
            linestyle="-" if arm in task.arms else "--", label=arm,
        )  # fmt: skip
    label_shares(axes, frame["labelled"])
    axes.set_xlabel("share of labels")
    axes.set_ylabel(heading)
    axes.legend(fontsize="small")
    return figure
