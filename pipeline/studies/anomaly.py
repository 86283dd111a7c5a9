"""Anomaly detection from healthy slices alone, beside controls that do without (survey Section 5.1).

AnoGAN, f-AnoGAN, BiGAN, an autoencoder and a VAE learn the healthy slices of the training patients, once a seed, and
map what they cannot reconstruct in the test patients' slices. AnoGAN searches in the latent space of f-AnoGAN's GAN, so
that the two differ in the inversion alone. The threshold of each map is the one with the best Dice on the validation
patients, and nothing else is chosen there.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from pipeline.bundles import Bundle, find_bundle, read_config
from pipeline.comparison.significance import ALPHA, holm, wilcoxon_signed_rank
from pipeline.devices import pick_device
from pipeline.errors import UsageError
from pipeline.evaluation.volumes import HEALTHY
from pipeline.metrics.anomaly import auroc, average_precision, best_threshold
from pipeline.mosaic import grey, mosaic, outlined, save_png
from pipeline.reports.markdown import count, table
from pipeline.studies.anomaly_maps import (
    LEARNED,
    POOLED,
    Detect,
    Found,
    Network,
    Setting,
    Slices,
    controls,
    ranks,
    searching,
    trained_network,
)
from pipeline.studies.pictures import spread
from pipeline.studies.study import file_name, mean_sd, once, open_study, over_seeds, trainings_of, write_study
from pipeline.studies.training import run_trained

logger = logging.getLogger(__name__)

BUNDLE = "anogan"
ANOGAN, F_ANOGAN, BIGAN = "AnoGAN, search", "f-AnoGAN, encoder", "BiGAN"
# The presets that make a training of each arm; AnoGAN takes f-AnoGAN's.
ARMS: dict[str, tuple[str, ...]] = {
    ANOGAN: (),
    F_ANOGAN: (),
    BIGAN: ("bigan",),
    "autoencoder": ("autoencoder",),
    "VAE": ("vae",),
}
METRICS = {
    "average_precision": ("pixel average precision ↑", 3),
    "dice": ("Dice at the threshold of the validation patients ↑", 3),
    "best_dice": ("Dice at the best threshold for these patients", 3),
    "auroc": ("AUROC of slices with lesion ↑", 3),
}
# A laptop's size: three seeds within an hour on two cores, of which the search takes most.
LAPTOP: dict[str, Any] = {"epochs": 12, "validate_every": 12, "gan_steps": 140, "search_steps": 100}
BRIGHT = 0.9  # rank of intensity from which on pixels are bright
SHOWN_BRIGHTEST = 99.5  # percentile of a map that pictures show white


def anomaly(
    cohort: Path,
    folder: Path,
    seeds: int = 3,
    presets: Sequence[str] = ("laptop",),
    overrides: dict[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
    translator: Bundle | None = None,
    device: str = "auto",
) -> str:
    """Train the detectors with each seed, and measure them and the controls on the test patients.

    `runs/` holds the trainings, each a bundle; `maps.png` the first seed's maps of some patients.

    Started again, it skips what is finished and goes on with a training that was stopped; seeds may be added then.

    Args:
        cohort: folder made by `preprocess`.
        folder: of the study.
        seeds: trainings of each detector, with the seeds 0, 1, ….
        presets: of the bundle, laid over all arms.
        overrides: settings over `LAPTOP`, the same for all.
        sources: patterns of patients' names by source of data, each a group of the table beside all patients.
        translator: whose difference is a further control; None for none.
        device: where to compute.

    Returns:
        The tables, in Markdown.

    Raises:
        UsageError: if a preset is an arm of the study itself, a setting is not the user's to choose, or the folder
            holds another study.
    """
    bundle, overrides, sources = find_bundle(BUNDLE), {**LAPTOP, **(overrides or {})}, sources or {}
    for name in {*presets} & {"iterative", *(preset for arm in ARMS.values() for preset in arm)}:
        raise UsageError(f"--preset {name}: is an arm of the study itself; leave it out")
    if "seed" in overrides:
        raise UsageError("--set seed: is set by the study itself; leave it out, and see --seeds")
    settings = trainings_of(bundle, cohort, presets, overrides, "test")
    open_study(
        folder, {"study": "anomaly", **settings, "sources": dict(sources), "translator": translator and translator.name}
    )
    device = str(pick_device(device))  # told once

    def trained(arm: str, seed: int) -> Bundle:
        name = "-".join(ARMS[arm]) or "f_anogan"
        run = folder / "runs" / f"{name}_seed={seed}"
        return run_trained(
            bundle, cohort, run, [*presets, *ARMS[arm]], {**overrides, "seed": seed, "device_name": device}
        )

    def network(arm: str, seed: int) -> Network:
        run = trained(arm, seed)
        return searching(run, device) if arm == ANOGAN else trained_network(run, device)

    def result(arm: str, seed: int) -> dict[str, Any]:
        def train_and_measure() -> dict[str, Any]:
            logger.info("%s with seed %d, of %d", arm, seed, seeds)
            detector = network(arm, seed)
            return {"arm": arm, "seed": seed, **measured(detector, data()), **detector.inversion(data().healthy)}

        return once(folder / "results" / f"{file_name(arm)}_seed={seed}.json", train_and_measure)

    def control(name: str, make: Callable[[], Detect]) -> dict[str, Any]:
        path = folder / "results" / f"{file_name(name)}.json"
        return once(path, lambda: {"arm": name, "seed": None, **measured(make(), data())})

    data = _Data(lambda: Setting.of(trained(F_ANOGAN, 0), cohort, sources, device))
    # All arms with one seed, then with the next: a study that is stopped has compared them.
    results = [result(arm, seed) for seed in range(seeds) for arm in ARMS]
    results += [control(name, make) for name, make in controls(data().setting, translator).items()]
    frame = over_seeds(
        [{**each, **group, "group": name} for each in results for name, group in each["groups"].items()],
        ["arm", "group"],
        [*METRICS, "bright_precision", "correlation", "error", "milliseconds"],
    )
    page = _page(frame, results, data(), seeds)
    page += f"\n\n{_reductions(bundle, trained(F_ANOGAN, 0), data())}"
    if not (folder / "maps.png").is_file():
        shown = {arm: network(arm, 0) for arm in ARMS}
        _write_maps(folder / "maps.png", data(), shown, controls(data().setting, None))
    write_study(folder, page, frame, results, lambda path: _figure(frame).savefig(path, dpi=150))
    return page


class _Data:
    """The slices that detectors are measured on, read when they are first asked for."""

    def __init__(self, setting: Callable[[], Setting]) -> None:
        self._make, self._ready = setting, False

    def __call__(self) -> "_Data":
        if not self._ready:
            self.setting = self._make()
            self.validation, self.test = self.setting.slices("validation"), self.setting.slices("test")
            self.healthy = self.setting.slices("test", HEALTHY)
            self._ready = True
        return self


def measured(detect: Detect, data: "_Data") -> dict[str, Any]:
    """All metrics of a detector.

    Args:
        detect: makes maps and scores of slices.
        data: with the slices `validation`, which choose the threshold, and `test`.

    Returns:
        `threshold`; `groups`, of all patients and of each source: the metrics of `METRICS`, and `share`, of pixels that
        are lesion; `patients`, the average precision of each patient with a lesion; `correlation`, that of the map's
        ranks with those of the equalised intensity; and `bright_precision`, the average precision among the pixels that
        are bright by these, with `bright_share`, of them that are lesion.
    """
    chosen = detect(data.validation)
    threshold, _ = best_threshold(*_pixels(chosen, data.validation))
    found, slices = detect(data.test), data.test
    groups = {name: _scored(found, slices, members, threshold) for name, members in slices.groups().items()}
    patients = {}
    for patient in dict.fromkeys(slices.patients.tolist()):
        maps, lesions = _pixels(found, slices, torch.from_numpy(slices.patients == patient))
        if lesions.any():
            patients[patient] = average_precision(maps, lesions)
    rank, (maps, lesions) = ranks(slices)[slices.tissue], _pixels(found, slices)
    bright = rank >= BRIGHT
    return {
        "threshold": threshold,
        "groups": groups,
        "patients": patients,
        "correlation": _number(float(spearmanr(maps.numpy(), rank.numpy()).statistic)),
        "bright_precision": _number(average_precision(maps[bright], lesions[bright])),
        "bright_share": float(lesions[bright].float().mean()),
    }


def _pixels(found: Found, slices: Slices, members: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Anomaly, and whether it is lesion, of the pixels of head or body of some slices."""
    chosen = slice(None) if members is None else members
    tissue = slices.tissue[chosen]
    return found.maps[chosen][tissue], slices.lesions[chosen][tissue]


def _scored(found: Found, slices: Slices, members: Tensor, threshold: float) -> dict[str, float | None]:
    maps, lesions = _pixels(found, slices, members)
    called = maps >= threshold
    return {
        "average_precision": average_precision(maps, lesions),
        "dice": 2 * float((called & lesions).sum()) / float(called.sum() + lesions.sum()),
        "best_dice": best_threshold(maps, lesions)[1],
        "auroc": _number(auroc(found.scores[members], slices.lesions[members].flatten(1).any(dim=1))),
        "share": float(lesions.float().mean()),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _page(frame: pd.DataFrame, results: Sequence[dict[str, Any]], data: _Data, seeds: int) -> str:
    groups = data.test.groups()
    parts = []
    for name, members in groups.items():
        of_group = frame[frame["group"] == name]
        patients = len(set(data.test.patients[members.numpy()]))
        share = next(each["groups"][name]["share"] for each in results)
        heading = "All patients" if name == POOLED else name
        parts.append(
            f"### {heading}: {count(patients, 'patient')}, {count(int(members.sum()), 'slice')}, "
            f"{100 * share:.1f} % of the pixels are lesion\n\n{_metrics(of_group)}"
        )
    parts.append(f"### Inversion of {count(len(data.healthy.images), 'held-out healthy slice')}\n\n{_inversion(frame)}")
    over = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "**One seed, so without deviation**"
    parts.append(
        f"{over}; controls have one result. Best of a column in bold. A map that knows nothing has an average "
        "precision of the lesions' share, and an AUROC of 0.5."
    )
    parts += [_verdict(frame, results), _beyond(frame, results[0]["bright_share"])]
    return "\n\n".join(parts)


def _metrics(frame: pd.DataFrame) -> str:
    best = {metric: frame[metric].max() for metric in METRICS}
    rows = []
    for _, row in frame.iterrows():
        cells = {metric: mean_sd(row, metric, digits) for metric, (_, digits) in METRICS.items()}
        rows.append([row["arm"], *(f"**{cells[m]}**" if row[m] == best[m] else cells[m] for m in METRICS)])
    return table(["detector", *(label for label, _ in METRICS.values())], rows)


def _inversion(frame: pd.DataFrame) -> str:
    pooled = frame[frame["group"] == POOLED]
    rows = [
        [row["arm"], mean_sd(row, "error", 2), mean_sd(row, "milliseconds", 2)]
        for _, row in pooled.iterrows()
        if not pd.isna(row["error"])
    ]
    return table(["inversion", "mean absolute error, % of the window ↓", "milliseconds a slice ↓"], rows)


def _beyond(frame: pd.DataFrame, share: float) -> str:
    """What maps know that intensities do not."""
    rows = [
        [row["arm"], mean_sd(row, "correlation", 2), mean_sd(row, "bright_precision", 3)]
        for _, row in frame[frame["group"] == POOLED].iterrows()
    ]
    headings = ["detector", "rank correlation with the equalised intensity", "average precision among bright pixels ↑"]
    return (
        f"### What the maps know beyond brightness\n\n{table(headings, rows)}\n\nBright: the brightest tenth of each "
        f"scan's head or body, of which {100 * share:.1f} % is lesion. A map that is an intensity in disguise has the "
        "intensity's correlation, and tells lesions from what is as bright no better than the intensity does."
    )


def _verdict(frame: pd.DataFrame, results: Sequence[dict[str, Any]]) -> str:
    """Whether any detector is better than the best control that saw no mask either, with a test over patients."""
    pooled = frame[frame["group"] == POOLED].set_index("arm")["average_precision"]
    detectors = pooled[list(ARMS)]
    others = pooled.drop([name for name in pooled.index if name in ARMS or str(name).endswith(LEARNED)])
    rival = str(others.idxmax())
    patients = (
        pd.DataFrame(
            [
                {"arm": each["arm"], "patient": patient, "value": value}
                for each in results
                for patient, value in each["patients"].items()
            ]
        )
        .pivot_table(index="patient", columns="arm", values="value")
        .dropna()
    )
    tests = {arm: wilcoxon_signed_rank(patients[arm], patients[rival]) for arm in ARMS}
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    lines = []
    for arm in ARMS:
        value = float(detectors[arm])
        word = "above" if value > others[rival] else "below"
        in_patients = f"{int((patients[arm] > patients[rival]).sum())} of {count(len(patients), 'patient')}"
        lines.append(
            f"- {arm}: {value:.3f}, {word} the best control, {rival} {others[rival]:.3f}; above it in {in_patients}, "
            f"p = {corrected[arm]:.2g}"
        )
    least = min(1.0, min(test.least_p for test in tests.values()) * len(tests))
    powerless = f" **With so few patients no p can be below {least:.2g}.**" if least >= ALPHA else ""
    return (
        "### Pixel average precision against the best control without masks\n\n"
        + "\n".join(lines)
        + "\n\np: two-sided Wilcoxon "
        f"signed-rank test over {len(patients)} patients of their average precision, corrected by Holm for "
        f"{count(len(tests), 'test')}. Pooled pixels weigh patients by their lesions, the test does not.{powerless}"
    )


def _reductions(bundle: Bundle, run: Bundle, data: _Data) -> str:
    """How detectors were trained, and where that departs from the bundle's settings."""
    paper, ours = (read_config(each.config("train")) for each in (bundle, run))
    changed = [
        f"`{name}` {ours[name]} instead of {value}"
        for name, value in paper.items()
        if not isinstance(value, dict) and name not in OWN and ours[name] != value
    ]
    training = data.setting.slices("training", HEALTHY)
    slices, patients = count(len(training.images), "healthy slice"), count(len(set(training.patients)), "patient")
    return (
        f"Trained on {slices} of {patients}; maps and masks on pixels of {data.setting.grid.spacing_mm:g} mm. "
        f"Departures of all arms from the bundle's settings: {'; '.join(changed) or 'none'}."
    )


# Settings that tell where and with what a run was started, not how it was trained.
OWN = ("imports", "bundle_root", "dataset_dir", "output_dir", "device_name", "device", "seed", "resume", "workers",
    "initialize", "run", "finalize")  # fmt: skip


def _write_maps(
    path: Path, data: _Data, networks: Mapping[str, Network], others: Mapping[str, Callable[[], Detect]]
) -> None:
    """Each patient's slice with the largest lesion: the slice, its lesion, and the maps of all detectors."""
    areas = data.test.lesions.sum(dim=(1, 2, 3))
    largest = {}
    for patient in dict.fromkeys(data.test.patients.tolist()):
        index = int(torch.where(torch.from_numpy(data.test.patients == patient), areas, -1).argmax())
        if areas[index] > 0:
            largest[patient] = index
    detectors: dict[str, Detect] = {**networks, **{name: make() for name, make in others.items()}}
    maps = {name: detect(data.test).maps for name, detect in detectors.items()}
    high = {name: max(float(np.percentile(found.numpy(), SHOWN_BRIGHTEST)), 1e-6) for name, found in maps.items()}
    rows = []
    for index in spread(list(largest.values())):
        x, lesion = data.test.images[index, 0].numpy(), data.test.lesions[index, 0].numpy()
        shown = [grey(found[index, 0].numpy(), high[name]) for name, found in maps.items()]
        rows.append([grey(x), outlined(x, lesion), *shown])
    save_png(
        path,
        mosaic(["input", "lesion", *maps], rows, "each map from 0 to its own 99.5th percentile; not for diagnosis"),
    )


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(frame["group"]))
    figure = Figure(figsize=(3 + 2 * len(groups), 4), layout="constrained")
    axes = figure.subplots()
    arms = list(dict.fromkeys(frame["arm"]))
    for number, arm in enumerate(arms):
        rows = frame[frame["arm"] == arm].set_index("group").loc[groups]
        places = np.arange(len(groups)) + 0.8 * (number / len(arms) - 0.4)
        axes.errorbar(
            places, rows["average_precision"], yerr=rows["average_precision_sd"], marker="o" if arm in ARMS else "x",
            linestyle="none", capsize=3, color=f"C{number}", label=arm,
        )  # fmt: skip
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel("pixel average precision; crosses: controls")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
