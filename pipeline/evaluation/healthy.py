"""Identity on the healthy: how much a method changes where there is nothing to remove."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline import RESEARCH_ONLY, __version__
from pipeline.errors import OutputError, PipelineError, ScanError, UsageError
from pipeline.evaluation.predictions import pseudo_healthy
from pipeline.evaluation.probes import AREA_MM2, regions
from pipeline.evaluation.scores import DEFINITIONS, over_patients, patient_values, score_rows, score_volumes
from pipeline.evaluation.volumes import HEALTHY, Volume, read_volume, subjects_with
from pipeline.inference import Translator
from pipeline.inference.change import CHANGE
from pipeline.inference.outputs import BIDS
from pipeline.metrics import Metric, psnr, ssim
from pipeline.metrics.catalogue import IDENTICAL
from pipeline.preprocessing.cohort_format import Subject
from pipeline.preprocessing.domain import compare
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.slab import WHOLE
from pipeline.scans.sources import Source

FORMAT = 2

# A volume when it is its turn, and what the user should know of it.
Load = Callable[[], tuple[Volume, list[str]]]


def _changed(twin: Tensor, image: Tensor, foreground: Tensor) -> dict[str, Tensor]:
    changed = foreground & ((twin - image).abs() > CHANGE)
    return {"pixels": foreground.sum(dim=(1, 2, 3)), "changed_pixels": changed.sum(dim=(1, 2, 3))}


def _regions(sign: int, twin: Tensor, image: Tensor, foreground: Tensor, spacing_mm: tuple[float, float]) -> Tensor:
    found = (foreground & (sign * (twin - image) > CHANGE))[:, 0].cpu().numpy()
    return torch.tensor([regions(mask, math.prod(spacing_mm)) for mask in found], dtype=torch.float32)


SIZE = f"regions of {AREA_MM2:g} mm² or more"
FIELDS = ("twin", "image", "foreground")
HEALTHY_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "changed_share", "tissue changed, %",
            f"share of head or body that differs by more than {CHANGE:g} of the intensity window",
            2, "lower", FIELDS, "volume", 0.0, headline=True, factor=100, measure=_changed,
            combine=lambda rows: float(rows["changed_pixels"].sum()) / max(1, float(rows["pixels"].sum())),
        ),
        Metric(
            "appeared_per_slice", "regions appeared, a slice", f"{SIZE} that became brighter by as much",
            2, "lower", (*FIELDS, "spacing_mm"), "slice", 0.0, headline=True, measure=partial(_regions, 1),
        ),
        Metric(
            "vanished_per_slice", "regions vanished, a slice", f"{SIZE} that became darker by as much",
            2, "lower", (*FIELDS, "spacing_mm"), "slice", 0.0, headline=True, measure=partial(_regions, -1),
        ),
        Metric(
            "psnr", "tissue PSNR, dB", "against the input over head or body, peak 1",
            2, "higher", FIELDS, "slice", math.inf, IDENTICAL, headline=True,
            measure=lambda twin, image, foreground: psnr(twin, image, mask=foreground),
        ),
        Metric(
            "ssim", "tissue SSIM", "against the input over head or body; windows see head or body only",
            4, "higher", FIELDS, "slice", 1.0, IDENTICAL, headline=True,
            measure=lambda twin, image, foreground: ssim(twin, image, mask=foreground),
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class HealthyEvaluation:
    """What was measured.

    Attributes:
        summary: the content of `summary.json`.
        volumes: a row for each volume.
    """

    summary: dict[str, Any]
    volumes: pd.DataFrame


def evaluate_healthy(
    translator: Translator,
    loads: Mapping[str, Load],
    name: str,
    provenance: Mapping[str, Any],
    of: str,
    progress: Callable[[int, int], None] | None = None,
) -> HealthyEvaluation:
    """Measure how much a method changes healthy tissue, one volume in memory at a time.

    Args:
        translator: the trained method; its device is used throughout.
        loads: the volumes by name, from `cohort_loads` or `scan_loads`.
        name: of the method.
        provenance: where the method comes from (bundle, hashes), for the summary.
        of: what the volumes are, for the report.
        progress: called with (volumes done, volumes in all).

    Returns:
        Among the summary `scores`, by metric `mean`, `sd`, `n`, `identical`, over patients as in
        `pipeline.evaluation.scores.DEFINITIONS`; `failed` and `warnings` by volume.

    Raises:
        UsageError: if no volume can be used.
    """
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    warnings: dict[str, list[str]] = {}
    for done, (subject, load) in enumerate(loads.items(), start=1):
        try:
            volume, unlike = load()
            rows += _measured(name, volume, pseudo_healthy(translator, volume))
            if unlike:
                warnings[subject] = unlike
        except OutputError:
            raise
        except PipelineError as error:
            failed[subject] = str(error)
        if progress:
            progress(done, len(loads))
    if not rows:
        raise UsageError(f"no scan could be used: {'; '.join(failed.values())}")
    metrics = list(HEALTHY_METRICS.values())
    volumes = score_volumes(pd.DataFrame(rows), metrics)
    patients = patient_values(volumes, metrics)
    summary = {
        "format": FORMAT,
        "pipeline_version": __version__,
        "warning": RESEARCH_ONLY,
        "method": name,
        "provenance": dict(provenance),
        "device": str(translator.device),
        "of": of,
        "patients": len(patients),
        "volumes": len(volumes),
        "slices": int(volumes["slices"].sum()),
        "metrics": [metric.record() for metric in metrics],
        "scores": {metric.name: over_patients(patients[metric.name]) for metric in metrics},
        "definitions": DEFINITIONS,
        "warnings": warnings,
        "failed": failed,
    }
    return HealthyEvaluation(summary, volumes.drop(columns="method"))


def cohort_loads(cohort: Path, split: str) -> dict[str, Load]:
    """The slices without lesion of a preprocessed cohort's split.

    Raises:
        UsageError: if there are none, or the folder is no preprocessed cohort.
    """
    records = subjects_with(cohort, split, HEALTHY)
    if not records:
        raise UsageError(
            f"{cohort}: found no slice without lesion in the {split} split, expected some; choose another split, or "
            "preprocess with a wider slab"
        )
    return {record.subject: partial(_from_cohort, cohort, record) for record in records}


def scan_loads(named: Mapping[str, Source], translator: Translator, metadata: Mapping[str, Any]) -> dict[str, Load]:
    """Scans of persons without the disease, in the slab and window that the method was trained on.

    Args:
        named: the scans; one of a BIDS name belongs to its `sub-`, any other is a patient of its own.
        translator: whose slab and window.
        metadata: of the bundle, for what it was trained on.
    """
    return {name: partial(_from_scan, name, source, translator, metadata) for name, source in named.items()}


def _from_cohort(cohort: Path, record: Subject) -> tuple[Volume, list[str]]:
    return read_volume(cohort, record, HEALTHY), []


def _from_scan(
    name: str, source: Source, translator: Translator, metadata: Mapping[str, Any]
) -> tuple[Volume, list[str]]:
    scan = source.read()
    intensities = scan.intensities()
    windowed = translator.window.window(intensities, source.path).apply(scan.axial(intensities))
    slice_mm, *pixel_mm = scan.axial_spacing_mm
    first, last = (translator.slab or WHOLE).range(len(windowed), slice_mm)
    image = torch.from_numpy(np.ascontiguousarray(windowed[first:last, None]))
    inside = torch.from_numpy(foreground(windowed)[first:last, None])
    if not inside.any():
        raise ScanError(f"{source.path}: found nothing brighter than air in the slab, expected a head or body")
    findings = compare(scan, windowed, metadata)
    volume = Volume(
        subject=name,
        patient=name.partition("_")[0] if BIDS.fullmatch(name) else name,
        slice_mm=slice_mm,
        spacing_mm=(pixel_mm[0], pixel_mm[1]),
        places=list(range(last - first)),
        image=image,
        lesion=torch.zeros_like(inside),
        foreground=inside,
        truth=None,
    )
    return volume, [*findings.refusals, *findings.warnings]


def _measured(method: str, volume: Volume, twin: Tensor) -> list[dict[str, Any]]:
    """A row a slice."""
    keys = {"method": method, "patient": volume.patient, "subject": volume.subject}
    given = {
        "twin": twin,
        "image": volume.image.to(twin.device),
        "foreground": volume.foreground.to(twin.device),
        "spacing_mm": volume.spacing_mm,
    }
    return score_rows(keys, volume.places, given, HEALTHY_METRICS.values())
