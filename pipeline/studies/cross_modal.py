"""Does translating other modalities help to predict in one? DUIIT (Yang and Xie 2020), Tables 1 to 5, Figs. 2 and 3.

Each split of the target modality's patients is drawn anew, and on each every method is trained and measured.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.bundles import find_bundle
from pipeline.devices import pick_device
from pipeline.errors import UsageError
from pipeline.files import sha256
from pipeline.mosaic import grey, mosaic, save_png
from pipeline.preprocessing.cohort_format import COHORT_FILE, read_cohort
from pipeline.preprocessing.join import SHARES, Modality, SplitBy, join
from pipeline.studies.cross_modal_methods import (
    BUNDLE,
    PAPER,
    Row,
    Scale,
    Split,
    images_of,
    rows_of,
    translated,
)
from pipeline.studies.cross_modal_tables import CYCLE_GAN, FLOOR, OURS, UNTRANSLATED, figure, page, tables
from pipeline.studies.feature_network import FeatureNetwork, halves, of_cohort, of_photographs, quality, shuffled
from pipeline.studies.study import file_name, once, open_study, write_study

logger = logging.getLogger(__name__)

COLUMNS = 4  # of Fig. 2


def cross_modal(
    target: Modality,
    sources: Sequence[Modality],
    folder: Path,
    splits: int = 10,
    scale: Scale = PAPER,
    by: SplitBy = "patient",
    target_labels: bool = True,
    features: Path | None = None,
    device: str = "auto",
) -> str:
    """Train every method on several splits, and compare their errors on the test images of the target modality.

    Started again, it skips what is finished and goes on with a training that was stopped; splits may be added then.
    `splits/` holds the cohorts, `runs/` the trainings, `results/` their errors.

    Args:
        target: modality that is predicted from.
        sources: one or more others, of other patients.
        folder: of the study.
        splits: how many, drawn with the seeds 0, 1, …, which are the trainings' too.
        scale: sizes; see `PRESETS`.
        by: what is split.
        target_labels: whether domain adaptation is shown the labels of the target modality.
        features: torchvision's weights of ResNet-50, for FID and inception score; None trains a network on the cohort.
        device: where to compute.

    Returns:
        The tables, in Markdown.

    Raises:
        UsageError: if the cohorts do not fit, their target is none that can be regressed, or the folder holds another
            study.
    """
    if not sources:
        raise UsageError("found no source modality, expected at least one; give --source COHORT")
    cohorts = [target, *sources]
    open_study(
        folder,
        {
            "study": "cross-modal",
            "cohorts_sha256": [sha256(each.cohort / COHORT_FILE) for each in cohorts],
            "names": [each.name for each in cohorts],
            "scale": asdict(scale),
            "by": by,
            "target_labels": target_labels,
            "features_sha256": features and sha256(features),
            "bundle_config_sha256": sha256(find_bundle(BUNDLE).config("train")),
        },
    )
    where = pick_device(device)
    results: list[dict[str, Any]] = []
    qualities: list[dict[str, Any]] = []
    network: FeatureNetwork | None = None
    for seed in range(splits):
        cohort = folder / "splits" / f"seed={seed}"
        if not (cohort / COHORT_FILE).is_file():
            join(cohort, target, sources, SHARES, seed, by)
        split = Split(cohort, folder, seed, scale, where, device, target_labels)
        if network is None:
            network = _feature_network(split, features)
        for row in rows_of(split.sources):
            logger.info("split %d of %d: %s", seed + 1, splits, row.name)
            path = folder / "results" / f"{file_name(row.name)}_split={seed}.json"
            results.append(once(path, partial(_measured, split, row)))
        path = folder / "results" / f"quality_split={seed}.json"
        qualities += once(path, partial(_qualities, split, network))["rows"]
        if seed == 0:
            _pictures(split, folder)
            about = _about(split)
    if network is None:
        raise UsageError(f"{folder}: found {splits} splits, expected at least one")
    frame, made = tables(results, qualities, about)
    departures = _departures(scale)
    text = page(frame, made, about, splits, by, network.name, departures, target_labels)
    write_study(folder, text, frame, [*results, *qualities], lambda path: figure(results).savefig(path, dpi=150))
    return text


def _measured(split: Split, row: Row) -> dict[str, Any]:
    """The squared errors of a method on the test images of a split."""
    started = time.monotonic()
    predict = row.predict(split, row)
    seconds = time.monotonic() - started
    slices = split.held_out("test")
    answers = predict(slices)
    targets = torch.cat([slices[index]["target"] for index in range(len(slices))])
    errors = ((answers - targets) ** 2).double()
    scans = np.unique([subject.subject for subject in slices.subject_of], return_inverse=True)[1]
    patients = np.array(slices.patients)
    of_scans = [float((answers - targets)[scans == scan].mean()) ** 2 for scan in np.unique(scans)]
    return {
        "row": row.name,
        "kind": row.kind,
        "sources": list(row.sources),
        "split": split.seed,
        "error": float(errors.mean()),
        "scan_error": float(np.mean(of_scans)),
        "patients": {patient: float(errors[patients == patient].mean()) for patient in np.unique(patients)},
        "images": len(slices),
        "steps": split.steps,
        "seconds": round(seconds, 1),
    }


def _feature_network(split: Split, weights: Path | None) -> FeatureNetwork:
    if weights is not None:
        return of_photographs(weights, split.device)
    modalities = {split.target: split.slices.target, **split.slices.sources}
    run = split.folder / "runs" / "feature_network"
    return of_cohort(run, modalities, split.scale.filters, split.scale.feature_steps, split.device)


def _qualities(split: Split, network: FeatureNetwork) -> dict[str, Any]:
    """FID and inception score: of real images, of source images as they are, and translated (Table 5)."""
    real, others = halves([split.slices.target, split.held_out("validation"), split.held_out("test")], split.seed)
    splits = split.scale.is_splits
    rows = [{"kind": FLOOR, "source": "", **quality(network, others, real, splits)}]
    for source, slices in split.slices.sources.items():
        images = shuffled([slices[index]["image"] for index in range(len(slices))], split.seed)
        rows.append({"kind": UNTRANSLATED, "source": source, **quality(network, images, real, splits)})
        for kind in (CYCLE_GAN, OURS):
            made = translated(split.translators([source], guided=kind == OURS)[source], images, split.device)
            rows.append({"kind": kind, "source": source, **quality(network, made, real, splits)})
    return {"rows": [{"split": split.seed, **row} for row in rows]}


def _pictures(split: Split, folder: Path) -> None:
    """Fig. 2: translations of each source. Fig. 3: those of CycleGAN beside ours."""
    second: list[list[Any]] = []
    third: list[list[Any]] = []
    for source, slices in split.slices.sources.items():
        places = np.linspace(0, len(slices) - 1, 2 * COLUMNS + 1).round().astype(int)[1::2]
        images = images_of(slices, places)
        ours, theirs = (
            translated(split.translators([source], guided)[source], images, split.device) for guided in (True, False)
        )
        panels = [[grey(each[0].numpy()) for each in row] for row in (images, ours, theirs)]
        second += panels[:2]
        third += [[a, b, c] for a, c, b in zip(*panels, strict=True)]
    titles = [f"{' and '.join(split.sources)}; below each, as {split.target}", *[""] * (COLUMNS - 1)]
    save_png(folder / "fig2.png", mosaic(titles, second))
    save_png(folder / "fig3.png", mosaic(["source", "CycleGAN", "DUIIT"], third))


def _about(split: Split) -> dict[str, Any]:
    """Table 1, and how the split's sizes are."""
    content = read_cohort(split.cohort)
    having = {name: content.having([name]) for name in (split.target, *split.sources)}
    return {
        "target": content.settings.target or "target",
        "modalities": [
            {
                "modality": name,
                "images": sum(len(subject.labels) for subject in subjects),
                "patients": len({subject.patient for subject in subjects}),
            }
            for name, subjects in having.items()
        ],
        "counts": {
            name: len({subject.patient for subject in having[split.target] if subject.split == name})
            for name in ("training", "validation", "test")
        },
        "pixels": list(split.scale.size),
        "spacing_mm": split.scale.spacing_mm,
        "steps": split.steps,
    }


def _departures(scale: Scale) -> list[str]:
    """Where the scale is not the paper's."""
    ours, theirs = asdict(scale), asdict(PAPER)
    return [f"{name} {ours[name]} (paper: {theirs[name]})" for name in ours if ours[name] != theirs[name]]
