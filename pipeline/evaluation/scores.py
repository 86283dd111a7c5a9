"""From measurements to numbers, for any metric: each slice, each volume, each patient, each method."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from pipeline.metrics.metric import Columns, Metric, measured

KEYS = ["method", "patient", "subject"]
SLICES_AT_ONCE = 16

DEFINITIONS = {
    "mean, sd, n": (
        "each volume is the mean of its slices, each patient the mean of their volumes; mean and standard deviation "
        "(n − 1 in the denominator) run over patients; a slice without any pixel of the tissue that a metric is "
        "taken over has no value for it and enters no mean, and a patient with such slices only is not among the n; "
        "a pooled figure is one number over all slices or scans, without deviation"
    ),
    "identical": (
        "patients among the n in whom every slice equals its reference: their PSNR is infinite and outside mean and "
        "sd; within a volume, the mean PSNR runs over the slices that differ"
    ),
}


def score_rows(
    keys: Mapping[str, Any], places: Sequence[int | None], given: Mapping[str, Any], metrics: Iterable[Metric]
) -> list[dict[str, Any]]:
    """What the metrics measure, a row for each slice.

    Args:
        keys: method, patient and subject, for the rows.
        places: index of each slice in its slab; a single None for a scan as a whole.
        given: the fields that there are, by name, see `Metric.needs`.
        metrics: those whose needs are not met are left out.

    Returns:
        `keys`, `slice`, and a column for each metric of level `slice` and each part of the others. A value is `inf` for
        the PSNR of images that do not differ, and `nan` where no pixel is compared.
    """
    wanted = [metric for metric in metrics if set(metric.needs) <= set(given)]
    columns: dict[str, list[float]] = {}
    for part in _parts(given, len(places)):
        now: dict[str, list[float]] = {}
        for metric in wanted:
            now |= {name: column.tolist() for name, column in measured(metric, part).items() if name not in now}
        for name, values in now.items():
            columns.setdefault(name, []).extend(values)
    return [
        {**keys, "slice": place, **{name: values[row] for name, values in columns.items()}}
        for row, place in enumerate(places)
    ]


def _parts(given: Mapping[str, Any], count: int) -> Iterable[dict[str, Any]]:
    """The fields of some slices at a time; what is no stack of slices belongs to all of them."""
    for first in range(0, count, SLICES_AT_ONCE):
        chosen = slice(first, first + SLICES_AT_ONCE)
        yield {name: value[chosen] if isinstance(value, Tensor) else value for name, value in given.items()}


def score_volumes(rows: pd.DataFrame, metrics: Iterable[Metric]) -> pd.DataFrame:
    """Each volume: the mean of its slices for each metric of level `slice`, sums of parts, and what follows of them.

    Args:
        rows: of `score_rows`, of any number of methods.
        metrics: what to tell; a metric of a patient stands in each of their volumes' rows, pooled ones in none.
    """
    wanted = list(metrics)
    return combined_volumes(volume_sums(rows, wanted), wanted)


def volume_sums(rows: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """Each volume's number of slices, means of the metrics of level `slice`, and sums of parts, by `KEYS`."""
    groups = rows.groupby(KEYS, sort=False)
    of_slices = [metric.name for metric in metrics if metric.level == "slice" and metric.name in rows]
    parts = [name for name in rows.columns if name not in {*KEYS, "slice", *of_slices}]
    volumes = finite_means(rows, KEYS, of_slices) if of_slices else pd.DataFrame(index=groups.size().index)
    volumes.insert(0, "slices", groups.size())
    return volumes.join(groups[parts].sum()) if parts else volumes


def combined_volumes(sums: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """Rows of `volume_sums` with what follows of the parts: metrics of volumes and of patients."""
    added: dict[str, list[float]] = {metric.name: [] for metric in metrics if metric.level in ("volume", "patient")}
    columns = {name: sums[name].to_numpy() for name in sums.columns}
    for place in range(len(sums)):
        row = {name: column[place : place + 1] for name, column in columns.items()}
        for metric in metrics:
            if metric.level == "volume":
                added[metric.name].append(combined(metric, row))
    for metric in metrics:
        if metric.level == "patient":
            values = {key: combined(metric, of) for key, of in sums.groupby(["method", "patient"], sort=False)}
            added[metric.name] = [values[method, patient] for method, patient, _ in sums.index]
    return sums.assign(**added).reset_index()


def score_methods(volumes: pd.DataFrame, metrics: Sequence[Metric]) -> dict[str, dict[str, Any]]:
    """Each method: mean, standard deviation and number of patients for each metric.

    Args:
        volumes: rows of `score_volumes`.
        metrics: what to tell.

    Returns:
        By method `metrics`: by metric `mean`, `sd`, `n`, `identical` as in `DEFINITIONS`; None where a number does not
        exist.
    """
    methods: dict[str, dict[str, Any]] = {}
    for name, rows in volumes.groupby("method", sort=False):
        patients = patient_values(rows, metrics)
        methods[str(name)] = {
            "metrics": {
                metric.name: _pooled(metric, rows) if metric.level == "pooled" else over_patients(patients[metric.name])
                for metric in metrics
            }
        }
    return methods


def patient_values(volumes: pd.DataFrame, metrics: Iterable[Metric]) -> pd.DataFrame:
    """Each patient's mean over their volumes, for each metric that is not pooled, by patient."""
    names = [metric.name for metric in metrics if metric.level != "pooled"]
    if not names:
        return pd.DataFrame(index=volumes["patient"].unique())
    return finite_means(volumes, ["patient"], names)


def finite_means(rows: pd.DataFrame, by: list[str], names: list[str]) -> pd.DataFrame:
    """`mean_of_finite` of some columns within each group."""
    groups = (
        rows[by].assign(**{name: rows[name].where(np.isfinite(rows[name])) for name in names}).groupby(by, sort=False)
    )
    return groups[names].mean().fillna(rows.groupby(by, sort=False)[names].max())


def combined(metric: Metric, rows: Columns) -> float:
    """The metric of some rows together."""
    if metric.combine is None:
        raise ValueError(f"the metric {metric.name!r} of level {metric.level} does not say how rows are combined")
    return metric.combine(rows)


def mean_of_finite(values: pd.Series) -> float:
    """Mean of what is finite; `inf` if all that is known is infinite (identical images), `nan` if nothing is known.

    What is not known, `nan`, is left out: there was no pixel to compare (see `DEFINITIONS`).
    """
    known = values.dropna()
    finite = known[np.isfinite(known)]
    return float(finite.mean() if len(finite) else known.max())


def over_patients(values: pd.Series) -> dict[str, float | int | None]:
    """`mean`, `sd`, `n` and `identical` of one value a patient."""
    known = values.dropna()
    finite = known[np.isfinite(known)]
    return {
        "mean": float(finite.mean()) if len(finite) else None,
        "sd": float(finite.std(ddof=1)) if len(finite) > 1 else None,
        "n": len(known),
        "identical": len(known) - len(finite),
    }


def _pooled(metric: Metric, volumes: pd.DataFrame) -> dict[str, float | int | None]:
    value = combined(metric, volumes)
    known = bool(np.isfinite(value))
    return {
        "mean": value if known else None,
        "sd": None,
        "n": int(volumes["patient"].nunique()) if known else 0,
        "identical": 0,
    }
