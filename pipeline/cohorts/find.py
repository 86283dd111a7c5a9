"""The usable scans of a cohort, and what is said about each that is not; only names are looked at, never voxels."""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pipeline.cohorts.case import Case, Entry, Found, Problem
from pipeline.cohorts.layout import LAYOUTS
from pipeline.errors import ScanError, UsageError


def find_cases(cohort: Path, layout: str | None = None, modality: str | None = None) -> Found:
    """Find every scan of a cohort that has a lesion mask, by file names alone.

    Args:
        cohort: the folder of the cohort, or a datalist file (JSON or CSV; its paths are relative to it).
        layout: one of `LAYOUTS`; recognised by itself when None.
        modality: the sequence to take, in upper or lower case. BIDS: a suffix (default FLAIR). BraTS: a name
            of either convention (default flair). ISLES: default Flair in 2015 and dwi in 2022. LiTS holds CT
            only. A datalist names its images itself, so there the modality is not used.

    Returns:
        The cases, and a problem for each scan whose image or mask is missing, ambiguous, not a file, or
        whose subject occurs twice.

    Raises:
        UsageError: if the path is missing or may not be read, the layout or modality is unknown, nothing
            matches, or a datalist is malformed or puts one patient into two splits.
    """
    cohort = Path(cohort)
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"{layout}: unknown layout, expected one of {', '.join(LAYOUTS)}; choose one of these")
    try:
        layout = _fitting_layout(cohort, layout)
        entries = LAYOUTS[layout].find(cohort, modality)
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
    _refuse_divided_patients(cohort, entries)

    subjects = _safe_names(entry.name for entry in entries)
    patients = _safe_names(_patient(entry.name) for entry in entries)
    cases: dict[str, Case] = {}
    problems: list[Problem] = []
    for entry in sorted(entries, key=lambda entry: (subjects[entry.name], str(entry.place))):
        subject = subjects[entry.name]
        try:
            case = _case(entry, subject, patients[_patient(entry.name)])
        except ScanError as error:
            problems.append(Problem(subject, str(error)))
            continue
        if subject in cases:
            reason = (
                f"{case.image}: has the subject {entry.name!r} as {cases[subject].image} has, expected one "
                "scan per subject; give each scan a subject of its own"
            )
            problems.append(Problem(subject, reason))
        else:
            cases[subject] = case
    return Found(layout, list(cases.values()), problems)


def _case(entry: Entry, subject: str, patient: str) -> Case:
    if entry.fault:
        raise ScanError(entry.fault)
    if not entry.images:
        found = ", ".join(path.name for path in entry.present) or "nothing"
        owner = f"{entry.masks[0]}: the mask has no image" if entry.masks else f"{entry.place}: has no image"
        raise ScanError(
            f"{owner}, found {found} but expected {entry.image_hint}; add it, choose another modality or "
            "leave the subject out"
        )
    image = _the_file("image", entry.images)
    if not entry.masks:
        raise ScanError(f"{image}: has no lesion mask, expected {entry.mask_hint}; add the mask or leave the scan out")
    return Case(
        subject=subject,
        image=image,
        mask=_the_file("mask", entry.masks),
        patient=patient,
        truth=_the_file("truth", entry.truths) if entry.truths else None,
        split=entry.split,
        lesion_labels=entry.lesion_labels,
    )


def _the_file(kind: str, candidates: list[Path]) -> Path:
    path = candidates[0]
    if len(candidates) > 1:
        raise ScanError(
            f"{path}: is one of {len(candidates)} files that may be the {kind} (also "
            f"{', '.join(map(str, candidates[1:]))}), expected one; keep one of them or name it in a datalist"
        )
    try:
        if path.is_file():
            return path
        found = "no file" if path.exists() else "missing or a broken link"
    except OSError as error:
        found = f"out of reach ({error.strerror})"
    raise ScanError(f"{path}: is {found}, expected the {kind} as a file; fetch the file or mend its path")


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
    for known in (name for name in LAYOUTS if name != "datalist"):
        if any(entry.masks for entry in LAYOUTS[known].find(cohort, None)):
            return known
    if LAYOUTS["bids"].find(cohort, None):
        return "bids"
    raise UsageError(
        f"{cohort}: is in no known layout, expected one of {_examples()}; check the path, or list the scans "
        "in a datalist"
    )


def _refuse_divided_patients(cohort: Path, entries: list[Entry]) -> None:
    splits: dict[str, set[str | None]] = defaultdict(set)
    for entry in entries:
        splits[_patient(entry.name)].add(entry.split)
    for patient, found in sorted(splits.items()):
        if len(found) > 1:
            names = ", ".join(sorted(split or "none" for split in found))
            raise UsageError(
                f"{cohort}: lists the patient {patient!r} in several splits ({names}), expected one, because "
                "splits are by patient; move all scans of a patient into one split, or give each patient a "
                "subject of its own"
            )


def _patient(name: str) -> str:
    """Give the person: a BIDS subject without its session, a BraTS 2023 subject without its time point."""
    person = re.match(r"sub-[A-Za-z0-9]+(?=_|$)|BraTS-(?:[A-Za-z]+-)+\d+(?=-\d+)", name)
    return person.group() if person else name


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
