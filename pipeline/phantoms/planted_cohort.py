"""A cohort of planted lesions on disk, in BIDS: scans of persons with lesions of others, masks and truth."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.cohorts import Case, Problem, find_cases
from pipeline.errors import ScanError, UsageError
from pipeline.files import read_json, write_json
from pipeline.phantoms.dataset import refuse_other_content, write_descriptions, write_participants
from pipeline.phantoms.planted import Planted, Shape, plant, shapes_of
from pipeline.preprocessing.cohort import SHARES
from pipeline.preprocessing.cohort_format import COHORT_FILE, read_cohort
from pipeline.preprocessing.domain import measure
from pipeline.preprocessing.labels import lesion_voxels
from pipeline.preprocessing.splits import SPLITS, Split, split_patients
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan, check_same_grid, on_grid_of, read_nifti, stem, write_nifti
from pipeline.scans.contrast import named_contrast

NAME = "Lesions planted in scans of persons"
README = """\
Lesions planted in healthy tissue of real scans: shapes of real lesions, synthetic signal.

sub-*/ses-*/anat             the scans, with planted lesions (a session each)
derivatives/manual           masks of the planted lesions (1 lesion, 0 elsewhere)
derivatives/truth            the scans as they were: equal to the scan, voxel for voxel, wherever the mask is 0 (with
                             mass effect, further than the reach of the displacement, which sidecars tell)
derivatives/ignore           masks of the disease that a person had, which is no healthy truth and was left alone

Made by `phs-pipeline phantom --kind planted`. Licence and consent are those of the scans. A lesion of a patient was
planted in scans of patients of the same split only; participants.tsv has the splits, which `preprocess` keeps.
"""
# The drawn lesions of a folder that is no cohort: files with such words in their names.
MASK_WORDS = ("lesion", "mask", "seg", "label")
SUFFIXES = {"contrast-enhanced T1w": "ce-gadolinium_T1w"}
UNKNOWN = "image"  # suffix of a scan whose name tells no contrast
MARK = b"PLANTED lesions, by phs-pipeline phantom"


@dataclass(frozen=True)
class Settings:
    """What is planted, and in whom.

    Args:
        seed: of the cohort, at least 0.
        copies: planted scans of each host.
        subjects: hosts, at most; None takes all.
        split: of the hosts; None takes all.
        modality: of the hosts, in the words of their layout.
        layout: of the hosts; None recognises it.
        mass_effect: whether lesions push the tissue around them aside.
    """

    seed: int = 0
    copies: int = 1
    subjects: int | None = None
    split: Split | None = None
    modality: str | None = None
    layout: str | None = None
    mass_effect: bool = False


def write_planted_cohort(
    directory: Path,
    healthy: Path,
    shapes: Sequence[Path],
    settings: Settings,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[str], list[Problem]]:
    """Write scans of a cohort with planted lesions as a BIDS dataset that `preprocess` reads, splits included.

    A planted scan depends on the seed, its host and its number, and on the hosts and shapes of its split. Scans that
    are already complete are left alone.

    Args:
        directory: a new or empty folder, or one that holds the cohort of the same arguments.
        healthy: hosts: scans in a known layout, a datalist, or a cohort made by `preprocess`. Where some have lesion
            masks, those without are left out: nobody knows where they are healthy.
        shapes: cohorts whose lesions' shapes are planted, or folders of masks.
        settings: see `Settings`.
        progress: called with (hosts done, hosts in all).

    Returns:
        Labels of the planted scans, such as `sub-01_ses-01`, and hosts that could not be used.

    Raises:
        UsageError: if there is no host or shape, a split has hosts and no shapes, or `directory` holds something else.
    """
    made_by = {
        "Seed": settings.seed,
        "Kind": "planted",
        "Hosts": Path(healthy).name,
        "Shapes": [Path(cohort).name for cohort in shapes],
        "Modality": settings.modality,
        "MassEffect": settings.mass_effect,
    }
    refuse_other_content(directory, made_by)
    hosts, problems = _cases(healthy, settings.layout, settings.modality)
    if not hosts:
        raise UsageError(
            f"{healthy}: holds no scan to plant lesions in ({'; '.join(each.reason for each in problems)})"
        )
    splits = {case.patient: _split(case) for case in hosts}
    by_split = _shapes_by_split(shapes, splits)
    chosen = _chosen(hosts, settings)
    for split in {splits[case.patient] for case in chosen}:
        if not by_split[split]:
            raise UsageError(
                f"{', '.join(map(str, shapes))}: found no lesion of a patient of the {split} split, expected some, "
                "because shapes stay in their split; give more --shapes, or another --split"
            )
    write_descriptions(
        directory, NAME, made_by, README,
        {"manual": "lesion masks", "truth": "healthy truth", "ignore": "disease of the hosts"},
        licence="that of the scans",
    )  # fmt: skip
    labels, done = _labels(hosts), []
    turns: dict[str, int] = defaultdict(int)
    for number, case in enumerate(chosen, start=1):
        split, turn = splits[case.patient], turns[splits[case.patient]]
        turns[split] += 1
        try:
            done += _write_host(directory, case, labels[case.subject], by_split[split], turn, settings)
        except ScanError as error:
            problems.append(Problem(case.subject, str(error)))
        if progress is not None:
            progress(number, len(chosen))
    if not done:
        raise UsageError(f"{healthy}: no usable host ({'; '.join(problem.reason for problem in problems)})")
    people = {labels[case.subject][0]: {"split": splits[case.patient]} for case in hosts}
    present = {path.name for path in directory.glob("sub-*")}
    write_participants(directory, {label: people[label] for label in sorted(present & people.keys())})
    return done, problems


def _cases(cohort: Path, layout: str | None = None, modality: str | None = None) -> tuple[list[Case], list[Problem]]:
    """Scans of a cohort, each with a split: its own, or the one that `preprocess` gives it by default."""
    if (Path(cohort) / COHORT_FILE).is_file():
        prepared = read_cohort(cohort)
        if modality is not None and modality not in prepared.channels:
            raise UsageError(
                f"{cohort}: has {', '.join(prepared.channels)}, expected the modality {modality}; choose one of these"
            )
        cases = [
            Case(
                subject=record.subject,
                image=cohort / (record.images if modality is None else record.channels[modality]),
                mask=None if record.masks is None else cohort / record.masks,
                patient=record.patient,
                split=record.split,
            )
            for record in prepared.subjects
            if record.masks is not None or "unknown" not in record.labels
        ]
        return cases, []
    found = find_cases(cohort, layout, modality)
    if not found.cases:
        found = find_cases(cohort, layout, modality, masks_optional=True)
    return _with_splits(found.cases), list(found.problems)


def _with_splits(cases: list[Case]) -> list[Case]:
    undecided = {case.patient for case in cases if case.split is None}
    shares = SHARES if len(undecided) >= len(SPLITS) else (1.0, 0.0, 0.0)
    drawn = split_patients(undecided, shares, seed=0) if undecided else {}
    return [case if case.split else replace(case, split=drawn[case.patient]) for case in cases]


def _split(case: Case) -> Split:
    return cast("Split", case.split)


def _shapes_by_split(cohorts: Sequence[Path], hosts: Mapping[str, Split]) -> dict[str, list[Shape]]:
    """The shapes of each split; a patient who is a host, too, is in the host's split."""
    by_split: dict[str, list[Shape]] = {split: [] for split in SPLITS}
    for cohort in cohorts:
        for case in _drawn(cohort):
            mask = read_nifti(cast("Path", case.mask), constant_ok=True)
            values = mask.intensities()
            drawn = values >= 0.5 if case.lesion_labels is None else np.isin(values.round(), case.lesion_labels)
            by_split[hosts.get(case.patient, _split(case))] += shapes_of(mask, drawn, case.subject)
    return by_split


def _drawn(cohort: Path) -> list[Case]:
    """Cases with masks; of a folder in no layout, the masks in it."""
    try:
        cases, _ = _cases(cohort)
    except UsageError:
        cases = []
    if not (masked := [case for case in cases if case.mask is not None]) and Path(cohort).is_dir():
        masked = next(filter(None, (_plain_masks(cohort, word) for word in MASK_WORDS)), [])
    if not masked:
        raise UsageError(
            f"{cohort}: holds no lesion masks, expected a cohort that has some, or a folder of files with "
            f"{', '.join(MASK_WORDS[:-1])} or {MASK_WORDS[-1]} in their names; check the path"
        )
    return masked


def _plain_masks(folder: Path, word: str) -> list[Case]:
    """Files with a word in their names; what stands before it is the patient."""
    try:
        found = find_cases(folder, "healthy", word, masks_optional=True).cases
    except UsageError:
        return []

    def patient(case: Case) -> str:
        return re.sub(rf"[_-]*{word}.*$", "", case.subject, flags=re.IGNORECASE) or case.patient

    return _with_splits([replace(case, mask=case.image, patient=patient(case)) for case in found])


def _chosen(hosts: list[Case], settings: Settings) -> list[Case]:
    """The hosts asked for, in an order that does not depend on how many they are."""
    order = np.random.default_rng(settings.seed).permutation(len(hosts))
    chosen = [hosts[index] for index in order if settings.split in {None, hosts[index].split}]
    if not chosen:
        raise UsageError(f"found no host in the {settings.split} split, expected some; choose another --split")
    return chosen[: settings.subjects]


def _labels(hosts: list[Case]) -> dict[str, tuple[str, int]]:
    """For each host the label of its patient, and its number among the patient's scans, from 0."""
    labels: dict[str, str] = {}
    for patient in sorted({case.patient for case in hosts}):
        plain = "sub-" + (re.sub(r"[^A-Za-z0-9]", "", patient.removeprefix("sub-")) or "x")
        while plain in labels.values():
            plain += "x"
        labels[patient] = plain
    numbers: dict[str, int] = defaultdict(int)
    found = {}
    for case in sorted(hosts, key=lambda case: case.subject):
        found[case.subject] = (labels[case.patient], numbers[case.patient])
        numbers[case.patient] += 1
    return found


def _write_host(
    directory: Path, case: Case, label: tuple[str, int], shapes: Sequence[Shape], turn: int, settings: Settings
) -> list[str]:
    """Labels of the host's planted scans, all of them now on disk."""
    scan: Scan | None = None
    names = []
    for copy in range(settings.copies):
        # The patient's scan, and the number of its copy: further copies leave the names of the first alone.
        session = f"ses-{label[1] + 1:02d}{copy + 1:02d}"
        name = f"{label[0]}_{session}"
        names.append(name)
        folder = f"{label[0]}/{session}/anat"
        suffix = _suffix(case, settings)
        path = directory / folder / f"{name}_{suffix}.nii.gz"
        if path.is_file() and read_json(path.with_name(f"{stem(path)}.json")).get("Host") == case.subject:
            continue
        if scan is None:
            scan = read_nifti(case.image, volume=case.volumes.get("image"))
            own = _own(case, scan)
            about = {"Host": case.subject, "Split": case.split, "SkullStripped": _skull_stripped(scan)}
        digest = int(hashlib.sha256(case.subject.encode()).hexdigest()[:12], 16)
        rng = np.random.default_rng([settings.seed, digest, copy])
        planted = plant(scan, own, shapes, turn + copy, rng, settings.mass_effect)
        _write(directory, folder, name, suffix, scan, own, planted, about)
    return names


def _suffix(case: Case, settings: Settings) -> str:
    contrast = named_contrast(case.image.name) or named_contrast(settings.modality or "") or UNKNOWN
    return SUFFIXES.get(contrast, contrast)


def _own(case: Case, scan: Scan) -> NDArray[np.bool_] | None:
    """The host's own drawn disease."""
    if case.mask is None:
        return None
    mask = on_grid_of(scan, read_nifti(case.mask, constant_ok=True))
    check_same_grid(scan, mask, "mask")
    lesion, _ = lesion_voxels(mask, scan, case.lesion_labels)
    return lesion if lesion.any() else None


def _skull_stripped(scan: Scan) -> bool:
    intensities = scan.intensities()
    windowed = WindowRule().window(intensities, scan.origin).apply(scan.axial(intensities))
    features = measure(windowed, scan.axial_spacing_mm)
    return features is not None and features.kind == "stripped"


def _write(
    directory: Path,
    folder: str,
    name: str,
    suffix: str,
    scan: Scan,
    own: NDArray[np.bool_] | None,
    planted: Planted,
    about: Mapping[str, Any],
) -> None:
    image = f"{folder}/{name}_{suffix}.nii.gz"
    source = f"bids:raw:{image}"
    derived = {"Sources": [source], "SkullStripped": about["SkullStripped"]}
    of_mask = {**derived, "SpatialReference": source, "Type": "Lesion"}
    binary = replace(scan, slope=1.0, intercept=0.0)
    ignored = f"derivatives/ignore/{folder}/{name}_label-ignore_mask.nii.gz"
    plants = {
        **about,
        "Planted": [each.record() for each in planted.plants],
        # So that it is not counted as healthy.
        "OwnDisease": None if own is None else {"Mask": ignored, "Ml": round(int(own.sum()) * scan.voxel_ml, 4)},
    }
    files: list[tuple[str, NDArray[np.generic], Scan, dict[str, Any]]] = [
        (
            f"derivatives/manual/{folder}/{name}_label-lesion_mask.nii.gz",
            planted.lesion.astype(np.uint8),
            binary,
            {"Description": "Planted lesions", **of_mask},
        ),
        (
            f"derivatives/truth/{folder}/{name}_desc-healthy_{suffix}.nii.gz",
            scan.stored,
            scan,
            {"Description": "The scan before lesions were planted; its own disease is in it", **derived},
        ),
    ]
    if own is not None:
        text = "The person's own disease: neither lesion nor normal tissue"
        files.append((ignored, own.astype(np.uint8), binary, {"Description": text, **of_mask}))
    # Last, so that a scan that is there is complete.
    files.append((image, planted.image, scan, {"SeriesDescription": "PLANTED synthetic lesions", **plants}))
    for file, voxels, like, sidecar in files:
        path = directory / file
        write_json(path.with_name(f"{stem(path)}.json"), sidecar)
        write_nifti(path, voxels, like, mark=MARK)
