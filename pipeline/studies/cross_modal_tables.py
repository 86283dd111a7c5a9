"""Tables 1 to 5 of DUIIT (Yang and Xie 2020) as `study cross-modal` fills them, with the printed numbers beside."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.comparison.significance import ALPHA, PairedTest, holm, wilcoxon_signed_rank
from pipeline.evaluation.controls import MEAN
from pipeline.reports.markdown import count, escaped, table
from pipeline.studies.study import mean_sd, over_seeds

TARGET_ONLY = "target only"
OURS = "DUIIT"
TRANSFER, MULTI_TASK, DOMAIN_ADAPTATION = "transfer learning", "multi-task", "domain adaptation"
CYCLE_GAN = "CycleGAN"
POOLED = "source as it is, pooled"
# Kinds of rows, and which augmentation each has.
AUGMENTED = {"Simple Augment": "simple", "AutoAugment": "auto", "Random Erasing": "erasing"}
CHANCE = "chance (some training target)"
FLOOR, UNTRANSLATED = "real, other patients", "source as it is"
# Tables 2 to 4: mean and deviation of the squared error over ten splits; of the sources, the paper has MRI and PET.
PRINTED: Mapping[str, Sequence[str]] = {
    TARGET_ONLY: ("103.88 ± 64.27",),
    OURS: ("76.91 ± 8.31", "75.75 ± 20.52", "71.37 ± 18.92"),
    TRANSFER: ("91.52 ± 13.88", "102.08 ± 15.37"),
    MULTI_TASK: ("99.26 ± 22.12", "92.94 ± 28.26"),
    DOMAIN_ADAPTATION: ("88.13 ± 21.86", "148.72 ± 40.16"),
    CYCLE_GAN: ("147.06 ± 79.89", "96.70 ± 42.44"),
    "Simple Augment": ("96.80 ± 26.00",),
    "AutoAugment": ("84.65 ± 15.28",),
    "Random Erasing": ("84.87 ± 8.55",),
}
# Table 5, of translations of MRI alone.
PRINTED_QUALITY = {CYCLE_GAN: ("40.94", "3.49 ± 0.15"), OURS: ("63.17", "3.92 ± 0.17")}
KEYS = ["row", "kind", "sources"]


def tables(
    results: Sequence[dict[str, Any]], qualities: Sequence[dict[str, Any]], about: Mapping[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Errors of each method with tests, and quality of translations.

    Args:
        results: of each method on each split.
        qualities: of each kind of images on each split.
        about: the modalities, target first.

    Returns:
        A row for each method: mean error over splits, deviation and number of splits, the same of scans, p against
        target only and against DUIIT; and a row for each kind of images.
    """
    rows = [{**result, "sources": " + ".join(result["sources"])} for result in results]
    frame = over_seeds(rows, KEYS, ["error", "scan_error", "seconds"])
    sources = [each["modality"] for each in about["modalities"][1:]]
    frame["printed"] = [_printed(row["kind"], row["sources"], sources) for _, row in frame.iterrows()]
    errors = _by_patient(results)
    frame["patients"] = len(errors)
    best = _ours_of(" + ".join(sources))
    against_ours = {
        row["row"]: best if row["sources"] == "" else _ours_of(row["sources"])
        for _, row in frame.iterrows()
        if row["kind"] != OURS
    }
    against_target = {name: TARGET_ONLY for name in frame["row"] if name != TARGET_ONLY}
    for column, opponents in (("target", against_target), ("ours", against_ours)):
        tests = {name: wilcoxon_signed_rank(errors[name], errors[other]) for name, other in opponents.items()}
        corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
        frame[f"p_{column}"] = [corrected.get(name, np.nan) for name in frame["row"]]
        frame[f"direction_{column}"] = [_direction(tests.get(name)) for name in frame["row"]]
        frame[f"least_p_{column}"] = min(1.0, max(test.least_p for test in tests.values()) * len(tests))
    made = (
        over_seeds(list(qualities), ["kind", "source"], ["fid", "is", "is_parts_sd", "images"]) if qualities else None
    )
    return frame, pd.DataFrame() if made is None else made


def _ours_of(sources: str) -> str:
    return f"{OURS}: {sources}"


def _direction(test: PairedTest | None) -> str:
    return {1: "higher", 0: "", -1: "lower"}[test.direction] if test else ""


def _printed(kind: str, of: str, sources: Sequence[str]) -> str:
    """The paper's first source stands beside ours, its second beside ours, and both beside all of ours."""
    found = PRINTED.get(kind, ())
    if not of:
        place = 0
    elif of in sources:
        place = list(sources).index(of)
    else:
        place = 2 if len(sources) == 2 else len(found)
    return found[place] if place < len(found) else "–"


def _by_patient(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Each patient's squared error, mean over the splits that test on them: a row a patient, a column a method."""
    long = [
        {"row": result["row"], "patient": patient, "error": error}
        for result in results
        for patient, error in result["patients"].items()
    ]
    return pd.DataFrame(long).pivot_table(index="patient", columns="row", values="error")


def page(
    frame: pd.DataFrame,
    made: pd.DataFrame,
    about: Mapping[str, Any],
    splits: int,
    by: str,
    features: str,
    departures: Sequence[str],
    target_labels: bool,
) -> str:
    """The tables in Markdown.

    Args:
        frame: of `tables`, errors.
        made: of `tables`, quality of translations.
        about: modalities, sizes and counts.
        splits: how many.
        by: what was split.
        features: what FID and inception score were taken of.
        departures: where the sizes are not the paper's.
        target_labels: whether domain adaptation was shown them.
    """
    target, *sources = (each["modality"] for each in about["modalities"])
    compared = (
        f"Features and classes are those of {features}. FID compares equal numbers of images "
        f"({', '.join(dict.fromkeys(f'{number:.0f}' for number in made['images']))}) with real ones of one half of the "
        "patients; its floor is the other half. Inception score: mean ± deviation over parts of the images, averaged "
        "over splits; higher is better, and for FID lower."
    )
    parts = [
        "### Table 1: the modalities",
        table(
            ["", "images", "pixels", "patients"],
            [
                [
                    f"{escaped(each['modality'])}{' (target)' if each['modality'] == target else ''}",
                    str(each["images"]),
                    "×".join(map(str, about["pixels"])),
                    str(each["patients"]),
                ]
                for each in about["modalities"]
            ],
        ),
        "### Table 2: with and without translated images",
        _errors(frame, frame["kind"].isin([TARGET_ONLY, OURS, MEAN, CHANCE])),
        "### Table 3: other uses of the sources",
        _errors(frame, frame["sources"].isin(sources)),
        "### Table 4: augmentations of the target modality",
        _errors(frame, frame["kind"].isin([TARGET_ONLY, *AUGMENTED]) | (frame["kind"] == OURS)),
        *_notes(frame, about, splits, by, departures, target_labels),
        "### Table 5: how like real images translated ones are",
        _quality(made, sources[0]),
        compared,
        "Pictures: `fig2.png` (translations), `fig3.png` (CycleGAN beside DUIIT), `plot.png` (errors by split).",
    ]
    return "\n\n".join(parts)


def _errors(frame: pd.DataFrame, chosen: "pd.Series[bool]") -> str:
    headings = ["", "squared error ↓", "of scans ↓", "p, target only", "p, DUIIT", "printed", "s"]
    rows = []
    for _, row in frame[chosen].iterrows():
        tests = [
            "" if pd.isna(row[f"p_{of}"]) else f"{row[f'p_{of}']:.2g} {row[f'direction_{of}']}".rstrip()
            for of in ("target", "ours")
        ]
        rows.append(
            [
                escaped(row["row"]),
                mean_sd(row, "error", _digits(frame)),
                mean_sd(row, "scan_error", _digits(frame)),
                *tests,
                row["printed"],
                f"{row['seconds']:.0f}",
            ]
        )
    return table(headings, rows)


def _digits(frame: pd.DataFrame) -> int:
    """Three digits of the smallest error."""
    return int(np.clip(2 - np.floor(np.log10(max(float(frame["error"].min()), 1e-9))), 0, 6))


def _notes(
    frame: pd.DataFrame,
    about: Mapping[str, Any],
    splits: int,
    by: str,
    departures: Sequence[str],
    target_labels: bool,
) -> list[str]:
    counts = ", ".join(f"{number} for {name}" for name, number in about["counts"].items())
    unit = "cm²" if about["target"] == "lesion_area" else "its own units"
    leak = " **Slices of one person are in training and test, which leaks.**" if by == "image" else ""
    over = (
        f"Error of `{about['target']}` in {unit}, squared, over the test images of the target modality: mean ± "
        f"deviation over {count(splits, 'split')} by {by}, drawn with the seeds 0 to {splits - 1}, which are the "
        f"trainings' too ({counts} patients).{leak} *Of scans*: of each scan's mean answer. *s*: seconds of training. "
        f"Every method has the same predictor, batch, rates and {about['steps']} steps; no epoch is chosen by "
        "validation."
    )
    tested = (
        f"p: two-sided Wilcoxon signed-rank test over the {int(frame['patients'].iloc[0])} patients who were tested, "
        "against target only and against DUIIT with the same source (of rows without a source: with all), corrected by "
        "Holm for the tests of a column; *lower*: the error of the row is. *Printed*: the paper's mean ± deviation, of "
        "years² in CT with MRI and PET as sources; its splits are by image."
    )
    shown = "shown" if target_labels else "not shown"
    augmentations = (
        "AutoAugment has the policy that its authors found for ImageNet; none was searched here."
        if frame["kind"].isin(list(AUGMENTED)).any()
        else "Augmentations need the package kornia, which was not there (pip install 'phs-pipeline[augmentation]')."
    )
    baselines = f"Domain adaptation (DANN) is {shown} the labels of the target modality. {augmentations}"
    sizes = f"Sizes that are not the paper's: {'; '.join(departures)}." if departures else "Sizes are the paper's."
    notes = [over, tested, baselines, sizes]
    least = float(min(frame["least_p_target"].iloc[0], frame["least_p_ours"].iloc[0]))
    if least >= ALPHA:
        notes.append(f"**With so few patients no p of these tests can be below {least:.2g}: they decide nothing.**")
    return notes


def _quality(made: pd.DataFrame, first: str) -> str:
    """The paper has translations of one source, which stand beside those of our first."""
    rows = []
    for _, row in made.iterrows():
        fid, score = PRINTED_QUALITY.get(row["kind"] if row["source"] == first else "", ("–", "–"))
        name = f"{row['kind']}: {row['source']}" if row["source"] else row["kind"]
        rows.append([escaped(name), mean_sd(row, "fid", 2), f"{row['is']:.2f} ± {row['is_parts_sd']:.2f}", fid, score])
    return table(["", "FID ↓", "inception score ↑", "FID, printed", "score, printed"], rows)


def figure(results: Sequence[dict[str, Any]]) -> Any:
    """The error of each method on each split."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(result["row"] for result in results))
    drawn = Figure(figsize=(7, 1.2 + 0.3 * len(names)), layout="constrained")
    axes = drawn.add_subplot()
    for name in names:
        errors = [result["error"] for result in results if result["row"] == name]
        axes.scatter(errors, [names.index(name)] * len(errors), s=16, alpha=0.6)
        axes.scatter([np.mean(errors)], [names.index(name)], marker="|", s=200, color="black")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("squared error on the test images; a point for each split, | their mean")
    return drawn
