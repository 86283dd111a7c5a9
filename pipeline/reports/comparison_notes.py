"""What must be known to read a comparison."""

from typing import Any

from pipeline import RESEARCH_ONLY, __version__
from pipeline.comparison.compare import CONTROL, LEARNED_METHOD, Comparison
from pipeline.comparison.significance import ALPHA, PairedTest
from pipeline.metrics import A_DICE, Metric
from pipeline.reports.evaluation_report import WEAK_JUDGE
from pipeline.reports.markdown import count

KINDS = (LEARNED_METHOD, CONTROL)


def notes(comparison: Comparison) -> list[str]:
    """What must be known to read the table, one matter each, as plain text."""
    return [
        *_reading(comparison),
        *_tests(comparison),
        *_identical(comparison),
        *_a_dice(comparison),
        *_material(comparison),
    ]


def _reading(comparison: Comparison) -> list[str]:
    patients = comparison.cohort["patients"]
    fewer = {
        metric.label: n
        for metric in comparison.metrics
        if metric.level != "pooled"
        and (n := max((row.cells[metric.name].n for row in comparison.rows if metric.name in row.cells), default=0))
        < patients
    }
    exceptions = "".join(f"; n = {n} in {label}" for label, n in fewer.items())
    trainings = {row.name: row.trainings for row in comparison.rows if row.trainings > 1}
    return [
        f"Mean ± standard deviation over patients, n = {patients}, each the mean of their volumes{exceptions}.",
        *([_over_trainings(trainings)] if trainings else []),
        *[
            f"{capitalised(metric.label)} is one figure, without deviation over patients and test."
            for metric in comparison.metrics
            if metric.level == "pooled" and metric.name != A_DICE.name
        ],
        "↑ higher is better, ↓ lower is better; bold is the best of two or more rows.",
    ]


def _over_trainings(trainings: dict[str, int]) -> str:
    counted = ", ".join(f"{name} {number}" for name, number in trainings.items())
    return (
        f"Several trainings of a method ({counted}): each patient has the mean over them, which is tested; in brackets "
        "the standard deviation over trainings of the mean over patients."
    )


def capitalised(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


def _tests(comparison: Comparison) -> list[str]:
    tested, without = [], []
    for metric in comparison.metrics:
        if metric.name not in comparison.tested_against:
            continue
        baseline, tests = comparison.tested_against[metric.name], _tests_of(comparison, metric, *KINDS)
        if baseline is None:
            without.append(metric.label)
        elif tests:
            pairs = max(test.pairs for test in tests)
            tested.append(f"{metric.label} against {baseline} ({count(len(tests), 'row')}, {count(pairs, 'pair')})")
    lines = []
    if tested:
        lines.append(
            f"* better, † worse than the best baseline (by rank sums, p < {ALPHA:g}): two-sided Wilcoxon signed-rank "
            "test over patients, pairs without difference left out, Holm-corrected within each metric over all rows "
            "that are no baseline and of the same kind (learned methods apart from controls). Tested were "
            f"{'; '.join(tested)}."
        )
    lines.append(
        f"Baselines: {', '.join(comparison.baselines) or 'none'}; the best of them by its mean is tested against."
    )
    if without:
        lines.append(f"No baseline can be tested against, so nothing is marked, in {'; '.join(without)}.")
    return [*lines, *no_star(comparison)]


def no_star(comparison: Comparison) -> list[str]:
    """Where no mark is possible, however the methods differ: too few patients for so many rows."""
    short = []
    for metric in comparison.metrics:
        tests = _tests_of(comparison, metric, LEARNED_METHOD)
        if tests and len(tests) * min(test.least_p for test in tests) >= ALPHA:
            short.append(f"{metric.label} ({max(test.differing for test in tests)})")
    if not short:
        return []
    text = (
        f"Too few pairs differ for any mark in {'; '.join(short)}: with fewer than 6 a two-sided Wilcoxon test cannot "
        "fall below 5 %, and with more rows to correct for it takes more (6 suffice for one row, 7 for three, 8 for "
        "six). No star is possible there, so its absence means nothing."
    )
    return [text]


def _tests_of(comparison: Comparison, metric: Metric, *kinds: str) -> list[PairedTest]:
    found = (row.cells[metric.name].test for row in comparison.rows if metric.name in row.cells and row.kind in kinds)
    return [test for test in found if test is not None]


def _identical(comparison: Comparison) -> list[str]:
    named = [
        f"{metric.label} ({', '.join(names)})"
        for metric in comparison.metrics
        if (
            names := [
                row.name for row in comparison.rows if metric.name in row.cells and row.cells[metric.name].identical
            ]
        )
    ]
    if not named:
        return []
    meaning = (
        "Identical: every patient's image equals what it is compared with, as those of controls do that leave normal "
        "tissue alone; that is so by construction, and such a row is neither the best nor a baseline nor tested"
    )
    return [f"{meaning}: {'; '.join(named)}."]


def _a_dice(comparison: Comparison) -> list[str]:
    if comparison.a_dice is None:
        return []
    differ = (
        f" Between reports the brackets differ by up to {comparison.brackets_differ:.3f}; the first report's are shown."
        if comparison.brackets_differ
        else ""
    )
    meaning = (
        "A-Dice: mean ± standard deviation over seeds, without test. Its brackets are the original images, in which "
        "lesions can be learned, and healthy slices with random masks, in which nothing can."
    )
    reason = comparison.unranked.get(A_DICE.name)
    unranked = f" It ranks nothing here, and no row is marked as best: {reason}." if reason else ""
    return [meaning + differ + unranked]


def _material(comparison: Comparison) -> list[str]:
    cohort = comparison.cohort
    counts = ", ".join(
        count(cohort[key], noun)
        for key, noun in (("patients", "patient"), ("volumes", "volume"), ("slices", cohort["unit"]))
    )
    return [
        f"Cohort {cohort['sha256'][:12]} (sha256), {cohort['split']} split: {counts}.",
        *([] if comparison.judge is None else [_judge(comparison.judge, cohort["split"])]),
        f"{RESEARCH_ONLY} phs-pipeline {__version__}.",
    ]


def _judge(judge: dict[str, Any], split: str) -> str:
    dice = judge["dice"].get(split)
    if dice is None:
        seen = "It was trained on the very patients of this split: healthiness here is not independent."
    else:
        weak = " That is weak: draw no conclusions from healthiness." if dice["pooled"] < WEAK_JUDGE else ""
        seen = (
            f"Its own Dice on this split is {dice['pooled']:.3f} pooled and {dice['mean_per_slice']:.3f} as mean of "
            f"slices.{weak}"
        )
    departure = f" {judge['departure']}." if judge.get("departure") else ""
    trained = f"{judge['network']}, seed {judge['seed']}, about {judge['iterations']} iterations"
    return f"Judge of healthiness {judge['weights_sha256'][:12]} (sha256): {trained}. {seen}{departure}"


def sources(comparison: Comparison) -> list[str]:
    """Each report's folder, and where its method comes from."""
    return [
        f"{source['method']}: {source['report']}"
        + "".join(f"; {term} {value}" for term, value in (source["provenance"] or {}).items())
        for source in comparison.sources
    ]
