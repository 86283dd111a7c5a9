"""From reports to one table: who is best in what, and is it significant."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.comparison.significance import ALPHA, PairedTest, holm, wilcoxon_signed_rank
from pipeline.errors import UsageError
from pipeline.metrics import healthiness_of_counts

POOLED = "healthiness_pooled"
A_DICE = "a_dice"
# Higher is better in all but A-Dice. Pooled healthiness is one figure, and A-Dice runs over seeds: no patient has one.
PAIRED = ("healthiness", "identity", "ssim_normal", "psnr_normal", "psnr_lesion", "ssim_lesion")
METRICS = (POOLED, *PAIRED, A_DICE)
BRACKETS = {"original": "original images", "healthy": "healthy slices, random masks"}

# What the table needs of `summary.json` and `patients.csv`.
COHORT = {"sha256": str, "split": str, "slices": int}
JUDGE = {"network": str, "seed": int, "iterations": int, "dice": dict, "weights_sha256": str}
KEYS = ["method", "patient", "subject"]
PIXELS = ["lesion_pixels", "predicted_pixels"]

# What an image scores that equals its reference, up to the rounding of 32-bit numbers.
PERFECT = {
    "identity": 1 - 1e-6,
    "ssim_normal": 1 - 1e-6,
    "ssim_lesion": 1 - 1e-6,
    "psnr_normal": np.inf,
    "psnr_lesion": np.inf,
}
# Controls of two reports may differ by this much in a mean: GPU and CPU do not round alike.
AGREEMENT = 0.005


@dataclass(frozen=True)
class Report:
    """An evaluation of one learned method and of the controls.

    Attributes:
        folder: where it lies.
        method: name of the learned method, in printable characters.
        summary: content of `summary.json`.
        volumes: content of `patients.csv`, one row for each method and volume.
        a_dice: scores by name of the row, empty where A-Dice was not measured.
    """

    folder: Path
    method: str
    summary: dict[str, Any]
    volumes: pd.DataFrame
    a_dice: dict[str, "Cell"]

    @property
    def controls(self) -> list[str]:
        """Names of the controls, in the report's order."""
        return [name for name in self.volumes["method"].unique() if name != self.method]


@dataclass(frozen=True)
class Cell:
    """One row's score in one metric.

    Attributes:
        mean: over patients (A-Dice: over seeds); None where there is no finite value.
        sd: standard deviation (n − 1 in the denominator); None for a single value and for pooled healthiness.
        n: patients (A-Dice: seeds) that have a value.
        without_mean: of these, patients of infinite PSNR, or seeds that collapsed.
        identical: every patient's image equals its reference, which is no achievement: neither best nor tested.
        best: no other row of the metric has a better mean.
        test: against the metric's best baseline; None where nothing was tested.
        p_corrected: its p-value, corrected by Holm within the metric.
        mark: `better` or `worse` than the best baseline if `p_corrected` is below `ALPHA`, else empty.
    """

    mean: float | None
    sd: float | None
    n: int
    without_mean: int = 0
    identical: bool = False
    best: bool = False
    test: PairedTest | None = None
    p_corrected: float | None = None
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A method, a control, or a bracket of A-Dice; `cells` has the metrics that it has a score in."""

    name: str
    kind: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Comparison:
    """A table of methods and metrics, and what it was made from.

    Attributes:
        rows: learned methods in the order of their reports, then controls, then brackets of A-Dice.
        metrics: columns, of `METRICS`; those in which a row has a score.
        baselines: names of the rows that others are measured against.
        tested_against: by paired metric the best baseline, or None where no baseline can be one.
        cohort: of the reports' summaries: sha256, split, patients, volumes, slices.
        judge: of the reports' summaries.
        a_dice: settings of A-Dice, None where no report has it.
        brackets_differ: the largest difference of a bracket's A-Dice between reports.
        sources: for each report its folder and the provenance of its method.
    """

    rows: list[Row]
    metrics: list[str]
    baselines: list[str]
    tested_against: dict[str, str | None]
    cohort: dict[str, Any]
    judge: dict[str, Any]
    a_dice: dict[str, Any] | None
    brackets_differ: float
    sources: list[dict[str, Any]]


def read_report(folder: Path) -> Report:
    """Read a folder written by `phs-pipeline evaluate`.

    Raises:
        UsageError: if it is none, or damaged.
    """
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        raise UsageError(f"{folder}: holds no summary.json, expected a report; make one with `phs-pipeline evaluate`")
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        # A method may be called NA or 007.
        volumes = pd.read_csv(
            folder / "patients.csv",
            dtype=dict.fromkeys(KEYS, "str") | dict.fromkeys(PAIRED, float) | dict.fromkeys(PIXELS, int),
            keep_default_na=False,
            na_values={metric: [""] for metric in PAIRED},
        )  # fmt: skip
        volumes["method"] = volumes["method"].map(_printable)
        report = Report(folder, _printable(summary["method"]), summary, volumes, _a_dice(summary.get(A_DICE)))
        subjects = {method: sorted(rows) for method, rows in volumes.groupby("method")["subject"]}
        whole = (
            summary["format"] == 1
            and {report.method, *map(_printable, summary["methods"])} == set(subjects)
            and all(theirs == sorted(set(volumes["subject"])) for theirs in subjects.values())
            and volumes["patient"].nunique() == summary["cohort"]["patients"]
            and volumes["subject"].nunique() == summary["cohort"]["volumes"]
            and all(isinstance(summary["cohort"][key], kind) for key, kind in COHORT.items())
            and all(isinstance(summary["judge"][key], kind) for key, kind in JUDGE.items())
            and (not report.a_dice or "settings" in summary[A_DICE])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(folder) from error
    if not whole:
        raise _damaged(folder)
    return report


def compare(reports: Sequence[Report], baselines: Sequence[str] = ()) -> Comparison:
    """Put the reports' methods into one table.

    In each paired metric the best of the baselines is found by its mean, and every row that is no baseline is tested
    against it over patients; Holm's correction runs over the rows tested in that metric.

    Args:
        reports: of the same cohort, split and judge, each of another method.
        baselines: names of learned methods or controls; the controls if none is given.

    Raises:
        UsageError: if the reports cannot stand in one table, or a baseline is not among the rows.
    """
    _check_comparable(reports)
    kinds = dict.fromkeys((report.method for report in reports), "learned method")
    kinds |= dict.fromkeys((name for report in reports for name in report.controls), "control")
    for name in baselines:
        if name not in kinds:
            raise UsageError(f"{name}: is no row of the table, expected a baseline among: {', '.join(kinds)}")
    chosen = list(dict.fromkeys(baselines)) or [name for name, kind in kinds.items() if kind == "control"]

    volumes = {name: rows for report in reversed(reports) for name, rows in report.volumes.groupby("method")}
    patients = {name: _patients(volumes[name]) for name in kinds}
    cells = {name: _scores(volumes[name]) for name in kinds}
    for report in reversed(reports):
        for name, score in report.a_dice.items():
            cells.setdefault(name, {})[A_DICE] = score

    metrics = [metric for metric in METRICS if any(metric in scores for scores in cells.values())]
    for metric in metrics:
        _mark_best(metric, kinds, cells)
    tested_against = {metric: _test(metric, chosen, patients, cells) for metric in metrics if metric in PAIRED}
    kinds |= dict.fromkeys((name for name in BRACKETS.values() if name in cells), "bracket of A-Dice")
    measured = [report for report in reports if report.a_dice]
    return Comparison(
        rows=[Row(name, kind, cells[name]) for name, kind in kinds.items()],
        metrics=metrics,
        baselines=chosen,
        tested_against=tested_against,
        cohort=reports[0].summary["cohort"],
        judge=reports[0].summary["judge"],
        a_dice=measured[0].summary[A_DICE]["settings"] if measured else None,
        brackets_differ=max((_between(measured[0].a_dice, report.a_dice) for report in measured), default=0.0),
        sources=[
            {"method": report.method, "report": str(report.folder), "provenance": report.summary.get("provenance")}
            for report in reports
        ],
    )


def _a_dice(content: dict[str, Any] | None) -> dict[str, Cell]:
    return {
        BRACKETS.get(name, _printable(name)): Cell(
            mean=score["mean"],
            sd=score["sd"],
            n=len(score["seeds"]),
            without_mean=sum(score["collapsed"]),
        )
        for name, score in (content["images"] if content else {}).items()
    }


def _between(first: dict[str, Cell], second: dict[str, Cell]) -> float:
    """The largest difference of a bracket's A-Dice."""
    pairs = [(first[name].mean, second[name].mean) for name in BRACKETS.values() if name in first and name in second]
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def _patients(volumes: pd.DataFrame) -> pd.DataFrame:
    """Each patient's mean over volumes, as `pipeline.evaluation.scores` takes it; infinite if all volumes are."""
    metrics = volumes[list(PAIRED)]
    finite = metrics.replace(np.inf, np.nan).groupby(volumes["patient"]).mean()
    return finite.fillna(metrics.groupby(volumes["patient"]).max())


def _scores(volumes: pd.DataFrame) -> dict[str, Cell]:
    patients = _patients(volumes)
    pooled = healthiness_of_counts(int(volumes["predicted_pixels"].sum()), int(volumes["lesion_pixels"].sum()))
    scores = {POOLED: Cell(mean=pooled, sd=None, n=len(patients))}
    for metric in PAIRED:
        known = patients[metric].dropna()
        finite = known[np.isfinite(known)]
        if len(known):
            scores[metric] = Cell(
                mean=float(finite.mean()) if len(finite) else None,
                sd=float(finite.std(ddof=1)) if len(finite) > 1 else None,
                n=len(known),
                without_mean=len(known) - len(finite),
                identical=metric in PERFECT and bool((known >= PERFECT[metric]).all()),
            )
    return scores


def _mark_best(metric: str, names: Iterable[str], cells: dict[str, dict[str, Cell]]) -> None:
    """Where two or more rows can be the best: to be the best of one is no distinction."""
    means = {
        name: cell.mean
        for name in names
        if (cell := cells[name].get(metric)) and cell.mean is not None and not cell.identical
    }
    if len(means) > 1:
        best = min(means.values()) if metric == A_DICE else max(means.values())
        for name, mean in means.items():
            cells[name][metric] = replace(cells[name][metric], best=mean == best)


def _test(
    metric: str, baselines: Sequence[str], patients: dict[str, pd.DataFrame], cells: dict[str, dict[str, Cell]]
) -> str | None:
    """Test all rows that are no baseline against the best baseline, which is returned."""
    scored = {name: cell for name in patients if (cell := cells[name].get(metric)) and not cell.identical}
    means = {name: cell.mean for name, cell in scored.items() if name in baselines and cell.mean is not None}
    if not means:
        return None
    best = max(means, key=means.__getitem__)
    tests = {
        name: wilcoxon_signed_rank(patients[name][metric], patients[best][metric])
        for name in scored
        if name not in baselines
    }
    corrected = holm([test.p for test in tests.values()])
    for (name, test), p in zip(tests.items(), corrected, strict=True):
        mark = ("worse", "better")[test.direction > 0] if p < ALPHA else ""
        cells[name][metric] = replace(cells[name][metric], test=test, p_corrected=p, mark=mark)
    return best


def _check_comparable(reports: Sequence[Report]) -> None:
    taken = {*BRACKETS, *BRACKETS.values(), *(name for report in reports for name in report.controls)}
    for report in reports:
        if report.method in taken:
            raise UsageError(
                f"{report.folder}: its method is named {report.method}, which is the name of a control; evaluate it "
                "again with another --name"
            )
    for first, second in combinations(reports, 2):
        if first.method == second.method:
            raise UsageError(
                f"{first.folder} and {second.folder}: both name their method {first.method}, expected different names; "
                "evaluate one of them again with another --name"
            )
        _check_same_cohort(first, second)
        if first.a_dice and second.a_dice and first.summary[A_DICE]["settings"] != second.summary[A_DICE]["settings"]:
            raise _unlike(first, second, "the settings of A-Dice")
    holders: dict[str, Report] = {}
    for report in reports:
        for name in report.controls:
            _check_control(name, holders.setdefault(name, report), report)


def _check_same_cohort(first: Report, second: Report) -> None:
    for what, section, key in (
        ("cohort (sha256)", "cohort", "sha256"),
        ("split", "cohort", "split"),
        ("judge (weights_sha256)", "judge", "weights_sha256"),
    ):
        ours, theirs = (str(report.summary[section][key]) for report in (first, second))
        if ours != theirs:
            raise _unlike(first, second, f"{what}: {ours[:12]} and {theirs[:12]}")
    for what in ("patient", "subject"):
        if odd := set(first.volumes[what]) ^ set(second.volumes[what]):
            raise _unlike(first, second, f"their {what}s: {min(odd)} is in one of them only")


def _check_control(name: str, first: Report, second: Report) -> None:
    ours, theirs = (_scores(report.volumes[report.volumes["method"] == name]) for report in (first, second))
    for metric in (POOLED, *PAIRED):
        means = [cells[metric].mean if metric in cells else None for cells in (ours, theirs)]
        a, b = (np.nan if mean is None else mean for mean in means)
        if not np.isclose(a, b, rtol=0, atol=AGREEMENT, equal_nan=True):
            raise _unlike(first, second, f"{metric} of the control {name}: {a:.4f} and {b:.4f}")


def _unlike(first: Report, second: Report, difference: str) -> UsageError:
    return UsageError(
        f"{first.folder} and {second.folder}: differ in {difference}; expected reports of the same cohort, split and "
        "judge; evaluate them again, alike"
    )


def _damaged(folder: Path) -> UsageError:
    return UsageError(
        f"{folder}: its summary.json and patients.csv are damaged or do not belong together, expected a report; run "
        "`phs-pipeline evaluate` again"
    )


def _printable(name: str) -> str:
    """In one line; a lone surrogate as `evaluate` writes it into patients.csv."""
    shown = name.encode("utf-8", "backslashreplace").decode()
    return " ".join("".join(letter if letter.isprintable() else " " for letter in shown).split())
