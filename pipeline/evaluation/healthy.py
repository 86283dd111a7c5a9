"""Identity on the healthy: how much a method changes where there is nothing to remove."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline import RESEARCH_ONLY, __version__
from pipeline.errors import OutputError, PipelineError, ScanError, UsageError
from pipeline.evaluation.evaluate import pseudo_healthy
from pipeline.evaluation.judge import SLICES_AT_ONCE
from pipeline.evaluation.probes import AREA_MM2, CHANGE, Hallucination
from pipeline.evaluation.scores import _mean, _over_patients
from pipeline.evaluation.volumes import HEALTHY, Volume, read_volume, subjects_with
from pipeline.inference import Translator
from pipeline.inference.outputs import BIDS
from pipeline.metrics import psnr, ssim
from pipeline.preprocessing.cohort_format import Subject
from pipeline.preprocessing.domain import compare
from pipeline.preprocessing.foreground import foreground
from pipeline.reports.evaluation_report import write_healthy_report
from pipeline.scans.sources import Source

METRICS = ("changed_share", "appeared_per_slice", "vanished_per_slice", "psnr", "ssim")

# A volume when it is its turn, and what the user should know of it.
Load = Callable[[], tuple[Volume, list[str]]]


def evaluate_healthy(
    synthesizer: Translator,
    loads: Mapping[str, Load],
    report_dir: Path,
    name: str,
    provenance: dict[str, Any],
    of: str,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure how much a method changes healthy tissue, one volume in memory at a time.

    Args:
        synthesizer: the trained method; its device is used throughout.
        loads: the volumes by name, from `cohort_loads` or `scan_loads`.
        report_dir: receives patients.csv, report.md and summary.json.
        name: of the method.
        provenance: where the method comes from (bundle, hashes), for the summary.
        of: what the volumes are, for the report.
        overwrite: write into a folder that holds something.
        progress: called with (volumes done, volumes in all).

    Returns:
        The content of `summary.json`: `metrics`, by metric `mean`, `sd`, `n`, `identical`, over patients as in
        `pipeline.evaluation.scores.DEFINITIONS`; `failed` and `warnings` by volume.

    Raises:
        UsageError: if no volume can be used, or the report's folder is not empty.
    """
    report_dir = Path(report_dir)
    if report_dir.exists() and not overwrite and (not report_dir.is_dir() or any(report_dir.iterdir())):
        raise UsageError(f"{report_dir}: exists and is not empty; choose another folder, or give --overwrite")
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    warnings: dict[str, list[str]] = {}
    for done, (subject, load) in enumerate(loads.items(), start=1):
        try:
            volume, unlike = load()
            rows.append(_measure(volume, pseudo_healthy(synthesizer, volume)))
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
    volumes = pd.DataFrame(rows)
    patients = volumes.groupby("patient", sort=False)[list(METRICS)].agg(_mean)
    summary = {
        "format": 1,
        "pipeline_version": __version__,
        "warning": RESEARCH_ONLY,
        "method": name,
        "provenance": provenance,
        "device": str(synthesizer.device),
        "of": of,
        "patients": len(patients),
        "volumes": len(volumes),
        "slices": int(volumes["slices"].sum()),
        "metrics": {metric: _over_patients(patients[metric]) for metric in METRICS},
        "change": CHANGE,
        "area_mm2": AREA_MM2,
        "warnings": warnings,
        "failed": failed,
    }
    write_healthy_report(report_dir, summary, volumes)
    return summary


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


def scan_loads(named: Mapping[str, Source], synthesizer: Translator, metadata: Mapping[str, Any]) -> dict[str, Load]:
    """Scans of persons without the disease, in the slab and window that the method was trained on.

    Args:
        named: the scans; one of a BIDS name belongs to its `sub-`, any other is a patient of its own.
        synthesizer: whose slab and window.
        metadata: of the bundle, for what it was trained on.
    """
    return {name: partial(_from_scan, name, source, synthesizer, metadata) for name, source in named.items()}


def _from_cohort(cohort: Path, record: Subject) -> tuple[Volume, list[str]]:
    return read_volume(cohort, record, HEALTHY), []


def _from_scan(
    name: str, source: Source, synthesizer: Translator, metadata: Mapping[str, Any]
) -> tuple[Volume, list[str]]:
    scan = source.read()
    intensities = scan.intensities()
    windowed = synthesizer.window.window(intensities, source.path).apply(scan.axial(intensities))
    slice_mm, *pixel_mm = scan.axial_spacing_mm
    first, last = synthesizer.slab.range(len(windowed), slice_mm)
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


def _measure(volume: Volume, twin: Tensor) -> dict[str, Any]:
    """One row: the probe's counts, and the mean PSNR and SSIM of the slices over head or body."""
    probe = Hallucination()
    probe.add("healthy_slices", volume, twin)
    columns: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for parts in zip(*(t.split(SLICES_AT_ONCE) for t in (twin, volume.image, volume.foreground)), strict=True):
        x_s, x, inside = (part.to(twin.device) for part in parts)
        columns["psnr"] += psnr(x_s, x, inside).tolist()
        columns["ssim"] += ssim(x_s, x, inside).tolist()
    return {
        "patient": volume.patient,
        "subject": volume.subject,
        **probe.summary()["healthy_slices"],
        **{name: _mean(pd.Series(values)) for name, values in columns.items()},
    }
