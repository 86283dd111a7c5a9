"""The report of an evaluation: tables, a page to read, and three cases to look at."""

from pathlib import Path
from typing import Any

from pipeline.evaluation.bracketed import LEARNED
from pipeline.evaluation.cases import Example
from pipeline.evaluation.controls import UNTOUCHED
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.healthy import HealthyEvaluation
from pipeline.files import table_csv, write_json, write_table, write_text
from pipeline.metrics import A_DICE, Metric
from pipeline.mosaic import body_box, difference, grey, mosaic, outlined, save_png, square
from pipeline.preprocessing.foreground import AIR
from pipeline.reports.markdown import count, escaped, table

# Below this Dice the judge overlooks about as much as it finds, and healthiness says little.
WEAK_JUDGE = 0.5


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """Write `slices.csv`, `patients.csv`, `cases.png` where there are cases, `report.md` and, last, `summary.json`.

    Args:
        folder: where; made if it is not there.
        evaluation: what was measured.
    """
    write_table(folder / "slices.csv", evaluation.slices.frames())
    write_text(folder / "patients.csv", table_csv(evaluation.volumes))
    if evaluation.cases:
        save_png(folder / "cases.png", _picture(evaluation.cases, evaluation.summary["cases_by"]))
    write_text(folder / "report.md", page(evaluation.summary, evaluation.cases))
    write_json(folder / "summary.json", evaluation.summary)


def write_healthy_report(folder: Path, evaluation: HealthyEvaluation) -> None:
    """Write `patients.csv`, `report.md` and, last, `summary.json`.

    Args:
        folder: where; made if it is not there.
        evaluation: what was measured.
    """
    write_text(folder / "patients.csv", table_csv(evaluation.volumes))
    write_text(folder / "report.md", healthy_page(evaluation.summary))
    write_json(folder / "summary.json", evaluation.summary)


def healthy_page(summary: dict[str, Any]) -> str:
    """The report on healthy tissue in Markdown.

    Args:
        summary: content of `summary.json`.
    """
    metrics = [Metric.from_record(record) for record in summary["metrics"]]
    rows = [[metric.label, score_text(metric, summary["scores"][metric.name])] for metric in metrics]
    name = escaped(summary["method"])
    told = [
        f"- {escaped(subject)}: {escaped(text)}" for subject, texts in summary["warnings"].items() for text in texts
    ]
    failed = [f"- {escaped(subject)}: {escaped(text)}" for subject, text in summary["failed"].items()]
    who = f"{count(summary['slices'], 'slice')} of {count(summary['patients'], 'patient')}"
    parts = [
        f"# {name}: identity on the healthy",
        f"**{summary['warning']}** Pseudo-healthy images are synthetic.",
        f"{who}: {summary['of']}. Mean ± standard deviation over patients (n).",
        table(["", name], rows),
        "There is no disease in these slices, so whatever changes was made up or taken away. Tissue is head or body.",
        *(["## Unlike the training", "\n".join(told)] if told else []),
        *(["## Not used", "\n".join(failed)] if failed else []),
        "## Definitions",
        _definitions(metrics, summary["definitions"]),
        "## Provenance",
        _provenance(summary, {"Device": summary["device"]}),
        "Every scan is in `patients.csv`, all digits of this page in `summary.json`.",
    ]
    return "\n\n".join(parts) + "\n"


def page(summary: dict[str, Any], cases: list[Example]) -> str:
    """The report in Markdown.

    Args:
        summary: content of `summary.json`.
        cases: what `cases.png` shows beside it.
    """
    cohort, methods = summary["cohort"], summary["methods"]
    metrics = [Metric.from_record(record) for record in summary["metrics"]]
    who = f"{count(cohort['slices'], cohort['unit'])} of {count(cohort['patients'], 'patient')}"
    judged = [] if summary["judge"] is None else ["## The judge", judge_text(summary["judge"], cohort["split"])]
    synthetic = " Pseudo-healthy images are synthetic." if judged else ""
    parts = [
        f"# {escaped(summary['method'])}: {summary['task']} evaluated",
        f"**{summary['warning']}**{synthetic}",
        f"{who}, {cohort['split']} split. Mean ± standard deviation over patients (n).",
        scores_table(metrics, methods),
        _reading(methods),
        *_left_out(summary["left_out"]),
        *judged,
        *_a_dice(summary["a_dice"]),
        *(["## Probes", *_probes(summary["probes"])] if summary["probes"] else []),
        *_cases(cases, summary["cases_by"]),
        "## Definitions",
        _definitions(metrics, summary["definitions"]),
        *_padding(summary["ms_ssim_padding"]),
        "## Provenance",
        _provenance(summary, {"Cohort sha256": cohort["sha256"], "Device": summary["device"]}),
        _files(cohort["unit"]),
    ]
    return "\n\n".join(parts) + "\n"


def _files(unit: str) -> str:
    row = unit.rsplit(maxsplit=1)[-1]
    return f"Every {row} is in `slices.csv`, every scan in `patients.csv`, all digits of this page in `summary.json`."


def _provenance(summary: dict[str, Any], more: dict[str, Any]) -> str:
    terms = {"pipeline": summary["pipeline_version"], **summary["provenance"], **more}
    return "\n".join(f"- {term}: {escaped(str(value))}" for term, value in terms.items())


def _definitions(metrics: list[Metric], general: dict[str, str]) -> str:
    meanings = {metric.label: metric.definition for metric in metrics} | general
    return "\n".join(f"- *{term}*: {meaning}." for term, meaning in meanings.items())


def scores_table(metrics: list[Metric], methods: dict[str, Any]) -> str:
    """All methods' scores in Markdown, a row for each metric that any of them has."""
    rows = []
    for metric in metrics:
        cells = [scores["metrics"].get(metric.name) for scores in methods.values()]
        if metric.name != A_DICE.name and any(cell and cell["n"] for cell in cells):
            rows.append([metric.heading, *(score_text(metric, cell) for cell in cells)])
    return table(["", *map(escaped, methods)], rows)


def score_text(metric: Metric, score: dict[str, Any] | None) -> str:
    """A score as `summary.json` has it in a table's cell: mean ± deviation (n)."""
    if score is None or score["n"] == 0:
        return "–"
    if metric.level == "pooled":
        return metric.text(score["mean"])
    if score["mean"] is None:
        return f"{metric.perfect_word} ({score['n']})"
    word = f", {score['identical']} of them {metric.perfect_word}" if score["identical"] else ""
    return f"{metric.spread(score['mean'], score['sd'])} ({score['n']}{word})"


def _reading(methods: dict[str, Any]) -> str:
    names = [f"*{name}*" for name in list(methods)[1:]]
    controls = " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
    text = "Higher is better where an arrow points up (↑), lower where it points down (↓). "
    if UNTOUCHED not in methods:
        return f"{text}Read each figure beside those of {controls}, which have hardly learned anything."
    return (
        f"{text}Read each figure beside those of the controls {controls}: a method has to be healthier than the first, "
        "and more like the truth (where none is known, more like anatomy to the eye) than the others. *Identical* "
        "marks images equal to their reference, whose PSNR is infinite."
    )


def _left_out(packages: dict[str, str]) -> list[str]:
    if not packages:
        return []
    named = ", ".join(f"*{name}* ({package})" for name, package in packages.items())
    return [
        f"Left out, because their packages are not installed: {named}. `pip install 'phs-pipeline[controls]'` has them."
    ]


def judge_text(judge: dict[str, Any], split: str) -> str:
    """Who judged healthiness, and how well it does so."""
    text = (
        f"Healthiness is judged by a segmentor that no method trained against: {judge['network']}, seed "
        f"{judge['seed']}, about {judge['iterations']} iterations on the cohort's training patients, pixels of "
        f"{judge['spacing_mm']:g} mm."
    )
    if judge["departure"]:
        text += f" {judge['departure']}."
    dice = judge["dice"].get(split)
    if dice is None:
        return (
            f"{text} **It was trained on the very patients of this split, so healthiness here is not independent;** "
            "evaluate on the test split."
        )
    text += (
        f" On the real pathological slices of this split its own Dice is {dice['pooled']:.3f} pooled and "
        f"{dice['mean_per_slice']:.3f} as mean of slices; what it cannot see, healthiness cannot count."
    )
    if dice["pooled"] < WEAK_JUDGE:
        text += (
            " **That is weak: do not draw conclusions from healthiness here.** Train it longer, or on more patients."
        )
    return text


def _a_dice(a_dice: dict[str, Any] | None) -> list[str]:
    if a_dice is None:
        return []
    settings, vanished = a_dice["settings"], a_dice["vanished"]
    grid = f"pixels of {settings['spacing_mm']:g} mm"
    left_out = f" {count(vanished, 'slice')} whose lesion vanishes at {grid} were left out." if vanished else ""
    if not a_dice["images"]:
        return ["## A-Dice", f"Not measured: no lesion is left at {grid}.{left_out} Take a finer --a-dice-spacing."]
    rows = []
    for name, scores in a_dice["images"].items():
        collapsed = sum(scores["collapsed"])
        spread = "" if scores["sd"] is None else f" ± {A_DICE.text(scores['sd'])}"
        failed = f" ({collapsed} of {len(scores['seeds'])} trainings collapsed and do not count)" if collapsed else ""
        rows.append([name, f"{A_DICE.text(scores['mean'])}{spread}{failed}"])
    text = (
        "How fast a segmentor learns to find the original lesions in these images (GVS, Eq. 8): its Dice on the "
        f"{settings['slices']} training slices, mean over {settings['epochs']} epochs, mean ± standard deviation over "
        f"{len(settings['seeds'])} trainings ({settings['network']}, {settings['optimizer']}, {grid}). Lower is "
        "healthier. The original images are the upper end; the lower end is what healthy tissue gives under masks that "
        f"have nothing to do with it.{left_out}"
    )
    if not a_dice["learned"]:
        text += (
            f" **The lesions of the original images themselves were not learned (A-Dice below {LEARNED:g}): these "
            "slices are too few for so short a training, and nothing can be ranked.** Train with more --a-dice-epochs, "
            "or another --a-dice-rate."
        )
    return ["## A-Dice", table(["images", A_DICE.heading], rows), text]


def _probes(probes: dict[str, Any]) -> list[str]:
    hallucination = probes["hallucination"]
    rows = [
        [
            f"{label} ({found['slices']})",
            *(f"{found[f'{how}_per_slice']:.2f}" for how in ("appeared", "vanished")),
            f"{100 * found['changed_share']:.2f} %",
        ]
        for label, found in (
            ("slices without lesion", hallucination["healthy_slices"]),
            ("normal tissue of pathological slices", hallucination["outside_lesion"]),
        )
        if found
    ]
    text = (
        f"Where nothing should change, regions of {hallucination['area_mm2']:g} mm² or more that became brighter "
        f"(appeared) or darker (vanished) by more than {hallucination['change']:g} of the intensity window, for each "
        f"slice, and the share of tissue that changed so. A margin of {hallucination['margin_mm']:g} mm around lesions "
        "does not count."
    )
    parts = [table(["*hallucination*", "appeared", "vanished", "tissue changed"], rows), text]
    steganography = probes["steganography"]
    if steganography is None:
        parts.append("*Steganography* does not apply: the method has no way back that could read a hidden code.")
        return parts
    lines = [
        [f"{row['bits']} bits", f"{row['cycle_error']:.4f}", f"{row['noise']:.4f}", f"{row['amplification']:.2f}"]
        for row in steganography["quantised"]
    ]
    exact = ["exact", f"{steganography['cycle_error']:.4f}", "", ""]
    header = ["*steganography*", "cycle error", "noise", "amplification"]
    text = (
        "Mean absolute error of going there and back, when the pseudo-healthy image in between is quantised to so many "
        "bits. Amplification is the error that this adds, divided by the quantisation noise itself: far above 1, the "
        "way back reads a code that is hidden in the image."
    )
    return [*parts, table(header, [exact, *lines]), text]


def _cases(cases: list[Example], by: str | None) -> list[str]:
    if not cases:
        return []
    shown = "; ".join(
        f"{case.title}, {case.subject}, slice {case.place}, {by} of the volume {case.score:.3f}" for case in cases
    )
    difference = " In the difference, orange was removed and blue added." if cases[0].pseudo_healthy is not None else ""
    if cases[0].reconstruction is not None:
        difference += (
            " The reconstruction is what the method's way back makes of the pseudo-healthy image (PHS-GAN, Fig. 2): "
            "the lesion should be there again, and where it was."
        )
    return [
        "## Cases",
        "![Best, median and worst case](cases.png)",
        f"From top to bottom: {shown}. Each is the volume's slice with the largest lesion.{difference}",
    ]


def _padding(padding: list[dict[str, list[int]]]) -> list[str]:
    if not padding:
        return []
    sizes = ", ".join("{}×{} by {}×{}".format(*entry["slice"], *entry["added"]) for entry in padding)
    note = (
        "MS-SSIM needs 176 pixels a side for its five scales, so for *identity* smaller slices were padded with "
        f"background, which agrees for free ({sizes} pixels)."
    )
    return [note]


def _picture(cases: list[Example], by: str) -> Any:
    order = ", ".join(f"{case.title} {case.score:.2f}" for case in cases)
    told = f"{by}, top to bottom: {order}"
    if cases[0].pseudo_healthy is None:
        titles = ["input, lesion outlined", "input", "lesion found"]
        return mosaic(titles, [_panels(case) for case in cases], f"{told}; not for diagnosis")
    titles = ["input, lesion outlined", "input", "SYNTHETIC pseudo-healthy", "difference", "lesion seen by the judge"]
    if cases[0].reconstruction is not None:
        titles.append("SYNTHETIC reconstruction")
    told += "; orange: removed, blue: added; not for diagnosis"
    return mosaic(titles, [_panels(case) for case in cases], told)


def _panels(case: Example) -> list[Any]:
    body = body_box(case.image > AIR)
    x_p, lesion, predicted = case.image[body], case.lesion[body], case.predicted[body]
    panels = [outlined(x_p, lesion), grey(x_p)]
    if case.pseudo_healthy is None:
        panels.append(outlined(x_p, predicted))
    else:
        x_s = case.pseudo_healthy[body]
        panels += [grey(x_s), difference(x_p - x_s), outlined(x_s, predicted)]
    if case.reconstruction is not None:
        panels.append(grey(case.reconstruction[body]))
    return [square(panel, case.spacing_mm) for panel in panels]
