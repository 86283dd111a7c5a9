"""Scans and their lesion masks in a cohort as it lies on disk: BIDS, BraTS, ISLES, LiTS, or a datalist.

Only names are looked at, never headers or voxels.

    layout    image                                                 mask
    bids      sub-*/[ses-*/]anat/*_<suffix>.nii[.gz]                derivatives/<pipeline>/sub-*/[ses-*/]anat/
                                                                    *_label-lesion_mask or *_desc-lesion_mask
    brats     [<group>/]<id>/<id>_flair or <id>-t2f                 <id>_seg or <id>-seg
    isles     2015: <case>/VSD.Brain.XX.O.MR_Flair.<n>/*.nii        <case>/VSD.Brain*.OT.<n>/*.nii
              2022: [rawdata/]sub-*/[ses-*/][anat/ or dwi/]*_dwi    derivatives/sub-*/[ses-*/]*_msk
    lits      volume-<n>, or imagesTr/liver_<n>                     segmentation-<n>, or labelsTr/liver_<n>
    datalist  "image" of each entry of a JSON or CSV file           "mask" or "label" of the same entry
"""

import csv
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ScanError, UsageError
from pipeline.scans.nifti import stem

LAYOUTS = ("bids", "brats", "isles", "lits", "datalist")

LOOKS_LIKE = (
    "bids (sub-01/anat/sub-01_FLAIR.nii.gz and "
    "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz), "
    "brats (ID/ID_flair.nii.gz and ID/ID_seg.nii.gz, or ID/ID-t2f.nii.gz and ID/ID-seg.nii.gz), "
    "isles (1/VSD.Brain.XX.O.MR_Flair.70613/ and 1/VSD.Brain.XX.O.OT.70614/, or "
    "rawdata/sub-01/ses-01/sub-01_ses-01_dwi.nii.gz and derivatives/sub-01/ses-01/sub-01_ses-01_msk.nii.gz), "
    "lits (volume-0.nii and segmentation-0.nii, or imagesTr/liver_0.nii.gz and labelsTr/liver_0.nii.gz), "
    "datalist (a JSON file with lists 'training', 'validation', 'test' of {'image', 'mask'}, or a CSV file "
    "with columns image, mask, subject, split)"
)

SPLITS = {
    "training": "training",
    "train": "training",
    "validation": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}

# BraTS names each sequence one way up to 2020 and another way from 2023; "t1w" is the name that BIDS gives.
BRATS_MODALITIES = {
    "flair": ("flair", "t2f"),
    "t1": ("t1", "t1n", "t1w"),
    "t1ce": ("t1ce", "t1c"),
    "t2": ("t2", "t2w"),
}


@dataclass(frozen=True)
class Case:
    """One subject's scan with its lesion mask.

    Attributes:
        subject: identifier safe as a file name (letters, digits, '-' and '_'), unique in its cohort; a BIDS
            subject with sessions gives one case per session, such as "sub-01_ses-02".
        image: the scan.
        mask: the lesion mask on the grid of `image`; never None in what `find_cases` gives.
        patient: the person, equal for all sessions and time points; splits are made by patient.
        truth: the image without the lesion where it is known (phantoms).
        split: 'training', 'validation' or 'test' where a datalist says so.
        lesion_labels: mask values that mean lesion; None for any value above 0.
    """

    subject: str
    image: Path
    mask: Path | None
    patient: str
    truth: Path | None = None
    split: str | None = None
    lesion_labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Problem:
    """A scan that cannot be used, and why: one sentence with file, found, expected and what to do."""

    subject: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What a cohort holds: usable cases and the scans that are not, both sorted by subject."""

    layout: str
    cases: list[Case]
    problems: list[Problem]


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
        entries = FINDERS[layout](cohort, modality)
    except OSError as error:
        raise UsageError(
            f"{error.filename or cohort}: cannot be read ({error.strerror or error}), expected a cohort that "
            "you may read; mend its permissions or the disk"
        ) from error
    if not entries:
        raise UsageError(
            f"{cohort}: holds no scan in the layout {layout}, expected one of {LOOKS_LIKE}; arrange the "
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


@dataclass(frozen=True)
class _Entry:
    """What a layout holds for one subject; exactly one image and one mask make a case of it."""

    name: str
    place: Path  # where the image is looked for
    images: list[Path]
    masks: list[Path]
    image_hint: str
    mask_hint: str
    truths: list[Path] = field(default_factory=list)
    present: list[Path] = field(default_factory=list)  # images of any modality
    split: str | None = None
    lesion_labels: tuple[int, ...] | None = None
    fault: str | None = None  # of the datalist's entry itself


def _case(entry: _Entry, subject: str, patient: str) -> Case:
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
    # Masks tell the layouts apart: images of ISLES 2022 lie as in BIDS, and <id>_flair occurs elsewhere too.
    for known in ("bids", "brats", "isles", "lits"):
        if any(entry.masks for entry in FINDERS[known](cohort, None)):
            return known
    if _bids(cohort, None):
        return "bids"
    raise UsageError(
        f"{cohort}: is in no known layout, expected one of {LOOKS_LIKE}; check the path, or list the scans "
        "in a datalist"
    )


def _bids(cohort: Path, modality: str | None) -> list[_Entry]:
    suffix = modality or "FLAIR"
    anatomical = _by_session(cohort, ("anat",))
    lesions: dict[str, list[Path]] = defaultdict(list)
    for pipeline in _folders(cohort / "derivatives"):
        for name, paths in _by_session(pipeline, ("anat",)).items():
            lesions[name] += _with_entity(_with_suffix(paths, "mask"), "label-lesion", "desc-lesion")
    truths = _by_session(cohort / "derivatives" / "truth", ("anat",))

    entries = []
    for name in sorted(anatomical.keys() | {name for name, paths in lesions.items() if paths}):
        present = anatomical.get(name, [])
        images = _plain_else_all(_with_suffix(present, suffix), {f"{name}_{suffix}"})
        base = stem(images[0]).rpartition("_")[0] if images else name
        folder = name.replace("_", "/")
        entries.append(
            _Entry(
                name=name,
                place=cohort / folder,
                images=images,
                masks=_plain_else_all(
                    lesions[name],
                    *({f"{of}_label-lesion_mask", f"{of}_desc-lesion_mask"} for of in (base, name)),
                ),
                image_hint=f"anat/{name}_{suffix}.nii.gz",
                mask_hint=f"derivatives/<pipeline>/{folder}/anat/{name}_label-lesion_mask.nii.gz",
                truths=_plain_else_all(
                    _with_entity(_with_suffix(truths.get(name, []), suffix), "desc-healthy"),
                    *({f"{of}_desc-healthy_{suffix}"} for of in (base, name)),
                ),
                present=present,
            )
        )
    return entries


def _brats(cohort: Path, modality: str | None) -> list[_Entry]:
    asked = (modality or "flair").casefold()
    names = next((names for names in BRATS_MODALITIES.values() if asked in names), None)
    if names is None:
        known = ", ".join(itertools.chain.from_iterable(BRATS_MODALITIES.values()))
        raise UsageError(f"{modality}: no modality of BraTS, expected one of {known}; choose one of them")
    sequences = set(itertools.chain.from_iterable(BRATS_MODALITIES.values()))

    entries = []
    for folder in _folders(cohort, depth=2):
        parts: dict[str, list[Path]] = defaultdict(list)
        for path in _niftis(folder):
            name = stem(path)
            if name.startswith((f"{folder.name}_", f"{folder.name}-")):
                parts[name[len(folder.name) + 1 :].casefold()].append(path)
        if sequences.isdisjoint(parts) and "seg" not in parts:
            continue
        entries.append(
            _Entry(
                name=folder.name,
                place=folder,
                images=list(itertools.chain.from_iterable(parts[name] for name in names if name in parts)),
                masks=parts.get("seg", []),
                image_hint=f"{folder.name}_{names[0]}.nii.gz or {folder.name}-{names[1]}.nii.gz",
                mask_hint=f"{folder.name}_seg.nii.gz or {folder.name}-seg.nii.gz beside it",
                present=[path for name, paths in parts.items() if name != "seg" for path in paths],
            )
        )
    return entries


def _isles(cohort: Path, modality: str | None) -> list[_Entry]:
    return _isles_2015(cohort, modality or "Flair") or _isles_2022(cohort, modality or "dwi")


def _isles_2015(cohort: Path, modality: str) -> list[_Entry]:
    entries = []
    for folder in _folders(cohort, depth=2):
        volumes: dict[str, list[Path]] = defaultdict(list)
        for volume in _folders(folder):
            if volume.name.startswith("VSD.Brain"):
                volumes[volume.name.split(".")[-2].casefold()] += _niftis(volume)
        if not volumes:
            continue
        entries.append(
            _Entry(
                name=folder.name,
                place=folder,
                images=volumes.get(f"mr_{modality}".casefold(), []),
                masks=volumes.get("ot", []),
                image_hint=f"VSD.Brain.XX.O.MR_{modality}.<n>/*.nii",
                mask_hint="a folder VSD.Brain.XX.O.OT.<n> beside its folder",
                present=[path for kind, paths in volumes.items() if kind != "ot" for path in paths],
            )
        )
    return entries


def _isles_2022(cohort: Path, modality: str) -> list[_Entry]:
    raw = cohort / "rawdata" if (cohort / "rawdata").is_dir() else cohort
    places = ("", "anat", "dwi")
    scans = _by_session(raw, places)
    derived = _by_session(cohort / "derivatives", places)
    masks = {name: _with_suffix(paths, "msk") for name, paths in derived.items()}
    return [
        _Entry(
            name=name,
            place=raw / name.replace("_", "/"),
            images=_plain_else_all(_with_suffix(scans.get(name, []), modality), {f"{name}_{modality}"}),
            masks=masks.get(name, []),
            image_hint=f"{name}_{modality}.nii.gz",
            mask_hint=f"derivatives/{name.replace('_', '/')}/{name}_msk.nii.gz",
            present=scans.get(name, []),
        )
        for name in sorted(scans.keys() | {name for name, paths in masks.items() if paths})
    ]


def _lits(cohort: Path, modality: str | None) -> list[_Entry]:
    if modality is not None and modality.casefold() != "ct":
        raise UsageError(f"{modality}: no modality of LiTS, expected CT; leave the modality out")
    images: dict[str, list[Path]] = defaultdict(list)
    masks: dict[str, list[Path]] = defaultdict(list)
    for folder in [cohort, *_folders(cohort, depth=2)]:
        for path in _niftis(folder):
            kind, _, number = stem(path).partition("-")
            if kind in {"volume", "segmentation"} and number.isdigit():
                (images if kind == "volume" else masks)[f"volume-{number}"].append(path)
            elif re.fullmatch(r"liver_\d+", stem(path)) and folder.name in {"imagesTr", "labelsTr"}:
                (images if folder.name == "imagesTr" else masks)[stem(path)].append(path)
    return [
        _Entry(
            name=name,
            place=cohort,
            images=images.get(name, []),
            masks=masks.get(name, []),
            image_hint=f"imagesTr/{name}.nii.gz" if name.startswith("liver") else f"{name}.nii",
            mask_hint=(
                f"labelsTr/{name}.nii.gz"
                if name.startswith("liver")
                else f"{name.replace('volume', 'segmentation')}.nii"
            ),
            lesion_labels=(2,),
        )
        for name in sorted(images.keys() | masks.keys())
    ]


def _datalist(path: Path, modality: str | None) -> list[_Entry]:  # noqa: ARG001 - has no modality
    kind = path.suffix.casefold()
    if kind not in {".json", ".csv"}:
        raise UsageError(
            f"{path}: is a single file, expected a cohort folder or a datalist (.json, .csv); name the "
            "folder that holds the scans"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _json_rows(path, text) if kind == ".json" else _csv_rows(path, text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise UsageError(f"{path}: is malformed ({error}), expected JSON or CSV; mend it") from error
    return [_listed(path, where, row, split) for where, row, split in rows]


def _json_rows(path: Path, text: str) -> list[tuple[str, Any, Any]]:
    content = json.loads(text)
    lists = {key: content[key] for key in SPLITS if key in content} if isinstance(content, dict) else {}
    if not lists or not all(isinstance(rows, list) for rows in lists.values()):
        raise UsageError(
            f"{path}: is JSON but no datalist, expected an object with lists 'training', 'validation' or "
            "'test' of {'image': ..., 'mask': ...}; write it so"
        )
    return [(f"{split}[{index}]", row, split) for split, rows in lists.items() for index, row in enumerate(rows)]


def _csv_rows(path: Path, text: str) -> list[tuple[str, Any, Any]]:
    lines = text.splitlines()
    header = lines[0] if lines else ""
    # Spreadsheets of many countries separate by semicolons.
    reader = csv.DictReader(lines, delimiter=next((mark for mark in ",;\t" if mark in header), ","))
    reader.fieldnames = [name.strip().casefold() for name in reader.fieldnames or []]
    if "image" not in reader.fieldnames:
        raise UsageError(
            f"{path}: has the columns {', '.join(reader.fieldnames) or '(none)'}, expected image, mask and "
            "optionally subject and split; name them so in its first line"
        )
    return [(f"line {reader.line_num}", row, row.get("split")) for row in reader]


def _listed(path: Path, where: str, row: Any, split: Any) -> _Entry:
    if isinstance(row, str):  # MONAI lists test images without labels so
        row = {"image": row}
    row = row if isinstance(row, dict) else {}
    image, mask = row.get("image"), row.get("mask") or row.get("label")
    given_split = str(split or "").strip().casefold()

    fault = None
    if not isinstance(image, str) or not image.strip():
        fault = f"{path}: {where} has the image {image!r}, expected the path of one file; name one"
        image = ""
    elif mask and not isinstance(mask, str):
        fault = f"{path}: {where} has the mask {mask!r}, expected the path of one file; name one"
        mask = ""
    elif given_split and given_split not in SPLITS:
        fault = f"{path}: {where} has the split {split!r}, expected training, validation or test; mend it"
    images = [path.parent / image.strip()] if image else []
    subject = "" if row.get("subject") is None else str(row["subject"]).strip()
    return _Entry(
        name=subject or (stem(images[0]) if images else where),
        place=path,
        images=images,
        masks=[path.parent / mask.strip()] if mask and mask.strip() else [],
        image_hint="",
        mask_hint=f"its path as 'mask' in {where} of {path}",
        split=SPLITS.get(given_split),
        fault=fault,
    )


def _refuse_divided_patients(cohort: Path, entries: list[_Entry]) -> None:
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


def _by_session(root: Path, places: tuple[str, ...]) -> dict[str, list[Path]]:
    """NIfTI files in `places` of each sub-*/[ses-*/], under the name sub-<id>[_ses-<id>]."""
    sessions = {}
    for subject in _folders(root):
        if not subject.name.startswith("sub-"):
            continue
        inner = [folder for folder in _folders(subject) if folder.name.startswith("ses-")]
        for folder in [subject, *inner]:
            paths = [path for place in places for path in _niftis(folder / place)]
            if paths:
                sessions["_".join(folder.relative_to(root).parts)] = paths
    return sessions


def _with_suffix(paths: list[Path], suffix: str) -> list[Path]:
    return [path for path in paths if stem(path).rpartition("_")[2].casefold() == suffix.casefold()]


def _with_entity(paths: list[Path], *entities: str) -> list[Path]:
    return [path for path in paths if not set(entities).isdisjoint(stem(path).split("_"))]


def _plain_else_all(candidates: list[Path], *plain: set[str]) -> list[Path]:
    """Those named as the first of the sets `plain` that names any, whatever the case; all when none does."""
    for stems in plain:
        wanted = {stem.casefold() for stem in stems}
        if chosen := [path for path in candidates if stem(path).casefold() in wanted]:
            return chosen
    return candidates


def _folders(root: Path, depth: int = 1) -> list[Path]:
    """Folders up to `depth` levels below `root`, sorted; hidden ones and a disk's lost+found are left out."""
    if depth == 0 or not root.is_dir():
        return []
    folders = sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".") and path.name != "lost+found"
    )
    return folders + [inner for folder in folders for inner in _folders(folder, depth - 1)]


def _niftis(folder: Path) -> list[Path]:
    """NIfTI files by name, sorted; hidden ones (macOS puts `._*` beside each file) are left out."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.name.endswith((".nii", ".nii.gz")) and not path.name.startswith(".")
    )


FINDERS = {"bids": _bids, "brats": _brats, "isles": _isles, "lits": _lits, "datalist": _datalist}
