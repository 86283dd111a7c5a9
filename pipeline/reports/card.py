"""The performance sections of a bundle's model card, from the records of evaluations."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.bundles import Bundle, read_config
from pipeline.comparison import read_report
from pipeline.errors import UsageError, printable
from pipeline.files import sha256, written_aside
from pipeline.metrics import Metric
from pipeline.reports.evaluation_report import judge_text, score_text, scores_table
from pipeline.reports.markdown import count, escaped, table

BEGIN = "<!-- performance: written by `phs-pipeline card`, edit what is around it -->"
END = "<!-- end of performance -->"


def card_path(bundle: Bundle) -> Path:
    """Where the card is."""
    return bundle.root / "docs" / "README.md"


def card(bundle: Bundle, reports: Sequence[Path], pictures: bool) -> str:
    """The bundle's card, with what the reports measured between its two markers; prose around them stays.

    Args:
        bundle: whose card.
        reports: folders written by `phs-pipeline evaluate`, with or without `--healthy`.
        pictures: show the best, median and worst case of reports that have pictures, see `copy_pictures`.

    Raises:
        UsageError: if the card has no markers, or a folder is no report, or one of other weights.
    """
    path = card_path(bundle)
    text = path.read_text(encoding="utf-8")
    before, begun, rest = text.partition(f"{BEGIN}\n")
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise UsageError(
            f"{path}: found no place for the tables, expected the lines `{BEGIN}` and `{END}`; put them where the "
            "tables belong"
        )
    sections = [section for report in reports for section in _sections(bundle, report, pictures)]
    return f"{before}{begun}\n" + "\n\n".join(sections) + f"\n\n{END}{after}"


def copy_pictures(bundle: Bundle, reports: Sequence[Path]) -> None:
    """Put the reports' pictures beside the card; only where the licence of the scans allows that they are published."""
    for report in filter(_has_picture, reports):
        with written_aside(card_path(bundle).with_name(_picture(report))) as aside:
            shutil.copyfile(report / "cases.png", aside)


def _sections(bundle: Bundle, report: Path, pictures: bool) -> list[str]:
    summary = read_config(report / "summary.json")
    if "scores" not in summary:
        summary = read_report(report).summary
    _check_weights(bundle, report, summary)
    made = _healthy(bundle, report, summary) if "scores" in summary else _evaluated(bundle, summary)
    if pictures and _has_picture(report):
        order = ", ".join(f"{case['title']} ({escaped(case['subject'])})" for case in summary["cases"])
        made.append(
            f"![Cases]({_picture(report)})\n\nFrom top to bottom: {order}. Pseudo-healthy images are synthetic."
        )
    return made


def _evaluated(bundle: Bundle, summary: dict[str, Any]) -> list[str]:
    cohort = summary["cohort"]
    metrics = [Metric.from_record(record) for record in summary["metrics"]]
    who = f"{count(cohort['slices'], cohort['unit'])} of {count(cohort['patients'], 'patient')}"
    name = _measured(bundle, summary)
    judge = [] if summary["judge"] is None else [judge_text(summary["judge"], cohort["split"])]
    return [
        f"### {'On' if name == bundle.name else f'{escaped(name)} on'} the {cohort['split']} patients",
        f"{who}, cohort {cohort['sha256'][:12]}…; mean ± standard deviation over patients (n):",
        f"    phs-pipeline evaluate -b {name} --data COHORT --split {cohort['split']} -o REPORT",
        scores_table(metrics, summary["methods"]),
        *judge,
    ]


def _healthy(bundle: Bundle, report: Path, summary: dict[str, Any]) -> list[str]:
    try:
        metrics = [Metric.from_record(record) for record in summary["metrics"]]
        rows = [[metric.heading, score_text(metric, summary["scores"][metric.name])] for metric in metrics]
        who = (
            f"{count(summary['slices'], 'slice')} of {count(summary['patients'], 'patient')}: {escaped(summary['of'])}"
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{report}: its summary.json is damaged, expected a report; run `phs-pipeline evaluate --healthy` again"
        ) from error
    return [
        "### Identity on the healthy",
        f"Where there is no disease, nothing should change. {who}; mean ± standard deviation over patients (n):",
        f"    phs-pipeline evaluate -b {_measured(bundle, summary)} --healthy --data COHORT -o REPORT",
        table(["", escaped(_measured(bundle, summary))], rows),
    ]


def _measured(bundle: Bundle, summary: dict[str, Any]) -> str:
    """Name of what was measured, on one line: the bundle, or two that are used together."""
    return printable(str(summary["provenance"].get("Bundle", bundle.name)))


def _check_weights(bundle: Bundle, report: Path, summary: dict[str, Any]) -> None:
    """Figures of other weights do not belong into the card."""
    provenance = summary.get("provenance") or {}
    measured = provenance.get("WeightsSha256")
    if "+" in str(measured):  # of bundles that are used together, such as lesion+fill
        names, weights = (str(provenance.get(key)).split("+") for key in ("Bundle", "WeightsSha256"))
        measured = dict(zip(names, weights, strict=False)).get(bundle.name)
    ours = sha256(bundle.weights) if bundle.weights.is_file() else None
    if measured != ours:
        raise UsageError(
            f"{report}: measured weights {str(measured)[:12]}, expected those of {bundle.name}, {str(ours)[:12]}; "
            "evaluate the bundle again"
        )


def _has_picture(report: Path) -> bool:
    return (report / "cases.png").is_file()


def _picture(report: Path) -> str:
    return f"cases_{sha256(report / 'cases.png')[:8]}.png"
