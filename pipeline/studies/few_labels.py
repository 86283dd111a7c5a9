"""Segmentation from few labels: GenSeg beside its baselines (GenSeg, Section 4, Tables 1a and 1b, Figs. 7 and 8).

All arms share networks, iterations, images and labels. Segmentation only sees labelled images alone, as often as the
others see any; autoencoding and GenSeg see all images, with the masks of the same labelled ones.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.bundles import Bundle, find_bundle, read_config
from pipeline.comparison.significance import ALPHA, holm, wilcoxon_signed_rank
from pipeline.errors import UsageError
from pipeline.evaluation.controls import THRESHOLD, best_cut
from pipeline.evaluation.volumes import PATHOLOGICAL
from pipeline.inference import load_predictor
from pipeline.launch import OWN
from pipeline.metrics import dice
from pipeline.preprocessing.cohort_format import Cohort, read_cohort
from pipeline.preprocessing.few_labels import FewLabelsDataset
from pipeline.preprocessing.half_slices import HalfSliceDataset
from pipeline.reports.markdown import count, table
from pipeline.studies.study import (
    label_shares,
    mean_sd,
    once,
    open_study,
    over_seeds,
    percent,
    trainings_of,
    write_study,
)
from pipeline.studies.training import run_trained
from pipeline.studies.translations import domains, network_input, write_translations
from pipeline.training.checkpoint import CHECKPOINT, load_tensors

logger = logging.getLogger(__name__)

BUNDLE = "genseg"
SEGMENTATION, AUTOENCODING = "segmentation only", "autoencoding"
GENSEG, SEPARATE = "GenSeg", "GenSeg, separate decoder"
# The presets of the bundle that make an arm of it.
ARMS: dict[str, tuple[str, ...]] = {
    SEGMENTATION: ("segmentation_only",),
    AUTOENCODING: ("autoencoding",),
    GENSEG: (),
    SEPARATE: ("separate_decoder",),
}
ALL_POSITIVE = "all positive"
CONTROLS = (THRESHOLD, ALL_POSITIVE)
SKIPS = ("compress", "concat", "sum", "none")
LABELS = (0.01, 0.05, 0.2, 1.0)
PRINTED_LABELS = 0.01
# Table 1a: mean and deviation of Dice with 1 % of the labels.
PRINTED: dict[str, dict[str, tuple[float, float]]] = {
    cohort: dict(zip(ARMS, zip(means, deviations, strict=True), strict=True))
    for cohort, means, deviations in (
        ("48-simple", (0.61, 0.75, 0.79, 0.78), (0.01, 0.01, 0.01, 0.02)),
        ("48-hard", (0.36, 0.49, 0.57, 0.50), (0.01, 0.02, 0.00, 0.01)),
        ("128", (0.15, 0.57, 0.65, 0.70), (0.01, 0.02, 0.01, 0.00)),
        ("brats", (0.69, 0.73, 0.79, 0.77), (0.04, 0.02, 0.02, 0.03)),
    )
}
# Table 1b.
PRINTED_SKIPS = {
    "48-hard": dict(zip(SKIPS, ((0.57, 0.00), (0.57, 0.01), (0.56, 0.00), (0.42, 0.01)), strict=True)),
}
METRICS = {
    "dice": "Dice, pooled over all images with the target ↑",
    "dice_images": "Dice, mean over images with the target ↑",
    "dice_both": "Dice, pooled over images with and without the target ↑",
}
OF_STUDY = ("labelled", "labelled_by", "labelled_target", "skips", "seed")


@dataclass(frozen=True)
class Kind:
    """Trainings that differ by their seed alone.

    Attributes:
        arm: one of `ARMS`.
        skips: long skips of all decoders.
        labelled: share of the examples, or of their patients.
    """

    arm: str
    skips: str
    labelled: float

    def run(self, seed: int) -> str:
        """Name of a training's folder."""
        preset = "-".join(ARMS[self.arm]) or "genseg"
        return f"{preset}_skips={self.skips}_labelled={self.labelled:g}_seed={seed}"


def few_labels(
    cohort: Path,
    folder: Path,
    labels: Sequence[float] = LABELS,
    skips: Sequence[str] = SKIPS[:1],
    labelled_by: str = "examples",
    labelled_target: float | None = None,
    seeds: int = 3,
    presets: Sequence[str] = (),
    overrides: dict[str, Any] | None = None,
    printed: str | None = None,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Train each arm with each share of the labels and each seed, and measure the Dice of what they segment.

    `runs/` holds the trainings, each a bundle; `presence_to_absence.png` and `absence_to_presence.png` what GenSeg of
    the first share and seed 0 makes of some images (Figs. 7 and 8).

    Started again, it skips what is finished and goes on with a training that was stopped; labels, skips and seeds may
    be added then, all else stays.

    Args:
        cohort: folder made by `preprocess`.
        folder: of the study.
        labels: shares whose masks may be used.
        skips: of `SKIPS`; those after the first are tried in GenSeg with the first share alone (Table 1b).
        labelled_by: `examples` or `patients`.
        labelled_target: label images of subjects with this target alone, as long as there are enough of them.
        seeds: trainings of each kind, with the seeds 0, 1, …, each of which draws its own labels.
        presets: names of `bundle.presets`, laid over all arms.
        overrides: further ids and values, the same for all.
        printed: a key of `PRINTED`, whose numbers stand beside ours.
        split: patients to measure on.
        device: where to compute.

    Returns:
        The tables, in Markdown.

    Raises:
        UsageError: if a share, a kind of skips or a setting makes no sense here, or the folder holds another study.
    """
    bundle, overrides = find_bundle(BUNDLE), overrides or {}
    _check(labels, skips, presets, overrides, printed)
    open_study(
        folder,
        {
            "study": "few labels",
            **trainings_of(bundle, cohort, presets, overrides, split),
            "labelled_by": labelled_by,
            "labelled_target": labelled_target,
        },
    )
    content = read_cohort(cohort)
    targets = {share: _target(content, share, labelled_by, labelled_target) for share in labels}

    def trained(kind: Kind, seed: int) -> Bundle:
        settings = {
            **overrides,
            "labelled": kind.labelled,
            "labelled_by": labelled_by,
            "labelled_target": targets[kind.labelled],
            "skips": kind.skips,
            "seed": seed,
            "device_name": device,
        }
        run = folder / "runs" / kind.run(seed)
        return run_trained(bundle, cohort, run, [*presets, *ARMS[kind.arm]], settings)

    def result(kind: Kind, seed: int) -> dict[str, Any]:
        def train_and_measure() -> dict[str, Any]:
            logger.info("training %s, of %d in all", kind.run(seed), len(kinds) * seeds)
            run = trained(kind, seed)
            steps = int(load_tensors(run.root / "models" / CHECKPOINT)["iteration"])
            measured = score(segmented(run, device), *domains(run, cohort, split))
            return {**_keys(kind.arm, kind, seed), "iterations": steps, **measured}

        return once(folder / "results" / f"{kind.run(seed)}.json", train_and_measure)

    def control(name: str, share: float, seed: int) -> dict[str, Any]:
        def fit_and_measure() -> dict[str, Any]:
            run = trained(Kind(GENSEG, skips[0], share), seed)
            shown = labelled_images(cohort, run)
            cut = fitted_cut(*shown) if name == THRESHOLD else _everything
            measured = score(lambda images: map(cut, images), *domains(run, cohort, split))
            return {**_keys(name, Kind(GENSEG, skips[0], share), seed), "labels": len(shown[0]), **measured}

        path = f"{name.replace(' ', '_')}_labelled={share:g}_seed={seed}.json"
        return once(folder / "results" / path, fit_and_measure)

    kinds = [Kind(arm, skips[0], share) for share in labels for arm in ARMS]
    kinds += [Kind(GENSEG, other, labels[0]) for other in skips[1:]]
    # All kinds with one seed, then with the next: a study that is stopped has compared them.
    results = [result(kind, seed) for seed in range(seeds) for kind in kinds]
    controls = [control(name, share, seed) for seed in range(seeds) for share in labels for name in CONTROLS]
    shown = trained(Kind(GENSEG, skips[0], labels[0]), 0)
    write_translations(folder, shown, cohort, split, device)
    frame = over_seeds([*results, *controls], ["arm", "skips", "labelled"], [*METRICS, "patients_sd", "iterations"])
    page = _page(frame, results, controls, targets, printed, seeds, split, labelled_by)
    page += f"\n\n{_reductions(bundle, shown)}"
    write_study(folder, page, frame, [*results, *controls], lambda path: _figure(frame, printed).savefig(path, dpi=150))
    return page


def _check(
    labels: Sequence[float],
    skips: Sequence[str],
    presets: Sequence[str],
    overrides: dict[str, Any],
    printed: str | None,
) -> None:
    """Refuse what cannot be studied, before anything is written."""
    for share in labels:
        if not 0 < share <= 1:
            raise UsageError(f"--labels: found {share:g}, expected shares above 0 and at most 1")
    for given, known, option in ((skips, SKIPS, "skips"), ([printed] if printed else [], PRINTED, "printed")):
        for name in set(given) - set(known):
            raise UsageError(f"--{option}: found {name!r}, expected some of {', '.join(known)}")
    for name in {*overrides} & {
        *OF_STUDY,
        "labelled_share",
    }:
        raise UsageError(f"--set {name}: is set by the study itself; leave it out, and see its own options")
    for name in {*presets} & {preset for arm in ARMS.values() for preset in arm}:
        raise UsageError(f"--preset {name}: is an arm of the study itself; leave it out")


def _target(content: Cohort, share: float, labelled_by: str, wanted: float | None) -> float | None:
    """The target whose images alone are labelled; None where there are too few of them for the share."""
    every = [
        (subject.patient if labelled_by == "patients" else (subject.subject, place), subject.target)
        for subject in content.of("training")
        for place, label in enumerate(subject.labels)
        if label == PATHOLOGICAL
    ]
    units = {unit for unit, _ in every}
    possible = {unit for unit, target in every if target == wanted}
    return wanted if max(1, round(share * len(units))) <= len(possible) else None


def _keys(name: str, kind: Kind, seed: int) -> dict[str, Any]:
    return {"arm": name, "skips": kind.skips, "labelled": kind.labelled, "seed": seed}


Segment = Callable[[Iterator[Tensor]], Iterator[Tensor]]


def segmented(run: Bundle, device: str) -> Segment:
    """What a run's network calls target, bool, shape (B, 1, H, W), of each batch of images on its grid."""
    predictor, _ = load_predictor(run, "segmenter", device)

    @torch.inference_mode()
    def segment(batches: Iterator[Tensor]) -> Iterator[Tensor]:
        for images in batches:
            yield predictor.runner.network(images.to(predictor.device)).cpu() > 0

    return segment


def score(
    segment: Segment, presence: HalfSliceDataset, absence: HalfSliceDataset, batch_size: int = 50
) -> dict[str, Any]:
    """How well the target is found in images, on the network's grid.

    Args:
        segment: batches (B, C, H, W) to masks.
        presence: images with the target.
        absence: images without.
        batch_size: images at once.

    Returns:
        `dice` of all pixels of all images with the target; `dice_images`, the mean over these images; `dice_both`, of
        all pixels of images with and without it, where all that is found is wrong; `patients`, each one's mean over
        images, and `patients_sd`, their deviation; numbers of images.
    """

    def found(images: HalfSliceDataset) -> Tensor:
        places = range(0, len(images), batch_size)
        batches = (torch.stack([images[n]["image"] for n in range(len(images))[at : at + batch_size]]) for at in places)
        return torch.cat(list(segment(batches)))

    masks = torch.from_numpy(np.array(presence.masks, dtype=bool))
    predicted, alarms = found(presence), float(found(absence).sum())
    overlap, both = float((predicted & masks).sum()), float(predicted.sum() + masks.sum())
    values = dice(predicted, masks).numpy()
    by_patient = pd.Series(values, presence.patients).groupby(level=0, sort=False).mean()
    return {
        "dice": 2 * overlap / both,
        "dice_images": float(values.mean()),
        "dice_both": 2 * overlap / (both + alarms),
        "patients_sd": float(by_patient.std(ddof=1)) if len(by_patient) > 1 else None,
        "patients": {str(name): float(value) for name, value in by_patient.items()},
        "images": len(presence),
        "images_without": len(absence),
    }


def labelled_images(cohort: Path, run: Bundle) -> tuple[Tensor, Tensor]:
    """Images and masks that a run learned from, shapes (N, C, H, W) and (N, 1, H, W)."""
    settings, (grid, channels, rule) = read_config(run.config("train")), network_input(run)
    given = {name: settings[name] for name in ("labelled", "labelled_by", "labelled_target", "fraction", "seed")}
    dataset = FewLabelsDataset(cohort, "training", grid, channels=channels, half_slices=rule, **given)
    samples = [dataset[index] for index in np.flatnonzero(dataset.labelled).tolist()]
    return torch.stack([sample["image"] for sample in samples]), torch.stack([sample["mask"] for sample in samples])


def fitted_cut(images: Tensor, masks: Tensor) -> Callable[[Tensor], Tensor]:
    """All pixels above, or below, one intensity of one channel: that of the best Dice on labelled images.

    Args:
        images: shape (N, C, H, W).
        masks: shape (N, 1, H, W).

    Returns:
        Images (B, C, H, W) to masks (B, 1, H, W), bool.
    """
    cuts = []
    for channel in range(images.shape[1]):
        levels, of = np.unique(images[:, channel].numpy().ravel(), return_inverse=True)
        lesion = np.bincount(of, masks.numpy().ravel(), len(levels))
        tissue = np.bincount(of, minlength=len(levels))
        taken, bright = best_cut(lesion, tissue)
        called = slice(-taken, None) if bright else slice(taken)
        value = 2 * lesion[called].sum() / (tissue[called].sum() + lesion.sum())
        cuts.append((value, channel, float(levels[-taken if bright else taken - 1]), bright))
    _, chosen, limit, above = max(cuts)

    def cut(batch: Tensor) -> Tensor:
        values = batch[:, chosen : chosen + 1]
        return values >= limit if above else values <= limit

    return cut


def _everything(images: Tensor) -> Tensor:
    return torch.ones_like(images[:, :1], dtype=torch.bool)


def _page(
    frame: pd.DataFrame,
    results: Sequence[dict[str, Any]],
    controls: Sequence[dict[str, Any]],
    targets: dict[float, float | None],
    printed: str | None,
    seeds: int,
    split: str,
    labelled_by: str,
) -> str:
    skips = list(dict.fromkeys(frame["skips"]))
    main = frame[frame["skips"] == skips[0]]
    parts = [
        f"### {heading}\n\n{_arms(main, metric, printed if metric == 'dice' else None)}"
        for metric, heading in METRICS.items()
    ]
    if len(skips) > 1:
        parts.append(f"### Long skips of GenSeg, {percent(min(targets))} of the labels\n\n{_skips(frame, printed)}")
    first = results[0]
    over = (
        f"{_over(seeds)}; each seed draws its own labels. In brackets the deviation over patients. On the "
        f"{first['images']} images with the target, and {first['images_without']} without, of the "
        f"{len(first['patients'])} patients of the {split} split, on the network's grid. **Best** of each column, "
        "controls included. The threshold is the best on the labelled images; what is all positive has the Dice of the "
        "best chance."
    )
    iterations = sorted({result["iterations"] for result in results})
    steps = (
        f"Each training took {' to '.join(str(n) for n in dict.fromkeys((iterations[0], iterations[-1])))} iterations. "
        "Segmentation only sees labelled images in each of them, the others all images, with the masks of the labelled."
    )
    return "\n\n".join([*parts, over, steps, _labels(controls, targets, labelled_by), _verdict(main, results)])


def _over(seeds: int) -> str:
    return f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "**One seed, so without deviation**"


def _arms(frame: pd.DataFrame, metric: str, printed: str | None) -> str:
    """Table 1a: a row for each arm and control, a column for each share of the labels."""
    shares = list(dict.fromkeys(frame["labelled"]))
    best = frame.groupby("labelled")[metric].max()
    rows = []
    for arm in (*ARMS, *CONTROLS):
        by_share = frame[frame["arm"] == arm].set_index("labelled")
        cells = []
        for share in shares:
            row = by_share.loc[share]
            text = mean_sd(row, metric, 3)
            text = f"**{text}**" if row[metric] == best[share] else text
            over_patients = metric == "dice_images" and not pd.isna(row["patients_sd"])
            cells.append(f"{text} ({row['patients_sd']:.3f})" if over_patients else text)
        if printed:
            cells.append(_printed(PRINTED[printed].get(arm)))
        rows.append([arm, *cells])
    paper = [f"paper ({printed}), {percent(PRINTED_LABELS)}"] if printed else []
    return table(["trained with labels for", *(percent(share) for share in shares), *paper], rows)


def _skips(frame: pd.DataFrame, printed: str | None) -> str:
    """Table 1b."""
    found = frame[(frame["arm"] == GENSEG) & (frame["labelled"] == frame["labelled"].iloc[0])]
    of_paper = PRINTED_SKIPS.get(printed or "")
    rows = [
        [row["skips"], *(mean_sd(row, metric, 3) for metric in METRICS)]
        + ([_printed(of_paper[row["skips"]])] if of_paper else [])
        for _, row in found.iterrows()
    ]
    paper = [f"paper ({printed}), {percent(PRINTED_LABELS)}"] if of_paper else []
    return table(["long skips", *METRICS.values(), *paper], rows)


def _printed(number: tuple[float, float] | None) -> str:
    return "–" if number is None else f"{number[0]:.2f} ± {number[1]:.2f}"


def _labels(controls: Sequence[dict[str, Any]], targets: dict[float, float | None], labelled_by: str) -> str:
    """How many images were labelled, and by which rule."""
    counts = {share: sorted({c["labels"] for c in controls if c["labelled"] == share}) for share in targets}
    numbers = ", ".join(
        f"{percent(share)}: {'–'.join(str(n) for n in dict.fromkeys((found[0], found[-1])))}"
        for share, found in counts.items()
    )
    text = f"Labels are for a share of the training {labelled_by} with the target. Labelled images at {numbers}."
    wanted = next((target for target in targets.values() if target is not None), None)
    dropped = [percent(share) for share, target in targets.items() if target is None]
    if wanted is not None:
        text += f" Of the target {wanted:g} alone"
        text += f", but for {', '.join(dropped)}, where these are too few: there any are labelled." if dropped else "."
    return text


def _verdict(frame: pd.DataFrame, results: Sequence[dict[str, Any]]) -> str:
    """Whether GenSeg is better than what it is held against, said for each share, with a test over patients."""
    shares, skips = [float(share) for share in dict.fromkeys(frame["labelled"])], frame["skips"].iloc[0]
    means = pd.DataFrame(
        [
            {"arm": r["arm"], "labelled": r["labelled"], "patient": patient, "dice": value}
            for r in results
            if r["skips"] == skips
            for patient, value in r["patients"].items()
        ]
    ).pivot_table(index="patient", columns=["labelled", "arm"], values="dice")
    pairs = [(share, arm) for share in shares for arm in (SEGMENTATION, AUTOENCODING)]
    tests = [wilcoxon_signed_rank(means[share, GENSEG], means[share, arm]) for share, arm in pairs]
    corrected = dict(zip(pairs, holm([test.p for test in tests]), strict=True))
    lines = []
    for share in shares:
        of_share = frame[frame["labelled"] == share].set_index("arm")["dice"]
        ours, rivals = float(of_share[GENSEG]), of_share.drop([GENSEG, SEPARATE])
        above = "above" if ours > rivals.max() else "**not above**"
        p_values = ", ".join(f"{arm} p = {p:.2g}" for (of, arm), p in corrected.items() if of == share)
        lines.append(
            f"- {percent(share)}: GenSeg {ours:.3f}, {above} the best of baselines and controls, {rivals.idxmax()} "
            f"{rivals.max():.3f}; against {p_values}"
        )
    least = min(test.least_p for test in tests) * len(tests)
    powerless = f" **With so few patients no p can be below {min(least, 1):.2g}.**" if least >= ALPHA else ""
    tested = (
        "p: two-sided Wilcoxon signed-rank test over patients of their mean Dice over images and seeds, corrected by "
        f"Holm for {count(len(tests), 'test')}.{powerless}"
    )
    return "\n".join(lines) + f"\n\n{tested}"


def _reductions(bundle: Bundle, run: Bundle) -> str:
    """Which settings depart from those of the bundle, which are the paper's."""
    paper, ours = (read_config(each.config("train")) for each in (bundle, run))
    own = ({*OWN, *OF_STUDY} | {"resume", "in_channels", "channels"}) - {"batch_size"}
    changed = [
        f"`{name}` {ours[name]} instead of {value}"
        for name, value in paper.items()
        if name not in own and not isinstance(value, dict) and ours.get(name) != value
    ]
    return (
        f"Departures from the bundle's settings: {'; '.join(changed)}." if changed else "All settings are the bundle's."
    )


def _figure(frame: pd.DataFrame, printed: str | None) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    main = frame[frame["skips"] == frame["skips"].iloc[0]]
    for number, arm in enumerate((*ARMS, *CONTROLS)):
        group = main[main["arm"] == arm].sort_values("labelled")
        style = "--" if arm in CONTROLS else "-"
        axes.errorbar(
            group["labelled"], group["dice"], yerr=group["dice_sd"], marker="o", capsize=3, color=f"C{number}",
            linestyle=style, label=arm,
        )  # fmt: skip
        if printed and arm in PRINTED[printed]:
            axes.plot(PRINTED_LABELS, PRINTED[printed][arm][0], marker="x", color=f"C{number}", linestyle="none")
    label_shares(axes, main["labelled"])
    axes.set_xlabel("share of labels" + ("; crosses: printed in the paper" if printed else ""))
    axes.set_ylabel("Dice, pooled")
    axes.legend(fontsize="small")
    return figure
