"""From reports to one table: who is best in what, and is it significant."""

import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.comparison.significance import ALPHA, PairedTest, holm, wilcoxon_signed_rank
from pipeline.comparison.summary_format import Summary
from pipeline.errors import UsageError
from pipeline.evaluation.bracketed import BRACKETS
from pipeline.evaluation.evaluate import FORMAT
from pipeline.evaluation.scores import KEYS, patient_values
from pipeline.files import TABLE_FILE, small_text, table_cell
from pipeline.metrics import A_DICE, Metric

LEARNED_METHOD, CONTROL, BRACKET = "learned method", "control", "bracket of A-Dice"

# As a cohort has them: they become names of files.
SUBJECT = re.compile(r"\w[\w.-]*")
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
        metrics: that were measured, by name, those that rank methods.
        a_dice: scores by name of the row, empty where A-Dice was not measured.
    """

    folder: Path
    method: str
    summary: dict[str, Any]
    volumes: pd.DataFrame
    metrics: dict[str, Metric]
    a_dice: dict[str, "Cell"]

    @property
    def paired(self) -> list[Metric]:
        """The metrics of which each patient has a value."""
        return [metric for metric in self.metrics.values() if metric.level != "pooled"]

    @property
    def controls(self) -> list[str]:
        """Names of the controls, in the report's order."""
        return [name for name in self.volumes["method"].unique() if name != self.method]


@dataclass(frozen=True)
class Cell:
    """One row's score in one metric.

    Attributes:
        mean: over patients (A-Dice: over seeds), each the mean over trainings; None where there is no finite value.
        sd: standard deviation (n − 1 in the denominator); None for a single value and for pooled figures.
        n: patients (A-Dice: seeds) that have a value.
        without_mean: of these, patients of infinite PSNR, or seeds that collapsed.
        sd_trainings: standard deviation over trainings of the mean over patients; None for a single training.
        identical: every patient's image equals its reference, which is no achievement: neither best nor tested.
        best: no other row of the metric has a better mean.
        test: against the metric's best baseline; None where nothing was tested.
        p_corrected: its p-value, corrected by Holm within the metric over the rows of the same kind.
        mark: `better` or `worse` than the best baseline if `p_corrected` is below `ALPHA`, else empty.
    """

    mean: float | None
    sd: float | None
    n: int
    without_mean: int = 0
    sd_trainings: float | None = None
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
    trainings: int = 1


@dataclass(frozen=True)
class Comparison:
    """A table of methods and metrics, and what it was made from.

    Attributes:
        rows: learned methods in the order of their reports, then controls, then brackets of A-Dice.
        metrics: columns; those in which a row has a score.
        baselines: names of the rows that others are measured against.
        tested_against: by paired metric the best baseline, or None where no baseline can be one.
        unranked: why no row is the best in a metric, by its name; for A-Dice that tells nothing on too little data.
        cohort: of the reports' summaries: sha256, split, patients, volumes, slices.
        judge: of the reports' summaries; None where nothing was judged.
        a_dice: settings of A-Dice, None where no report has it.
        brackets_differ: the largest difference of a bracket's A-Dice between reports.
        sources: for each report its folder and the provenance of its method.
    """

    rows: list[Row]
    metrics: list[Metric]
    baselines: list[str]
    tested_against: dict[str, str | None]
    unranked: dict[str, str]
    cohort: dict[str, Any]
    judge: dict[str, Any] | None
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
        text = small_text(folder / "summary.json")
        summary = json.loads(text)
        if summary["format"] != FORMAT:
            raise UsageError(
                f"{folder}: is a report of format {summary['format']!r}, expected {FORMAT}, whose metrics describe "
                "themselves; run `phs-pipeline evaluate` again"
            )
        Summary.model_validate_json(text)
        described = [Metric.from_record(record) for record in summary["metrics"]]
        metrics = {metric.name: metric for metric in described if metric.ranked}
        paired = [metric.name for metric in metrics.values() if metric.level != "pooled"]
        # A method may be called NA or 007.
        volumes = pd.read_csv(
            io.StringIO(small_text(folder / "patients.csv", TABLE_FILE)),
            dtype=dict.fromkeys(KEYS, "str") | dict.fromkeys(paired, float),
            keep_default_na=False,
            na_values={metric: [""] for metric in paired},
        )  # fmt: skip
        # As the table's cells have them, which no spreadsheet takes for a formula.
        names = {table_cell(name): name for name in (summary["method"], *summary["methods"])}
        volumes["method"] = [_printable(names.get(cell, cell)) for cell in volumes["method"]]
        method = _printable(summary["method"])
        report = Report(folder, method, summary, volumes, metrics, _a_dice(summary["a_dice"]))
        subjects = {method: sorted(rows) for method, rows in volumes.groupby("method")["subject"]}
        whole = (
            {report.method, *map(_printable, summary["methods"])} == set(subjects)
            and all(theirs == sorted(set(volumes["subject"])) for theirs in subjects.values())
            and volumes["patient"].nunique() == summary["cohort"]["patients"]
            and volumes["subject"].nunique() == summary["cohort"]["volumes"]
            and all(SUBJECT.fullmatch(str(name)) for name in volumes["subject"])
            and set(paired) <= set(volumes)
            and all(_figures(report, str(name)) is not None for name in subjects)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _damaged(folder) from error
    if not whole:
        raise _damaged(folder)
    return report


def compare(reports: Sequence[Report], baselines: Sequence[str] = (), trainings: bool = False) -> Comparison:
    """Put the reports' methods into one table.

    In each paired metric the best of the baselines is found by its mean, and every row that is no baseline is tested
    against it over patients. Holm's correction runs over the learned methods compared in that metric; controls, where
    they are no baselines themselves, are corrected among themselves and make no method's test stricter.

    Args:
        reports: of the same cohort, split and judge.
        baselines: names of learned methods or controls; the controls if none is given.
        trainings: whether reports of the same name are trainings of one method, as the three trials of GVS, Table I:
            each patient then has the mean over the trainings.

    Raises:
        UsageError: if the reports cannot stand in one table, or a baseline is not among the rows.
    """
    _check_comparable(reports, trainings)
    kinds = dict.fromkeys((report.method for report in reports), LEARNED_METHOD)
    kinds |= dict.fromkeys((name for report in reports for name in report.controls), CONTROL)
    for name in baselines:
        if name not in kinds:
            raise UsageError(f"{name}: is no row of the table, expected a baseline among: {', '.join(kinds)}")
    chosen = list(dict.fromkeys(baselines)) or [name for name, kind in kinds.items() if kind == CONTROL]

    sources = {name: _reports_of(name, reports) for name in kinds}
    patients = {name: _patients(name, of) for name, of in sources.items()}
    cells = {name: _scores(name, of) for name, of in sources.items()}
    for name in {row: None for report in reports for row in report.a_dice}:
        seeds = [report.a_dice[name] for report in reports if name in report.a_dice]
        cells.setdefault(name, {})[A_DICE.name] = _over_trainings(
            seeds if kinds.get(name) == LEARNED_METHOD else seeds[:1]
        )

    columns = {metric.name: metric for report in reports for metric in report.metrics.values()}
    metrics = [metric for metric in columns.values() if any(metric.name in scores for scores in cells.values())]
    measured = [report for report in reports if report.a_dice]
    unranked = _unranked(measured, kinds, cells)
    for metric in metrics:
        if metric.name not in unranked:
            _mark_best(metric, kinds, cells)
    tested_against = {
        metric.name: _test(metric, chosen, kinds, patients, cells) for metric in metrics if metric.level != "pooled"
    }
    kinds |= dict.fromkeys((name for name in BRACKETS if name in cells), BRACKET)
    return Comparison(
        rows=[Row(name, kind, cells[name], _trainings(name, kind, sources)) for name, kind in kinds.items()],
        metrics=metrics,
        baselines=chosen,
        tested_against=tested_against,
        unranked=unranked,
        cohort=reports[0].summary["cohort"],
        judge=reports[0].summary["judge"],
        a_dice=measured[0].summary[A_DICE.name]["settings"] if measured else None,
        brackets_differ=max((_between(measured[0].a_dice, report.a_dice) for report in measured), default=0.0),
        sources=[
            {"method": report.method, "report": str(report.folder), "provenance": report.summary.get("provenance")}
            for report in reports
        ],
    )


def _a_dice(content: dict[str, Any] | None) -> dict[str, Cell]:
    return {
        _printable(name): Cell(
            mean=score["mean"],
            sd=score["sd"],
            n=len(score["seeds"]),
            without_mean=sum(score["collapsed"]),
        )
        for name, score in (content["images"] if content else {}).items()
    }


def _between(first: dict[str, Cell], second: dict[str, Cell]) -> float:
    """The largest difference of a bracket's A-Dice."""
    pairs = [(first[name].mean, second[name].mean) for name in BRACKETS if name in first and name in second]
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def _unranked(measured: Sequence[Report], kinds: dict[str, str], cells: dict[str, dict[str, Cell]]) -> dict[str, str]:
    """Where A-Dice cannot tell rows apart: its segmentor learned not even what is there, or nothing of some rows."""
    if not measured:
        return {}
    if not all(report.summary[A_DICE.name]["learned"] for report in measured):
        return {A_DICE.name: "the lesions of the original images themselves were not learned in so short a training"}
    floor = cells[BRACKETS[1]][A_DICE.name].mean if BRACKETS[1] in cells else 0.0
    means = [cells[name][A_DICE.name].mean for name in kinds if A_DICE.name in cells[name]]
    if floor is not None and A_DICE.text(floor) == A_DICE.text(0.0) and A_DICE.text(0.0) in map(A_DICE.text, means):
        return {A_DICE.name: "rows stand at the floor, 0, as the lower bracket does; so short a training tells no rank"}
    return {}


def _reports_of(name: str, reports: Sequence[Report]) -> list[Report]:
    """All trainings of a method; of a control, which no training changes, the first report that has it."""
    own = [report for report in reports if report.method == name]
    return own or [next(report for report in reports if name in report.controls)]


def _trainings(name: str, kind: str, sources: dict[str, list[Report]]) -> int:
    return len(sources[name]) if kind == LEARNED_METHOD else 1


def _rows(name: str, report: Report) -> pd.DataFrame:
    return report.volumes[report.volumes["method"] == name]


def _figures(report: Report, name: str) -> dict[str, Any]:
    """A method's pooled figures by metric, as `summary.json` has them."""
    by_method = {_printable(method): scores["metrics"] for method, scores in report.summary["methods"].items()}
    pooled = [metric for metric in report.metrics.values() if metric.level == "pooled" and metric.name != A_DICE.name]
    return {metric.name: by_method[name][metric.name] for metric in pooled}


def _patients(name: str, reports: Sequence[Report]) -> pd.DataFrame:
    """Each patient's values, the mean over the trainings; infinite where those of all trainings are."""
    each = pd.concat([patient_values(_rows(name, report), report.paired) for report in reports])
    finite = each.replace(np.inf, np.nan).groupby(level=0, sort=False).mean()
    return finite.fillna(each.groupby(level=0, sort=False).max())


def _scores(name: str, reports: Sequence[Report]) -> dict[str, Cell]:
    scores: dict[str, Cell] = {}
    patients = _patients(name, reports)
    single = [_patients(name, [report]) for report in reports]
    for metric in reports[0].metrics.values():
        if metric.name == A_DICE.name:
            continue
        if metric.level == "pooled":
            figures = [_figures(report, name)[metric.name] for report in reports]
            cell = _over_trainings([Cell(figure["mean"], None, figure["n"]) for figure in figures])
        else:
            means = [_cell(metric, values[metric.name]).mean for values in single]
            cell = replace(_cell(metric, patients[metric.name]), sd_trainings=_deviation(means))
        if cell.n:
            scores[metric.name] = cell
    return scores


def _cell(metric: Metric, values: pd.Series) -> Cell:
    known = values.dropna()
    finite = known[np.isfinite(known)]
    return Cell(
        mean=float(finite.mean()) if len(finite) else None,
        sd=float(finite.std(ddof=1)) if len(finite) > 1 else None,
        n=len(known),
        without_mean=len(known) - len(finite),
        identical=bool(len(known)) and metric.is_perfect(known),
    )


def _over_trainings(cells: Sequence[Cell]) -> Cell:
    """Of the figures of several trainings; of a single one, its own."""
    means = [cell.mean for cell in cells if cell.mean is not None]
    if len(cells) == 1 or not means:
        return cells[0]
    deviations = [cell.sd for cell in cells if cell.sd is not None]
    return Cell(
        mean=float(np.mean(means)),
        sd=float(np.mean(deviations)) if deviations else None,
        n=sum(cell.n for cell in cells) if deviations else cells[0].n,
        without_mean=sum(cell.without_mean for cell in cells),
        sd_trainings=_deviation(means),
    )


def _deviation(means: Sequence[float | None]) -> float | None:
    known = [mean for mean in means if mean is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def _mark_best(metric: Metric, names: Iterable[str], cells: dict[str, dict[str, Cell]]) -> None:
    """Where two or more rows can be the best: to be the best of one is no distinction."""
    means = {
        name: cell.mean
        for name in names
        if (cell := cells[name].get(metric.name)) and cell.mean is not None and not cell.identical
    }
    if len(means) > 1:
        best = metric.best(means.values())
        for name, mean in means.items():
            cells[name][metric.name] = replace(cells[name][metric.name], best=mean == best)


def _test(
    metric: Metric,
    baselines: Sequence[str],
    kinds: dict[str, str],
    patients: dict[str, pd.DataFrame],
    cells: dict[str, dict[str, Cell]],
) -> str | None:
    """Test all rows that are no baseline against the best baseline, which is returned."""
    scored = {name: cell for name in patients if (cell := cells[name].get(metric.name)) and not cell.identical}
    means = {name: cell.mean for name, cell in scored.items() if name in baselines and cell.mean is not None}
    if not means:
        return None
    wanted = metric.best(means.values())
    best = next(name for name, mean in means.items() if mean == wanted)
    for kind in (LEARNED_METHOD, CONTROL):
        tests = {
            name: wilcoxon_signed_rank(*_paired(patients[name][metric.name], patients[best][metric.name]))
            for name in scored
            if name not in baselines and kinds[name] == kind
        }
        corrected = holm([test.p for test in tests.values()])
        for (name, test), p in zip(tests.items(), corrected, strict=True):
            gain = test.direction if metric.better == "higher" else -test.direction
            mark = ("worse", "better")[gain > 0] if p < ALPHA else ""
            cells[name][metric.name] = replace(cells[name][metric.name], test=test, p_corrected=p, mark=mark)
    return best


def _paired(first: pd.Series, second: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The second in the patients' order of the first."""
    return first, second.reindex(first.index)


def _check_comparable(reports: Sequence[Report], trainings: bool) -> None:
    taken = {*BRACKETS, *(name for report in reports for name in report.controls)}
    for report in reports:
        if report.method in taken:
            raise UsageError(
                f"{report.folder}: its method is named {report.method}, which is the name of a control; evaluate it "
                "again with another --name"
            )
    for first, second in combinations(reports, 2):
        if first.method == second.method:
            _check_trainings(first, second, trainings)
        _check_same_cohort(first, second)
        _check_same_metrics(first, second)
    holders: dict[str, Report] = {}
    for report in reports:
        for name in report.controls:
            _check_control(name, holders.setdefault(name, report), report)


def _check_trainings(first: Report, second: Report, trainings: bool) -> None:
    if not trainings:
        raise UsageError(
            f"{first.folder} and {second.folder}: both name their method {first.method}, expected different names; "
            "evaluate one of them again with another --name, or give --trainings if they are trainings of one method"
        )
    weights = [(report.summary.get("provenance") or {}).get("WeightsSha256") for report in (first, second)]
    if weights[0] is not None and weights[0] == weights[1]:
        raise UsageError(
            f"{first.folder} and {second.folder}: are of the same weights, expected different trainings of "
            f"{first.method}; give each once"
        )


def _check_same_metrics(first: Report, second: Report) -> None:
    for name in set(first.metrics) & set(second.metrics):
        if first.metrics[name] != second.metrics[name]:
            raise _unlike(first, second, f"the definition of {name}")
    settings = [report.summary[A_DICE.name]["settings"] for report in (first, second) if report.a_dice]
    if len(settings) == 2 and settings[0] != settings[1]:
        raise _unlike(first, second, "the settings of A-Dice")


def _check_same_cohort(first: Report, second: Report) -> None:
    for what, section, key in (
        ("cohort (sha256)", "cohort", "sha256"),
        ("split", "cohort", "split"),
        ("judge (weights_sha256)", "judge", "weights_sha256"),
    ):
        ours, theirs = (str((report.summary[section] or {}).get(key)) for report in (first, second))
        if ours != theirs:
            raise _unlike(first, second, f"{what}: {ours[:12]} and {theirs[:12]}")
    for what in ("patient", "subject"):
        if odd := set(first.volumes[what]) ^ set(second.volumes[what]):
            raise _unlike(first, second, f"their {what}s: {min(odd)} is in one of them only")


def _check_control(name: str, first: Report, second: Report) -> None:
    ours, theirs = (_scores(name, [report]) for report in (first, second))
    for metric in set(first.metrics) & set(second.metrics):
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
