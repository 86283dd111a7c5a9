"""The report of an evaluation: tables, a page to read, and three cases to look at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.files import write_json, write_text
from pipeline.mosaic import body_box, difference, grey, mosaic, outlined, save_png, square
from pipeline.preprocessing.foreground import AIR

# Below this Dice the judge overlooks about as much as it finds, and healthiness says little.
WEAK_JUDGE = 0.5

A_DICE_ROWS = {"original": "original images", "healthy": "healthy slices, random lesion masks"}

ROWS = {
    "healthiness": ("healthiness of a volume", 3),
    "psnr_normal": ("normal tissue PSNR, dB", 2),
    "ssim_normal": ("normal tissue SSIM", 4),
    "psnr_slice": ("whole slice PSNR, dB", 2),
    "ssim_slice": ("whole slice SSIM", 4),
    "identity": ("identity (masked MS-SSIM)", 4),
    "psnr_lesion": ("lesion against truth PSNR, dB", 2),
    "ssim_lesion": ("lesion against truth SSIM", 4),
}

HEALTHY_ROWS = {
    "changed_share": ("tissue changed, %", 2),
    "appeared_per_slice": ("regions appeared, a slice", 2),
    "vanished_per_slice": ("regions vanished, a slice", 2),
    "psnr": ("tissue PSNR, dB", 2),
    "ssim": ("tissue SSIM", 4),
}


@dataclass(frozen=True)
class Case:
    """One slice to look at.

    Attributes:
        title: `best`, `median` or `worst`.
        subject: whose slice.
        place: its index in the subject's slab.
        healthiness: of the whole volume.
        image: input in [0, 1], shape (right, anterior).
        lesion: annotated lesion, bool, same shape.
        pseudo_healthy: the method's image, as `image`.
        predicted: lesion that the judge sees in it, bool, same shape.
        spacing_mm: pixel size along (right, anterior).
    """

    title: str
    subject: str
    place: int
    healthiness: float
    image: NDArray[np.float32]
    lesion: NDArray[np.bool_]
    pseudo_healthy: NDArray[np.float32]
    predicted: NDArray[np.bool_]
    spacing_mm: tuple[float, float]


def write_report(
    folder: Path, summary: dict[str, Any], slices: pd.DataFrame, volumes: pd.DataFrame, cases: list[Case]
) -> None:
    """Write `slices.csv`, `patients.csv`, `cases.png`, `report.md` and, last, `summary.json`.

    Args:
        folder: where; made if it is not there.
        summary: as `pipeline.evaluation.evaluate` returns it.
        slices: one row for each method and slice.
        volumes: one row for each method and volume.
        cases: what the picture shows, one row each.
    """
    write_text(folder / "slices.csv", slices.to_csv(index=False, lineterminator="\n"))
    write_text(folder / "patients.csv", volumes.to_csv(index=False, lineterminator="\n"))
    save_png(folder / "cases.png", _picture(cases))
    write_text(folder / "report.md", page(summary, cases))
    write_json(folder / "summary.json", summary)


def write_healthy_report(folder: Path, summary: dict[str, Any], volumes: pd.DataFrame) -> None:
    """Write `patients.csv`, `report.md` and, last, `summary.json`.

    Args:
        folder: where; made if it is not there.
        summary: as `pipeline.evaluation.healthy.evaluate_healthy` returns it.
        volumes: one row for each volume.
    """
    write_text(folder / "patients.csv", volumes.to_csv(index=False, lineterminator="\n"))
    write_text(folder / "report.md", healthy_page(summary))
    write_json(folder / "summary.json", summary)


def healthy_page(summary: dict[str, Any]) -> str:
    """The report on healthy tissue in Markdown.

    Args:
        summary: content of `summary.json`.
    """
    metrics = dict(summary["metrics"])
    share = metrics["changed_share"]
    metrics["changed_share"] = share | {key: share[key] and 100 * share[key] for key in ("mean", "sd")}
    rows = [f"| {label} | {_cell(metrics[metric], digits)} |" for metric, (label, digits) in HEALTHY_ROWS.items()]
    told = [f"- {subject}: {text}" for subject, texts in summary["warnings"].items() for text in texts]
    failed = [f"- {subject}: {text}" for subject, text in summary["failed"].items()]
    who = f"{_count(summary['slices'], 'slice')} of {_count(summary['patients'], 'patient')}"
    reading = (
        "There is no disease in these slices, so whatever changes was made up or taken away. Tissue is head or body, "
        f"changed where it differs by more than {summary['change']:g} of the intensity window; regions have "
        f"{summary['area_mm2']:g} mm² or more and became brighter (appeared) or darker (vanished) by as much. PSNR and "
        "SSIM of a volume are the means of its slices, each patient is the mean of their volumes. *Identical* marks "
        "patients in whom nothing changed at all: their PSNR is infinite and outside mean and deviation."
    )
    parts = [
        f"# {summary['method']}: identity on the healthy",
        f"**{summary['warning']}** Pseudo-healthy images are synthetic.",
        f"{who}: {summary['of']}. Mean ± standard deviation over patients (n).",
        "\n".join([f"| | {summary['method']} |", "|---|---:|", *rows]),
        reading,
        *(["## Unlike the training", "\n".join(told)] if told else []),
        *(["## Not used", "\n".join(failed)] if failed else []),
        "## Provenance",
        _provenance(summary, {"Device": summary["device"]}),
        "Every scan is in `patients.csv`, all digits of this page in `summary.json`.",
    ]
    return "\n\n".join(parts) + "\n"


def _provenance(summary: dict[str, Any], more: dict[str, Any]) -> str:
    terms = {"pipeline": summary["pipeline_version"], **summary["provenance"], **more}
    return "\n".join(f"- {term}: {value}" for term, value in terms.items())


def page(summary: dict[str, Any], cases: list[Case]) -> str:
    """The report in Markdown.

    Args:
        summary: content of `summary.json`.
        cases: what `cases.png` shows beside it.
    """
    cohort, methods = summary["cohort"], summary["methods"]
    who = f"{_count(cohort['slices'], 'pathological slice')} of {_count(cohort['patients'], 'patient')}"
    parts = [
        f"# {summary['method']}: pseudo-healthy synthesis evaluated",
        f"**{summary['warning']}** Pseudo-healthy images are synthetic.",
        f"{who}, {cohort['split']} split. Mean ± standard deviation over patients (n).",
        _table(methods),
        _reading(methods),
        "## The judge",
        _judge(summary["judge"], cohort["split"]),
        *_a_dice(summary["a_dice"]),
        "## Probes",
        *_probes(summary["probes"]),
        "## Cases",
        "![Best, median and worst case](cases.png)",
        "From top to bottom: "
        + "; ".join(
            f"{case.title}, {case.subject}, slice {case.place}, healthiness of the volume {case.healthiness:.3f}"
            for case in cases
        )
        + ". Each is the volume's slice with the largest lesion. In the difference, red was removed and blue added.",
        "## Definitions",
        "\n".join(f"- *{term}*: {meaning}." for term, meaning in summary["definitions"].items()),
        *_padding(summary["ms_ssim_padding"]),
        "## Provenance",
        _provenance(summary, {"Cohort sha256": cohort["sha256"], "Device": summary["device"]}),
        "Every slice is in `slices.csv`, every scan in `patients.csv`, all digits of this page in `summary.json`.",
    ]
    return "\n\n".join(parts) + "\n"


def _table(methods: dict[str, Any]) -> str:
    header = "| | " + " | ".join(methods) + " |"
    lines = [header, "|---|" + "---:|" * len(methods)]
    pooled = " | ".join(f"{scores['healthiness_pooled']:.3f}" for scores in methods.values())
    lines.append(f"| healthiness, all slices pooled | {pooled} |")
    for metric, (label, digits) in ROWS.items():
        cells = [scores["metrics"][metric] for scores in methods.values()]
        if any(cell["n"] for cell in cells):
            lines.append(f"| {label} | " + " | ".join(_cell(cell, digits) for cell in cells) + " |")
    return "\n".join(lines)


def _cell(score: dict[str, Any], digits: int) -> str:
    if score["n"] == 0:
        return "–"
    if score["mean"] is None:
        return f"identical ({score['n']})"
    sd = "–" if score["sd"] is None else f"{score['sd']:.{digits}f}"
    identical = f", {score['identical']} of them identical" if score["identical"] else ""
    return f"{score['mean']:.{digits}f} ± {sd} ({score['n']}{identical})"


def _reading(methods: dict[str, Any]) -> str:
    names = [f"*{name}*" for name in list(methods)[1:]]
    controls = " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
    return (
        f"Higher is better everywhere. Read each figure beside those of the controls {controls}: a method has to be "
        "healthier than the first, and more like the truth (where none is known, more like anatomy to the eye) than "
        "the others. *Identical* marks images equal to their reference, whose PSNR is infinite."
    )


def _judge(judge: dict[str, Any], split: str) -> str:
    text = (
        f"Healthiness is judged by a segmentor that no method trained against: {judge['network']}, seed "
        f"{judge['seed']}, about {judge['iterations']} iterations on the cohort's training patients, pixels of "
        f"{judge['spacing_mm']:g} mm."
    )
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
    settings = a_dice["settings"]
    rows = []
    for name, scores in a_dice["images"].items():
        collapsed = sum(scores["collapsed"])
        value = "–" if scores["mean"] is None else f"{scores['mean']:.3f}"
        spread = "" if scores["sd"] is None else f" ± {scores['sd']:.3f}"
        failed = f" ({collapsed} of {len(scores['seeds'])} trainings collapsed and do not count)" if collapsed else ""
        rows.append(f"| {A_DICE_ROWS.get(name, name)} | {value}{spread}{failed} |")
    text = (
        "How fast a segmentor learns to find the original lesions in these images (GVS, Eq. 8): its Dice on the "
        f"{settings['slices']} training slices, mean over {settings['epochs']} epochs, mean ± standard deviation over "
        f"{len(settings['seeds'])} trainings ({settings['network']}, {settings['optimizer']}, pixels of "
        f"{settings['spacing_mm']:g} mm). Lower is healthier. The original images are the upper end; the lower end is "
        "what healthy tissue gives under masks that have nothing to do with it."
    )
    return ["## A-Dice", "\n".join(["| images | A-Dice |", "|---|---:|", *rows]), text]


def _probes(probes: dict[str, Any]) -> list[str]:
    hallucination = probes["hallucination"]
    header = ["| *hallucination* | appeared | vanished | tissue changed |", "|---|---:|---:|---:|"]
    rows = [
        f"| {label} ({found['slices']}) | {found['appeared_per_slice']:.2f} | {found['vanished_per_slice']:.2f} | "
        f"{100 * found['changed_share']:.2f} % |"
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
    parts = ["\n".join(header + rows), text]
    steganography = probes["steganography"]
    if steganography is None:
        parts.append("*Steganography* does not apply: the method has no way back that could read a hidden code.")
        return parts
    lines = [
        f"| {row['bits']} bits | {row['cycle_error']:.4f} | {row['noise']:.4f} | {row['amplification']:.2f} |"
        for row in steganography["quantised"]
    ]
    exact = f"| exact | {steganography['cycle_error']:.4f} | | |"
    header = ["| *steganography* | cycle error | noise | amplification |", "|---|---:|---:|---:|"]
    text = (
        "Mean absolute error of going there and back, when the pseudo-healthy image in between is quantised to so many "
        "bits. Amplification is the error that this adds, divided by the quantisation noise itself: far above 1, the "
        "way back reads a code that is hidden in the image."
    )
    return [*parts, "\n".join([*header, exact, *lines]), text]


def _padding(padding: list[dict[str, list[int]]]) -> list[str]:
    if not padding:
        return []
    sizes = ", ".join("{}×{} by {}×{}".format(*entry["slice"], *entry["added"]) for entry in padding)
    note = (
        "MS-SSIM needs 176 pixels a side for its five scales, so for *identity* smaller slices were padded with "
        f"background, which agrees for free ({sizes} pixels)."
    )
    return [note]


def _picture(cases: list[Case]) -> Any:
    titles = ["input, lesion outlined", "input", "SYNTHETIC pseudo-healthy", "difference", "lesion seen by the judge"]
    rows = []
    for case in cases:
        body = body_box(case.image > AIR)
        x_p, x_s = case.image[body], case.pseudo_healthy[body]
        panels = (
            outlined(x_p, case.lesion[body]),
            grey(x_p),
            grey(x_s),
            difference(x_p - x_s),
            outlined(x_s, case.predicted[body]),
        )
        rows.append([square(panel, case.spacing_mm) for panel in panels])
    order = ", ".join(f"{case.title} {case.healthiness:.2f}" for case in cases)
    return mosaic(titles, rows, f"healthiness, top to bottom: {order}; red: removed, blue: added; not for diagnosis")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
