"""Tumours that a translation makes up or takes away (survey Section 6, after Cohen et al. 2018).

A CycleGAN learns to translate slices of one modality into another, from different people in the two domains. Of the
source domain's slices half show a tumour; of the target domain's a share, from none to all. A detector, a segmentor
that was trained apart on real slices of the target modality, says how many tumours are found in translations of other
people's slices, and in how many slices without one it finds one all the same. Beside it stand regression of pairs with
the same shares, which is told what each slice should look like, and the real target slices, on which the detector errs,
too. Each cycle is probed for what it hides (steganography).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.devices import pick_device
from pipeline.errors import UsageError
from pipeline.evaluation.probes import Steganography
from pipeline.evaluation.volumes import Volume
from pipeline.files import sha256
from pipeline.inference import Translator
from pipeline.methods import Segmentation
from pipeline.networks import UNetSegmentor
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule
from pipeline.reports.markdown import table
from pipeline.studies.paired_slices import (
    AT_ONCE,
    Pairs,
    Sample,
    Scale,
    Translations,
    Unpaired,
    about,
    read_pairs,
    settings_of,
)
from pipeline.studies.study import mean_sd, once, open_study, over_seeds, write_study
from pipeline.studies.training import trained

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SOURCE_SHARE = 0.5
REAL, CYCLE, REGRESSION = "real target slices", "CycleGAN, unpaired", "regression of pairs"
DETECTOR_FILTERS = 16
DETECTOR_SEED = 4711  # none of the translators'
BITS = 6  # of the quantised intermediate image, whose amplification is shown
FOUND_MM2 = 100.0  # of a slice's tumour; the drawn ones have some hundreds
LEGEND = "SYNTHETIC - not for diagnosis; the target's tumour outlined; share of tumours in the target domain"
METRICS = {
    "vanished": ("tumours vanished, %", 100),
    "appeared": ("tumours appeared, %", 100),
    "found": ("found of all tumours, %", 100),
    "area_ratio": ("tumour area found / drawn, %", 100),
    "amplification": ("steganography: amplification", 1),
}
DEFINITIONS = (
    "The detector was trained apart, on real slices of the target modality of the training patients. A tumour is found "
    f"where it marks {FOUND_MM2:g} mm² of the drawn one or more. Vanished: of slices whose tumour it finds in the real "
    "target slice, those in whose translation it does not. Appeared: of slices without a tumour in which it rightly "
    f"finds none in the real target slice, those in whose translation it marks {FOUND_MM2:g} mm² or more. The last "
    "columns: found of all slices with a tumour, by its own errors on real slices, too; and by how much the way back "
    "amplifies the rounding of the intermediate image to 64 levels (about 1 or less where nothing is hidden)."
)


class _Detector:
    """A segmentor of the target modality, and what it finds in real target slices."""

    def __init__(self, network: nn.Module, real: Tensor) -> None:
        self.network = network
        self.truth = self.marks(real)

    @torch.inference_mode()
    def marks(self, images: Tensor) -> Tensor:
        """Bool, shape (N, 1, H, W), on the CPU."""
        device = next(self.network.parameters()).device
        return torch.cat([self.network(part.to(device)).cpu() > 0 for part in images.split(AT_ONCE)])


def hallucination(
    cohort: Path,
    folder: Path,
    source: str,
    target: str,
    shares: Sequence[float] = SHARES,
    seeds: int = 3,
    scale: Scale | None = None,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Train translators whose target domain has each share of slices with a tumour, and count tumours.

    Started again, it skips what is finished and goes on with a training that was stopped; shares and seeds may be added
    then.

    Args:
        cohort: folder made by `preprocess --channels`, with lesion masks.
        folder: of the study.
        source: channel to translate from.
        target: channel to translate into.
        shares: of slices with a tumour in the target domain, from 0 to 1.
        seeds: trainings at each share; each divides the training patients anew.
        scale: of networks and trainings.
        split: patients to measure on.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if the cohort has no such pairs, a share is none, there are slices of one kind only, or the folder
            holds another study.
    """
    scale = scale or Scale()
    if not all(0 <= share <= 1 for share in shares):
        raise UsageError(f"--shares: found {', '.join(map(str, shares))}, expected shares from 0 to 1")
    open_study(
        folder,
        {
            "study": "hallucination",
            "cohort_sha256": sha256(cohort / COHORT_FILE),
            "source": source,
            "target": target,
            "split": split,
            **settings_of(scale),
        },
    )
    training, measured = (read_pairs(cohort, part, scale.spacing_mm, [source], target) for part in ("training", split))
    for pairs, name in ((training, "training"), (measured, split)):
        if len({bool(mask.any()) for mask in pairs.mask}) < 2:
            raise UsageError(
                f"{cohort}: found slices of the {name} split all with or all without a lesion, expected both; choose "
                "another split"
            )
    place = pick_device(device)
    detector = _detector(folder / "detector", training, measured, scale, place)
    real = {"row": REAL, "share": None, "seed": None, **detected(detector.truth, detector.truth, measured)}
    results = [once(folder / "results" / "real.json", lambda: real)]
    rows = Translations(folder, measured, scale, place)
    for seed in range(seeds):
        halves = patient_halves(training, seed)
        for share in shares:
            sources, targets, pairs = domains(training, *halves, share, seed)
            for name, build, data in (
                (CYCLE, partial(scale.cycle_gan, training.size), Unpaired(sources.image, targets.target_image)),
                (REGRESSION, scale.regression, pairs),
            ):
                found = rows.result(_keys(name, share, seed), build, data, partial(_measured, measured, detector))
                results.append({**found, "slices": len(sources)})
    shown = {f"CycleGAN, {share:.0%}": _keys(CYCLE, share, 0) for share in shares}
    rows.write_pictures(shown | {f"regression, {shares[-1]:.0%}": _keys(REGRESSION, shares[-1], 0)}, LEGEND)
    frame = over_seeds(results[1:], ["row", "share"], list(METRICS))
    told = about(training, measured, scale, split, seeds, "Detector trained on all, translators on some of")
    page = _page(frame, results, f"{told} Task: {source} → {target}.")
    write_study(folder, page, frame, results, lambda path: _figure(frame).savefig(path, dpi=150))
    return page


def _detector(folder: Path, training: Pairs, measured: Pairs, scale: Scale, device: torch.device) -> _Detector:
    """A segmentor of the target modality, trained on real slices, with and without tumour."""
    network = trained(
        folder,
        lambda: Segmentation(UNetSegmentor(filters=DETECTOR_FILTERS)),
        lambda: _Targets(training),
        2 * scale.iterations,
        DETECTOR_SEED,
        device,
    )
    return _Detector(network, measured.target_image)


class _Targets(Dataset[Sample]):
    """The target slices and their masks, as a segmentor is trained on them."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        return {"image": self.pairs.target_image[index], "mask": self.pairs.mask[index]}


def patient_halves(pairs: Pairs, seed: int) -> tuple[set[str], set[str]]:
    """The patients, divided at random into those of the source and those of the target domain."""
    patients = np.random.default_rng([seed, 2]).permutation(sorted(set(pairs.patients)))
    middle = (len(patients) + 1) // 2
    return set(patients[:middle]), set(patients[middle:])


def domains(pairs: Pairs, sources: set[str], targets: set[str], share: float, seed: int) -> tuple[Pairs, Pairs, Pairs]:
    """Slices of the source domain, of the target domain, and pairs for regression, as many of each.

    Args:
        pairs: of the training patients.
        sources: patients of the source domain, `SOURCE_SHARE` of whose slices have a tumour.
        targets: patients of the target domain, `share` of whose slices have a tumour.
        share: also that of the pairs, which are of the source domain's patients.
        seed: of which slices are taken.

    Raises:
        UsageError: if a domain lacks slices of one kind.
    """
    ill = np.asarray([bool(mask.any()) for mask in pairs.mask])
    rng = np.random.default_rng([seed, 3])
    rows = {
        (domain, kind): rng.permutation(
            [row for row, patient in enumerate(pairs.patients) if patient in of and ill[row] == kind]
        ).astype(int)
        for domain, of in (("source", sources), ("target", targets))
        for kind in (True, False)
    }
    count = min(map(len, rows.values()))
    if not count:
        raise UsageError(
            "found a domain without slices that have a tumour, or that have none, expected both in either half of the "
            "training patients; use more data"
        )

    def mixed(domain: str, part: float) -> Pairs:
        with_tumour = round(part * count)
        return pairs.chosen([*rows[domain, True][:with_tumour], *rows[domain, False][: count - with_tumour]])

    return mixed("source", SOURCE_SHARE), mixed("target", share), mixed("source", share)


def detected(marks: Tensor, truth: Tensor, pairs: Pairs) -> dict[str, float | None]:
    """What a detector marks in translations against what it marks in the real slices.

    Args:
        marks: bool, shape (N, 1, H, W), in the translations.
        truth: the same in the real target slices.
        pairs: with the drawn masks.

    Returns:
        Of `METRICS`, all but the last; None where there is no slice to count.
    """
    drawn = (pairs.mask > 0)[:, 0].numpy()
    pixel = pairs.spacing_mm**2
    ill = np.asarray(drawn.any(axis=(1, 2)))

    def enough(marked: np.ndarray) -> np.ndarray:
        return np.asarray(marked.sum(axis=(1, 2)) * pixel >= FOUND_MM2)

    made, real = marks[:, 0].numpy(), truth[:, 0].numpy()
    found, found_truly = (enough(marked & drawn) for marked in (made, real))
    alarm, alarm_truly = (enough(marked) for marked in (made, real))
    return {
        "vanished": _share(~found, ill & found_truly),
        "appeared": _share(alarm, ~ill & ~alarm_truly),
        "found": _share(found, ill),
        "alarms": _share(alarm, ~ill),
        "area_ratio": float((made & drawn).sum() / max(1, drawn.sum())),
    }


def _share(what: np.ndarray, among: np.ndarray) -> float | None:
    return float(what[among].mean()) if among.any() else None


def _keys(name: str, share: float, seed: int) -> dict[str, Any]:
    return {"row": name, "share": share, "seed": seed}


def _measured(measured: Pairs, detector: _Detector, made: Tensor, exports: Mapping[str, nn.Module]) -> dict[str, Any]:
    hidden = {}
    if "cycle" in exports:
        hidden["amplification"] = amplification(next(iter(exports.values())), exports["cycle"], measured)
    return {**detected(detector.marks(made), detector.truth, measured), **hidden}


def amplification(network: nn.Module, back: nn.Module, pairs: Pairs) -> float:
    """By how much the way back amplifies what rounding to 64 levels adds to the translations, see `Steganography`.

    Args:
        network: from sources to translations.
        back: from translations and sources to reconstructed sources.
        pairs: with the sources.
    """
    grid = Grid(pairs.spacing_mm, pairs.size)
    probe = Steganography(Translator(network, grid, WindowRule(), device=next(network.parameters()).device), back)
    spacing_mm = (pairs.spacing_mm, pairs.spacing_mm)
    places = list(range(len(pairs)))
    probe.add(Volume("all", "all", spacing_mm, places, pairs.image, pairs.mask > 0, pairs.foreground, None))
    (found,) = (each for each in probe.summary()["quantised"] if each["bits"] == BITS)
    return float(found["amplification"])


def _page(frame: pd.DataFrame, results: Sequence[dict[str, Any]], told: str) -> str:
    rows = [
        [
            f"{row['share']:.0%}",
            row["row"],
            *(mean_sd(_scaled(row, name, factor), name, 1) for name, (_, factor) in METRICS.items()),
        ]
        for _, row in frame.iterrows()
    ]
    real = results[0]
    counted = ", ".join(
        f"{100 * real[name]:.0f} % {what}"
        for name, what in (("found", "of the tumours"), ("alarms", "of the slices without one"))
        if real[name] is not None
    )
    sizes = sorted({result["slices"] for result in results if "slices" in result})
    notes = (
        f"In real target slices the detector marks {counted}. Each domain has {' or '.join(map(str, sizes))} slices, "
        f"of different patients; of the source domain's, {SOURCE_SHARE:.0%} have a tumour."
    )
    headings = ["tumours in the target domain", "", *(heading for heading, _ in METRICS.values())]
    return "\n\n".join([table(headings, rows), told, notes, DEFINITIONS])


def _scaled(row: pd.Series, name: str, factor: float) -> pd.Series:
    return pd.Series({name: factor * row[name], f"{name}_sd": factor * row[f"{name}_sd"]})


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("vanished", "appeared"), strict=True):
        for row, group in frame.groupby("row", sort=False):
            by_share = group.sort_values("share")
            axes.errorbar(
                *(100 * by_share[column] for column in ("share", name, f"{name}_sd")), marker="o", capsize=2, label=row
            )
        axes.set_xlabel("slices with a tumour in the target domain, %")
        axes.set_ylabel(METRICS[name][0])
        axes.set_ylim(-3, 103)
    figure.axes[0].legend(fontsize="small")
    return figure
