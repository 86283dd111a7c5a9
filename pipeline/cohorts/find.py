"""The usable scans of a cohort, and what is said about each that is not; only names are looked at, never voxels."""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.cohorts.case import Case, Entry, FoundCases, Problem, the_file
from pipeline.cohorts.layout import LAYOUTS
from pipeline.cohorts.people import people
from pipeline.errors import ScanError, UsageError


def find_cases(
    cohort: Path,
    layout: str | None = None,
    modality: str | None = None,
    channels: Sequence[str] = (),
    target: str | None = None,
    masks_optional: bool = False,
) -> FoundCases:
    """Find every scan of a cohort that has a lesion mask, by file names alone.

    Args:
        cohort: the folder of the cohort, or a datalist file (JSON or CSV; its paths are relative to it).
        layout: one of `LAYOUTS`; recognised by itself when None.
        modality: the sequence to take, in upper or lower case. BIDS: a suffix (default FLAIR). BraTS: a name
            of either convention (default flair). ISLES: default Flair in 2015 and dwi in 2022. LiTS holds CT
            only. A datalist names its images itself, so there the modality is not used.
        channels: several sequences on one grid, in the words of `modality`; in a datalist, names of columns.
        target: column of the datalist or of `participants.tsv` that holds what a scorer learns to tell; None: the
            datalist's column `target`, if there is one.
        masks_optional: find scans without lesion mask too.

    Returns:
        The cases, a problem for each scan whose image or mask is missing, ambiguous, not a file, or whose subject
        occurs twice, and notes on what was assumed.

    Raises:
        UsageError: if the path is missing or may not be read, the layout or modality is unknown, nothing
            matches, or a datalist is malformed or puts one patient into two splits.
    """
    cohort = Path(cohort)
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"{layout}: unknown layout, expected one of {', '.join(LAYOUTS)}; choose one of these")
    try:
        layout = _fitting_layout(cohort, layout)
        if layout == "datalist":  # whose channels are columns
            modality = None
        entries, *others = (LAYOUTS[layout].find(cohort, name) for name in channels or (modality,))
    except OSError as error:
        raise UsageError(
            f"{error.filename or cohort}: cannot be read ({error.strerror or error}), expected a cohort that "
            "you may read; mend its permissions or the disk"
        ) from error
    if not entries:
        raise UsageError(
            f"{cohort}: holds no scan in the layout {layout}, expected one of {_examples()}; arrange the "
            "cohort so, or list its scans in a datalist"
        )
    if target is not None and not any(target in entry.columns for entry in entries):
        known = ", ".join(sorted({name for entry in entries for name in entry.columns})) or "none"
        raise UsageError(
            f"{cohort}: has no column {target!r} to take the target from, found {known}; name one of these"
        )
    by_name, notes = people(entry.name for entry in entries if entry.patient is None)
    persons = [entry.patient or by_name[entry.name] for entry in entries]
    _refuse_divided_patients(cohort, entries, persons)

    further = {name: {_key(entry): entry for entry in found} for name, found in zip(channels[1:], others, strict=True)}
    subjects, patients = _safe_names(entry.name for entry in entries), _safe_names(persons)
    cases: dict[str, Case] = {}
    problems: list[Problem] = []
    for entry, person in sorted(
        zip(entries, persons, strict=True), key=lambda pair: (subjects[pair[0].name], str(pair[0].place))
    ):
        subject = subjects[entry.name]
        try:
            case = _case(entry, subject, patients[person], target, masks_optional)
            case = _with_channels(case, entry, further)
        except ScanError as error:
            problems.append(Problem(subject, str(error)))
            continue
        if subject in cases:
            reason = (
                f"{case.image}: has the subject {entry.name!r} as {cases[subject].image} has, expected one "
                "scan per subject; give each scan a subject of its own, and name the person in a column 'patient'"
            )
            problems.append(Problem(subject, reason))
        else:
            cases[subject] = case
    notes += dict.fromkeys(note for entry in entries for note in entry.notes)
    return FoundCases(layout, list(cases.values()), problems, notes)


def _key(entry: Entry) -> tuple[str, Path]:
    return entry.row or entry.name, entry.place


def _case(entry: Entry, subject: str, patient: str, target: str | None, masks_optional: bool) -> Case:
    if entry.fault:
        raise ScanError(entry.fault)
    image = entry.image()
    if not entry.masks and not masks_optional:
        raise ScanError(
            f"{image}: has no lesion mask, expected {entry.mask_hint}; add the mask, leave the scan out, or give "
            "--healthy if scans without a mask are of healthy people"
        )
    mask = the_file("mask", entry.masks) if entry.masks else None
    if mask is not None and mask == image:
        raise ScanError(f"{image}: is named as image and as mask, expected two files; name the lesion mask")
    return Case(
        subject=subject,
        image=image,
        mask=mask,
        patient=patient,
        truth=the_file("truth", entry.truths) if entry.truths else None,
        ignore=the_file("mask of what to ignore", entry.ignores) if entry.ignores else None,
        split=entry.split,
        lesion_labels=entry.lesion_labels,
        session=entry.session,
        target=_target(image, entry, target),
        volumes={} if entry.volume is None else {"image": entry.volume},
    )


def _with_channels(case: Case, entry: Entry, further: Mapping[str, Mapping[tuple[str, Path], Entry]]) -> Case:
    found = {name: entries.get(_key(entry)) for name, entries in further.items()}
    for name, other in found.items():
        if other is None:
            raise ScanError(
                f"{case.image}: has no channel {name} beside it, expected one; add it or leave the scan out"
            )
    volumes = {name: other.volume for name, other in found.items() if other is not None and other.volume is not None}
    return replace(
        case,
        channels={name: other.image() for name, other in found.items() if other is not None},
        volumes={**case.volumes, **volumes},
    )


def _target(image: Path, entry: Entry, column: str | None) -> float | str | None:
    """A number where the cell holds one, otherwise a class by name; None where it is empty or not available."""
    text = entry.columns.get(column or "target", "").strip()
    if text.casefold() in {"", "n/a", "na", "nan", "none"}:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        raise ScanError(f"{image}: has the target {text!r}, expected a finite number or a class; mend the table")
    return number


def _fitting_layout(cohort: Path, layout: str | None) -> str:
    if not cohort.exists():
        raise UsageError(f"{cohort}: does not exist, expected a cohort folder or a datalist; check the path")
    if cohort.is_file():
        if layout in {None, "datalist"}:
            return "datalist"
        raise UsageError(f"{cohort}: is a file, expected a folder in the layout {layout}; name the folder")
    if layout == "datalist":
        raise UsageError(f"{cohort}: is a folder, expected a JSON or CSV file as datalist; name the file")
    if layout is not None:
        return layout
    for known in (name for name in LAYOUTS if name not in {"healthy", "head-neck-pet-ct", "datalist"}):
        if any(entry.masks for entry in LAYOUTS[known].find(cohort, None)):
            return known
    if LAYOUTS["bids"].find(cohort, None):
        return "bids"
    raise UsageError(
        f"{cohort}: is in no known layout, expected one of {_examples()}; check the path, or list the scans "
        "in a datalist"
    )


def _refuse_divided_patients(cohort: Path, entries: list[Entry], persons: list[str]) -> None:
    splits: dict[str, set[str | None]] = defaultdict(set)
    for entry, person in zip(entries, persons, strict=True):
        splits[person].add(entry.split)
    for patient, found in sorted(splits.items()):
        if len(found) > 1:
            names = ", ".join(sorted(split or "none" for split in found))
            raise UsageError(
                f"{cohort}: lists the patient {patient!r} in several splits ({names}), expected one, because "
                "splits are by patient; move all scans of a patient into one split, or, if these are different people, "
                "name each in a column 'patient'"
            )


def _safe_names(names: Iterable[str]) -> dict[str, str]:
    """Map each name to letters, digits, '-' and '_'; different names stay different."""
    wanted = set(names)
    safe = {name: name for name in wanted if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)}
    taken = set(safe)
    for name in sorted(wanted - safe.keys()):
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "scan"
        numbered = (f"{plain}-{number}" for number in itertools.count(2))
        safe[name] = next(free for free in itertools.chain([plain], numbered) if free not in taken)
        taken.add(safe[name])
    return safe


def _examples() -> str:
    return ", ".join(f"{layout.name} ({layout.example})" for layout in LAYOUTS.values())
