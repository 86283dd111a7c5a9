"""Cohorts of one modality each, made into one: the target modality's patients are split, the others' are for training.

This is the setting of DUIIT (Section 3): images of different modalities are of different people, and those of the
source modalities enter training only. The split of the target modality is drawn anew with each seed (Section 4.1).
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from pipeline.errors import UsageError
from pipeline.files import require_empty, written_aside
from pipeline.preprocessing.cohort import write_tables
from pipeline.preprocessing.cohort_format import Cohort, Subject, read_cohort, read_part, write_stored
from pipeline.preprocessing.splits import SPLITS, Split, split_patients

# DUIIT's 1,887, 271 and 280 of 2,438 CT images.
SHARES = (0.77, 0.11, 0.12)
SplitBy = Literal["patient", "image"]


@dataclass(frozen=True)
class Modality:
    """A cohort that `preprocess` made of scans of one modality.

    Attributes:
        cohort: its folder.
        name: of the modality; None takes the name of the cohort's channel.
    """

    cohort: Path
    name: str | None = None


def join(
    directory: Path,
    target: Modality,
    sources: Sequence[Modality],
    shares: tuple[float, float, float] = SHARES,
    seed: int = 0,
    by: SplitBy = "patient",
) -> list[str]:
    """Write a cohort whose scans have one channel each, named as their modality.

    Volumes are hard links to those of the cohorts where the file system has them, so that splits drawn many times take
    no room. A patient who is in several of the cohorts stays in the one that has the fewest.

    Args:
        directory: a new or empty folder.
        target: the modality that is predicted from; its patients are split.
        sources: the others; all of their scans are for training.
        shares: of the target's training, validation and test patients, or images.
        seed: of the split.
        by: `patient`, or `image` as DUIIT splits: then slices of one person are in training and in test.

    Returns:
        What is to be said of the result.

    Raises:
        UsageError: if a cohort has several channels or another target, two modalities have one name, or the target has
            too few patients.
    """
    if by not in ("patient", "image"):
        raise UsageError(f"--by: found {by!r}, expected patient or image")
    require_empty(directory, remedy="choose another folder")
    cohorts = [target, *sources]
    contents = [read_cohort(each.cohort) for each in cohorts]
    names = _names(cohorts, contents)
    kept, notes = _disjoint(names, contents)
    with written_aside(directory) as aside:
        subjects: list[Subject] = []
        for name, each, its in zip(names, cohorts, kept, strict=True):
            if each is not target:
                subjects += [_taken(aside, each.cohort, subject, name, "training") for subject in its]
            elif by == "patient":
                splits = split_patients((subject.patient for subject in its), shares, seed)
                subjects += [_taken(aside, each.cohort, subject, name, splits[subject.patient]) for subject in its]
            else:
                notes.append("split by image: slices of one person are in training, validation and test, which leaks")
                for subject, places in _by_image(its, shares, seed):
                    subjects += [_cut(aside, each.cohort, subject, name, split, places[split]) for split in places]
        settings = {**contents[0].settings.model_dump(mode="json"), "split": shares, "seed": seed, "split_by": by}
        write_tables(aside, subjects, settings, f"joined: {', '.join(names)}", notes)
    return notes


def _names(cohorts: Sequence[Modality], contents: Sequence[Cohort]) -> list[str]:
    names = []
    for each, content in zip(cohorts, contents, strict=True):
        if len(content.channels) != 1:
            raise UsageError(
                f"{each.cohort}: has the channels {', '.join(content.channels) or '(none)'}, expected one modality; "
                "preprocess it with --modality, or with --channels and one name"
            )
        if content.settings.target != contents[0].settings.target:
            raise UsageError(
                f"{each.cohort}: has the target {content.settings.target}, expected {contents[0].settings.target} as "
                f"{cohorts[0].cohort} has; preprocess both with the same --target"
            )
        names.append(each.name or content.channels[0])
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(
            f"{', '.join(str(each.cohort) for each in cohorts)}: several are of the modality {twice[0]}, expected "
            "different ones; name them, for example CT=FOLDER"
        )
    return names


def _disjoint(names: Sequence[str], contents: Sequence[Cohort]) -> tuple[list[list[Subject]], list[str]]:
    """The subjects of each modality, no patient in two."""
    having: dict[str, list[int]] = {}
    for place, content in enumerate(contents):
        for patient in sorted({subject.patient for subject in content.subjects}):
            having.setdefault(patient, []).append(place)
    chosen = {patient: places[0] for patient, places in having.items() if len(places) == 1}
    several = [patient for patient in having if patient not in chosen]
    counts = Counter(chosen.values())
    for patient in several:
        chosen[patient] = min(having[patient], key=lambda place: (counts[place], place))
        counts[chosen[patient]] += 1
    kept = [[each for each in content.subjects if chosen[each.patient] == n] for n, content in enumerate(contents)]
    sizes = ", ".join(f"{counts[place]} in {name}" for place, name in enumerate(names))
    if not several:
        return kept, []
    return kept, [f"{len(several)} patients are in several modalities; each was taken in one: {sizes}"]


def _taken(directory: Path, cohort: Path, subject: Subject, modality: str, split: Split) -> Subject:
    """A subject as it is, its files linked."""
    renamed = _renamed(subject, f"{modality}_{subject.subject}", modality, split)
    for old, new in zip(subject.files, renamed.files, strict=True):
        source, link = (cohort / old).resolve(), directory / new
        if not source.is_relative_to(cohort.resolve()):
            raise UsageError(
                f"{cohort / old}: is a link that leads out of the cohort, expected its files; put it there"
            )
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, link)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, link)
    return renamed


def _cut(directory: Path, cohort: Path, subject: Subject, modality: str, split: Split, places: list[int]) -> Subject:
    """Some slices of a subject as a scan of their own."""
    renamed = _renamed(subject, f"{modality}_{subject.subject}_{split}", modality, split)
    for old, new in zip(subject.files, renamed.files, strict=True):
        write_stored(directory / new, read_part(cohort, subject, old)[places], nib.load(cohort / old).affine)
    of_slices = {name: [getattr(subject, name)[place] for place in places] for name in _per_slice(subject)}
    if subject.slice_targets:
        of_slices["target"] = sum(of_slices["slice_targets"]) / len(places)
    return renamed.model_copy(update=of_slices)


def _per_slice(subject: Subject) -> list[str]:
    return [name for name in ("labels", "lesion_mm2", "slice_targets") if getattr(subject, name)]


def _renamed(subject: Subject, name: str, modality: str, split: Split) -> Subject:
    """With a name, a modality and a split; its files are named after it."""
    files = {kind: f"{kind}/{name}.nii.gz" for kind in ("masks", "truth", "ignore") if getattr(subject, kind)}
    image = f"images/{name}.nii.gz"
    windows = dict(zip([modality], subject.windows.values(), strict=False))
    update = {"subject": name, "split": split, "images": image, "channels": {modality: image}, "windows": windows}
    return subject.model_copy(update={**update, **files})


def _by_image(
    subjects: Sequence[Subject], shares: Sequence[float], seed: int
) -> Iterator[tuple[Subject, dict[Split, list[int]]]]:
    """Each subject, and which of its slices are in each split."""
    images = [(number, place) for number, subject in enumerate(subjects) for place in range(len(subject.labels))]
    order = np.random.default_rng(seed).permutation(len(images))
    ends = [round(share * len(images)) for share in accumulate(shares)]
    if min(np.diff([0, *ends])) < 1:
        raise UsageError(f"found {len(images)} images, expected some for each of {', '.join(SPLITS)}; add scans")
    chosen: list[dict[Split, list[int]]] = [{} for _ in subjects]
    for split, first, end in zip(SPLITS, [0, *ends], ends, strict=False):
        for number, place in sorted(images[index] for index in order[first:end]):
            chosen[number].setdefault(split, []).append(place)
    yield from zip(subjects, chosen, strict=True)
