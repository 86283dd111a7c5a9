"""A rating study: slices drawn evenly over patients, methods hidden behind letters, some slices shown twice."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeVar

import numpy as np

from pipeline import __version__
from pipeline.comparison import Report, read_report
from pipeline.errors import UsageError
from pipeline.evaluation.twins import FOLDER, Twins, read_twins
from pipeline.files import require_empty, sha256, write_json, write_text
from pipeline.rating.page import Panels, page, panels

KEY_FILE = "key.json"
PAGE_FILE = "rating.html"
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Slice:
    """One pathological slice: its index in the slab of a subject, who is a patient's volume."""

    patient: str
    subject: str
    index: int


@dataclass(frozen=True)
class Case:
    """A slice as it is shown to raters.

    Attributes:
        number: its position on the page, from 1.
        shown: the slice.
        order: methods as they stand on the page, under the letters A, B, C…
        repeat_of: number of the case that shows the same slice first.
    """

    number: int
    shown: Slice
    order: tuple[str, ...]
    repeat_of: int | None


def draw_study(
    reports: Sequence[Path], study_dir: Path, cases: int = 100, repeats: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Draw slices, hide the methods, and write the raters' page and the key to it.

    As in GVS, Section V.D: the pathological input first, the methods' images in random order, the lesion annotation
    last. Some cases come a second time, a third of the study later at least and in a new order, to learn how far
    raters agree with themselves.

    Args:
        reports: evaluations of different methods on one split of one cohort.
        study_dir: new or empty; receives rating.html, which tells no method and no subject, and key.json.
        cases: number of different slices; all there are, if there are fewer.
        repeats: number of cases that come twice; a third of the cases at most.
        seed: with the same reports, another seed gives another study, the same seed the same.

    Returns:
        The content of `key.json`.

    Raises:
        UsageError: if a report is damaged or the reports do not fit together, or the folder is not empty.
    """
    study_dir = Path(study_dir)
    # Ratings under way are worth nothing without the key they were made for.
    require_empty(study_dir, remedy="choose another folder for the study")
    read = [read_report(Path(folder)) for folder in reports]
    check_together(read)
    hashes = [sha256(report.folder / "summary.json") for report in read]
    # A rater who guesses the seed must not be able to work out the order: it takes the reports as well.
    digest = hashlib.sha256(json.dumps([seed, hashes]).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))

    slices = [
        Slice(patient, subject, int(index))
        for subject, patient in _patients(read[0]).items()
        for index in _twins(read[0], subject).places
    ]
    drawn = draw_slices(slices, cases, rng)
    shown = arrange(drawn, min(repeats, len(drawn) // 3), [report.method for report in read], rng)
    key: dict[str, Any] = {
        "format": 1,
        "pipeline_version": __version__,
        "seed": seed,
        "cohort": {**_cohort(read[0]), "slices": len(slices)},
        "methods": {report.method: {"summary_sha256": digit} for report, digit in zip(read, hashes, strict=True)},
        "cases": [
            {
                "case": case.number,
                "patient": case.shown.patient,
                "subject": case.shown.subject,
                "slice": case.shown.index,
                "images": dict(zip(ascii_uppercase, case.order, strict=False)),
                "repeat_of": case.repeat_of,
            }
            for case in shown
        ],
    }
    key["study"] = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    html = page(key["study"], _pictures(shown, read))
    write_json(study_dir / KEY_FILE, key)
    write_text(study_dir / PAGE_FILE, html)
    return key


def check_together(reports: Sequence[Report]) -> None:
    """Refuse reports that no rater could compare.

    Raises:
        UsageError: if two have one method's name, or the patients differ.
    """
    first = reports[0]
    for number, report in enumerate(reports):
        for other in reports[:number]:
            if other.method == report.method:
                raise UsageError(
                    f"{report.folder}: is of method {report.method!r} as {other.folder} is, expected one report for "
                    "each method; evaluate one of them again with --name"
                )
        for what, theirs in _cohort(first).items():
            if (ours := _cohort(report)[what]) != theirs:
                raise UsageError(
                    f"{report.folder}: is of another cohort or split ({what} {ours[:12]}), expected that of "
                    f"{first.folder} ({theirs[:12]}); evaluate all methods on one split of one cohort"
                )
        if _patients(report) != _patients(first):
            raise UsageError(
                f"{report.folder}: lists {len(_patients(report))} volumes that are not the {len(_patients(first))} of "
                f"{first.folder}; run `phs-pipeline evaluate` again for both"
            )
    if len(reports) > len(ascii_uppercase):
        raise UsageError(f"{len(reports)} reports are too many to rate side by side, expected {len(ascii_uppercase)}")


def draw_slices(slices: Sequence[Slice], count: int, rng: np.random.Generator) -> list[Slice]:
    """Draw slices so that patients are represented evenly: round by round, each patient gives one.

    Returns:
        `count` slices, or all, in random order.
    """
    left: dict[str, list[Slice]] = {}
    for one in _shuffled(slices, rng):
        left.setdefault(one.patient, []).append(one)
    drawn: list[Slice] = []
    while left and len(drawn) < count:
        for patient in _shuffled(list(left), rng)[: count - len(drawn)]:
            drawn.append(left[patient].pop())
            if not left[patient]:
                del left[patient]
    return _shuffled(drawn, rng)


def arrange(drawn: Sequence[Slice], repeats: int, methods: Sequence[str], rng: np.random.Generator) -> list[Case]:
    """Number the cases, hide repeats among them, and put the methods of each in random order.

    Args:
        drawn: each slice once, in the order of the page.
        repeats: how many of the first third come again, anywhere in the last third.
        methods: names of all.
        rng: source of all chance.
    """
    third = len(drawn) // 3
    again = [drawn[index] for index in rng.permutation(third)[:repeats]]
    late = _shuffled([*[(one, False) for one in drawn[len(drawn) - third :]], *[(one, True) for one in again]], rng)
    sequence = [*[(one, False) for one in drawn[: len(drawn) - third]], *late]
    first = {one: number for number, (one, repeated) in enumerate(sequence, start=1) if not repeated}
    return [
        Case(number, one, tuple(_shuffled(methods, rng)), first[one] if repeated else None)
        for number, (one, repeated) in enumerate(sequence, start=1)
    ]


def _pictures(cases: Sequence[Case], reports: Sequence[Report]) -> list[Panels]:
    pictures: dict[int, Panels] = {}
    # One volume at a time is in memory.
    for subject in sorted({case.shown.subject for case in cases}):
        twins = {report.method: _twins(report, subject) for report in reports}
        reference = twins[reports[0].method]
        for report in reports[1:]:
            other = twins[report.method]
            for name in ("places", "image", "lesion"):
                if not np.array_equal(getattr(other, name), getattr(reference, name)):
                    raise UsageError(
                        f"{report.folder / FOLDER / subject}.npz: its {name} differ from those in "
                        f"{reports[0].folder}, expected the same slices; run `phs-pipeline evaluate` again for both"
                    )
        for case in cases:
            if case.shown.subject == subject:
                row = int(np.flatnonzero(reference.places == case.shown.index)[0])
                pictures[case.number] = panels(reference, [twins[method].twin for method in case.order], row)
    return [pictures[case.number] for case in cases]


def _cohort(report: Report) -> dict[str, str]:
    return {name: str(report.summary["cohort"][name]) for name in ("sha256", "split")}


def _patients(report: Report) -> dict[str, str]:
    """Whose volume each subject is."""
    own = report.volumes[report.volumes["method"] == report.method]
    return dict(zip(own["subject"], own["patient"], strict=True))


def _twins(report: Report, subject: str) -> Twins:
    return read_twins(report.folder / FOLDER / f"{subject}.npz")


def _shuffled(things: Sequence[Thing], rng: np.random.Generator) -> list[Thing]:
    return [things[index] for index in rng.permutation(len(things))]
