"""From a folder of scans to a cohort ready for training, in a folder that a person can inspect."""

import concurrent.futures
import contextlib
import csv
import hashlib
import io
import json
import logging
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from nibabel.affines import from_matvec
from nibabel.orientations import inv_ornt_aff
from numpy.typing import NDArray
from pydantic import BaseModel

from pipeline import __version__
from pipeline.cohorts import Case, FoundCases, Problem, find_cases
from pipeline.errors import OutputError, PipelineError, ScanError, UsageError
from pipeline.files import PARTIAL, is_partial, read_json, remove_left, sha256, write_json, write_text
from pipeline.preprocessing.cohort_format import (
    COHORT_FILE,
    FORMAT,
    LEVELS,
    Cohort,
    Prepared,
    SourceFile,
    Subject,
    count,
    write_stored,
)
from pipeline.preprocessing.labels import Label, empty, label_slices, lesion_voxels
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.splits import Split, split_patients
from pipeline.preprocessing.window import Window, WindowRule
from pipeline.scans import Scan, check_same_grid, on_grid_of, read_nifti
from pipeline.scans.dicom import find_series, read_series
from pipeline.scans.nifti import is_marked

logger = logging.getLogger(__name__)

FOLDERS = ("images", "masks", "truth", "ignore", "subjects")
SHARES = (0.7, 0.15, 0.15)
# The cohort of the last run, from when a run begins until it ends: patients stay in the splits that they are in.
PREVIOUS = "previous.json"
SETTINGS_FILE = "settings.json"
# The target that is measured, not read: area of the lesion in each slice, in cm².
LESION_AREA = "lesion_area"
SHOWN = 3


@dataclass(frozen=True)
class Settings:
    """What `preprocess` does to each scan; written beside the result.

    Args:
        modality: which scan of a subject, in the layout's own words (FLAIR, t1ce, …); None: the layout's default.
        slab: which middle slices to keep.
        window: which intensities become [0, 1].
        min_lesion_mm2: smallest lesion area that makes a slice pathological.
        split: shares of training, validation and test patients; None: `SHARES`, and the cohort's own splits where it
            says them.
        seed: of the split.
        channels: several sequences on one grid instead of one modality.
        lesion_labels: mask values that mean lesion; None: as the layout has it.
        healthy: scans without a mask, or with an empty one, are of healthy people.
        target: column that holds what a scorer learns to tell, or `LESION_AREA`, which is each slice's own.
        synthetic: take images that `sample` or another command made, which are refused otherwise.
    """

    modality: str | None = None
    slab: Slab = Slab()
    window: WindowRule = WindowRule()
    min_lesion_mm2: float = 0.0
    split: tuple[float, float, float] | None = None
    seed: int = 0
    channels: tuple[str, ...] = ()
    lesion_labels: tuple[int, ...] | None = None
    healthy: bool = False
    target: str | None = None
    synthetic: bool = False

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of training, validation and test patients."""
        return self.split or SHARES

    @property
    def of_volumes(self) -> "Settings":
        """Without the split, which is decided later and changes no volume."""
        return replace(self, split=None, seed=0)


@dataclass(frozen=True)
class Preprocessed:
    """What `preprocess` did.

    Attributes:
        directory: the cohort's folder.
        layout: in which the scans lay.
        subjects: what is in it.
        problems: the scans that had to be left out.
        notes: what was assumed.
    """

    directory: Path
    layout: str
    subjects: list[Subject]
    problems: list[Problem]
    notes: list[str]


class _Finished(BaseModel):
    """What `subjects/<subject>.json` holds: what a volume was made from, sizes of its files, and the record."""

    key: str
    bytes: dict[str, int]
    notes: list[str]
    record: Prepared


def preprocess(
    cohort: Path,
    directory: Path,
    settings: Settings,
    layout: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Preprocessed:
    """Clip, cut, label and split a cohort.

    The folder receives `images/` (windowed to [0, 1], reoriented to RAS, middle slices), `masks/`, `truth/` and
    `ignore/` where the cohort has a healthy truth and masks of other disease, `subjects/` (one record each),
    `slices.csv` and `cohort.json`. A subject's record is written after its volumes and `cohort.json` after all else, so
    that an interrupted run continues and is never taken for a finished one; the same scans and settings give the same
    bytes. Files of subjects that are no longer usable are removed. Patients stay in the splits that an earlier run with
    the same seed and shares put them into.

    Args:
        cohort: a folder in a known layout, or a datalist.
        directory: where to write.
        settings: see `Settings`.
        layout: one of `pipeline.cohorts.LAYOUTS`; None recognises it.
        workers: processes; None uses all cores.
        overwrite: replace a cohort made from other settings.
        progress: called with (scans done, scans in all).

    Raises:
        UsageError: if nothing is usable, the folder holds something else, there are too few patients to split, or the
            same image is there under several patients.
    """
    found, settings = _begin(cohort, directory, settings, layout, overwrite)
    problems = list(found.problems)
    finished: list[_Finished] = []
    for done, outcome in enumerate(_each(found.cases, directory, settings, workers), start=1):
        if isinstance(outcome, Problem):
            problems.append(outcome)
        else:
            finished.append(outcome)
        if progress is not None:
            progress(done, len(found.cases))
    if not finished:
        reasons = "; ".join(problem.reason for problem in problems) or "it holds no scans"
        raise UsageError(f"{cohort}: no usable scan in this {found.layout} cohort ({reasons})")
    finished.sort(key=lambda each: each.record.subject)
    records = [each.record for each in finished]
    notes = _gathered(note for each in finished for note in each.notes)
    try:
        notes += _same_images(cohort, records, found.cases)
        previous, told = previous_splits(directory / PREVIOUS, records, settings)
        splits = split_of(records, found.cases, settings, previous)
    except UsageError as error:
        skipped = [f"skipped {problem.subject}: {problem.reason}" for problem in problems]
        raise UsageError("\n  ".join([str(error), *skipped])) from error
    subjects = [Subject(**record.model_dump(exclude_unset=True), split=splits[record.patient]) for record in records]
    notes += [*told, *_missing_labels(subjects)]
    _tell(notes)
    notes = [*found.notes, *notes]
    _remove_leftovers(directory, subjects)
    write_tables(directory, subjects, {**asdict(settings), "split": settings.shares}, found.layout, notes)
    return Preprocessed(directory, found.layout, subjects, sorted(problems, key=lambda problem: problem.subject), notes)


def preprocess_share(
    cohort: Path,
    directory: Path,
    settings: Settings,
    part: tuple[int, int],
    layout: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, list[Problem]]:
    """Do a share of the scans, for machines that share a cohort; `preprocess` finds them done, and ends the work.

    Args:
        cohort: as for `preprocess`, as are all that follow.
        directory: seen by all machines.
        settings: see `Settings`.
        part: (k, n) for every n-th scan, from the k-th.
        layout: see above.
        workers: see above.
        overwrite: see above.
        progress: see above.

    Returns:
        How many scans are done, and those that cannot be used.

    Raises:
        UsageError: if the folder holds something else, or there are too few patients to split.
    """
    found, settings = _begin(cohort, directory, settings, layout, overwrite)
    first, step = part
    cases = found.cases[first::step]
    problems = []
    for done, outcome in enumerate(_each(cases, directory, settings, workers), start=1):
        if isinstance(outcome, Problem):
            problems.append(outcome)
        if progress is not None:
            progress(done, len(cases))
    return len(cases) - len(problems), problems


def _begin(
    cohort: Path, directory: Path, settings: Settings, layout: str | None, overwrite: bool
) -> tuple[FoundCases, Settings]:
    """Find the cases, and keep in the folder with what settings it is written, and no cohort that is whole."""
    found, settings = find_for(cohort, settings, layout)
    _tell(found.notes)
    wanted = check_directory(directory, settings, overwrite)
    write_json(directory / SETTINGS_FILE, wanted)
    with contextlib.suppress(FileNotFoundError):  # none, or another share has set it aside
        (directory / COHORT_FILE).replace(directory / PREVIOUS)
    return found, settings


def _tell(notes: list[str]) -> None:
    for note in notes:
        logger.warning("%s", note)


def find_for(cohort: Path, settings: Settings, layout: str | None) -> tuple[FoundCases, Settings]:
    """The cases, by names alone, and the settings as these make them.

    Scans without masks are among them if they are healthy, or if no scan at all has one.

    Raises:
        UsageError: if the cohort cannot be read so, or has too few patients to split.
    """
    column = None if settings.target == LESION_AREA else settings.target

    def look(masks_optional: bool) -> FoundCases:
        return find_cases(cohort, layout, settings.modality, settings.channels, column, masks_optional)

    found = look(masks_optional=settings.healthy)
    if found.layout == "healthy":
        settings = replace(settings, healthy=True)
    if not found.cases and (unmasked := look(masks_optional=True)).cases:
        found = unmasked
        if not settings.healthy:
            found.notes.append(
                "no scan has a lesion mask, so all slices are labelled unknown; give --healthy if these are healthy "
                "people"
            )
    if settings.lesion_labels is not None:
        found = replace(found, cases=[replace(case, lesion_labels=settings.lesion_labels) for case in found.cases])
    elif any(case.lesion_labels == () for case in found.cases):
        raise UsageError(
            f"{cohort}: none of the labels in dataset.json is called a lesion, expected one; give the values that mean "
            "lesion with --lesion-labels"
        )
    _refuse_two_ways_to_split(cohort, found, settings)
    if found.cases:  # told now, not after an hour's work
        split_of(found.cases, found.cases, settings, {})
    return found, settings


def _refuse_two_ways_to_split(cohort: Path, found: FoundCases, settings: Settings) -> None:
    given = sorted({case.split for case in found.cases if case.split})
    if settings.split is not None and given:
        raise UsageError(
            f"{cohort}: says itself which split its scans are in ({', '.join(given)}), expected no --split beside "
            "that; leave --split out, or list the scans without splits (a CSV file without the column split)"
        )


def _gathered(notes: Iterable[str]) -> list[str]:
    """One note for many scans of which the same is to be said."""
    by_text: dict[str, list[str]] = {}
    for note in notes:
        name, _, text = note.partition(": ")
        by_text.setdefault(text, []).append(name)
    return [
        f"{', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''}: {text}"
        for text, names in by_text.items()
    ]


def _same_images(cohort: Path, records: list[Prepared], cases: list[Case]) -> list[str]:
    """Refuse the same image under several patients; a note where it is under several visits of one.

    Copies of one image in place of all are no copied scans among others: a layout tried with a stand-in, from which
    nothing can leak because nothing else is there. That is said, and the cohort made.
    """
    alike: dict[str, list[Prepared]] = {}
    for record in records:
        alike.setdefault(record.image_sha256, []).append(record)
    groups = [group for group in alike.values() if len(group) > 1]
    files = {case.image.resolve() for case in cases}
    if len(alike) == 1 and len(records) > 1 and len(files) == len(cases):
        note = (
            f"{cohort.name}: its {len(records)} scans are the same image in all of training, validation and test: this "
            "cohort shows that its layout is read, and no figure measured on it means anything"
        )
        return [note]
    for group in groups:
        if len({record.patient for record in group}) > 1:
            names = ", ".join(record.subject for record in group[: 2 * SHOWN]) + (
                " …" if len(group) > 2 * SHOWN else ""
            )
            raise UsageError(
                f"{cohort}: holds the same image under several patients ({names}), expected each image once, because "
                "training and test must not share it; remove the copies, or name the one person in a column 'patient' "
                "of a datalist"
            )
    return [
        f"{', '.join(record.subject for record in group[:SHOWN])}: the same image, of one patient" for group in groups
    ]


def check_directory(directory: Path, settings: Settings, overwrite: bool) -> dict[str, Any]:
    """The content of the settings file of a cohort that may be written into a folder.

    Raises:
        UsageError: if the folder holds something else.
    """
    wanted: dict[str, Any] = json.loads(json.dumps({"version": __version__, **asdict(settings)}))
    present = read_json(directory / SETTINGS_FILE)
    if present.keys() >= {"version", "slab", "window"}:
        # Without cohort.json, an earlier run did not get through: it may be started again, mended as it was told.
        if present != wanted and not overwrite and (directory / COHORT_FILE).is_file():
            other = sorted(key for key in wanted if present.get(key) != wanted[key])
            raise UsageError(
                f"{directory}: holds a cohort made with other settings ({', '.join(other)}); choose another "
                "folder or give --overwrite"
            )
    # What another share begins to write may lie there already.
    elif directory.exists() and (not directory.is_dir() or not all(map(is_partial, directory.iterdir()))):
        raise UsageError(
            f"{directory}: exists and is no cohort of ours, expected a new or empty folder; choose another"
        )
    return wanted


def _each(cases: list[Case], directory: Path, settings: Settings, workers: int | None) -> Iterator[_Finished | Problem]:
    workers = min(workers or _cores(), max(1, len(cases)))
    if workers == 1:
        yield from (_attempt(case, directory, settings) for case in cases)
        return
    # Spawned, not forked: the parent may hold threads.
    context = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
            try:
                jobs = [pool.submit(_attempt, case, directory, settings) for case in cases]
                for job in concurrent.futures.as_completed(jobs):
                    yield job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UsageError(
            f"{directory}: a process was killed, most likely because memory ran out; start again with fewer --workers "
            f"than {workers}"
        ) from error
    finally:
        remove_left(directory)


def _cores() -> int:
    # A batch system may grant fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent() -> None:
    # Ctrl-C is answered by the parent; and a parent that is killed leaves no process waiting for work for ever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _attempt(case: Case, directory: Path, settings: Settings) -> _Finished | Problem:
    try:
        return preprocess_case(case, directory, settings)
    except OutputError:
        raise
    except PipelineError as error:
        return Problem(case.subject, str(error))
    except OSError as error:
        return Problem(
            case.subject,
            f"{error.filename or case.image}: cannot be read ({error.strerror or error}), expected a file that you may "
            "read; mend its permissions or the disk",
        )


def preprocess_case(case: Case, directory: Path, settings: Settings) -> _Finished:
    """Preprocess one subject, or return its record if that is already done.

    Raises:
        ScanError: if scan and mask cannot be used together.
    """
    paths = {"image": case.image, "mask": case.mask, "truth": case.truth, "ignore": case.ignore, **case.channels}
    source = {
        name: SourceFile(name=path.name, sha256=_digest(path))
        for name, path in paths.items()
        if path is not None and path.exists()
    }
    record_file = directory / "subjects" / f"{case.subject}.json"
    key = _key(case, source, settings)
    if (done := _finished(directory, record_file, key)) is not None:
        return done
    scan = _read(case.image, case.volumes.get("image"))
    refuse_synthetic(scan, settings)
    lesion, notes = _lesion(case, scan, settings)
    notes = [*(f"{case.image.name}: {note}" for note in scan.notes), *notes]
    intensities = scan.intensities()
    first, last = settings.slab.range(len(scan.axial(scan.stored)), scan.axial_spacing_mm[0])
    volumes: dict[str, NDArray[np.generic]] = {}
    windows: dict[str, tuple[float, float]] = {}
    channels: dict[str, str] = {}

    def keep(file: str, values: NDArray[np.float32], window: Window) -> None:
        volumes[file] = _levels(window.apply(scan.axial(values)[first:last]))

    window = settings.window.window(intensities, case.image)
    main = (settings.channels or (settings.modality or "image",))[0]
    for name, path in {main: case.image, **case.channels}.items():
        channels[name] = f"images/{case.subject}{f'_{_plain(name)}' if channels else ''}.nii.gz"
        values = intensities if name == main else _other(path, scan, f"channel {name}", case.volumes.get(name))
        its_window = window if name == main else settings.window.window(values, path)
        windows[name] = (its_window.low, its_window.high)
        keep(channels[name], values, its_window)
    masks = truth = ignore = ignored = None
    if lesion is not None:
        masks = f"masks/{case.subject}.nii.gz"
        volumes[masks] = scan.axial(lesion)[first:last].astype(np.uint8)
    if case.truth is not None:
        truth = f"truth/{case.subject}.nii.gz"
        keep(truth, _other(case.truth, scan, "healthy truth"), window)
    if case.ignore is not None:
        ignore = f"ignore/{case.subject}.nii.gz"
        ignored = _other(case.ignore, scan, "mask of what to ignore", binary=True) > 0
        volumes[ignore] = scan.axial(ignored)[first:last].astype(np.uint8)
    for file, axial in volumes.items():
        _write_axial(directory / file, axial, scan, first)
    areas_mm2, labels = _labelled(lesion, ignored, scan, (first, last), settings)
    slices_mm, right_mm, anterior_mm = (round(size, 6) for size in scan.axial_spacing_mm)
    present = {name: file for name, file in {"truth": truth, "ignore": ignore}.items() if file is not None}
    record = Prepared(
        subject=case.subject,
        patient=case.patient,
        images=channels[main],
        masks=masks,
        channels=channels,
        session=case.session,
        **{**present, **_targets(case, areas_mm2, labels, settings)},
        window=windows[main],
        windows=windows,
        first_slice=first,
        spacing_mm=(slices_mm, right_mm, anterior_mm),
        lesion_mm2=areas_mm2,
        labels=labels,
        source=source,
        image_sha256=hashlib.sha256(intensities.tobytes()).hexdigest(),
    )
    sizes = {file: (directory / file).stat().st_size for file in record.files}
    finished = _Finished(key=key, bytes=sizes, notes=notes, record=record)
    write_text(record_file, finished.model_dump_json(indent=2, exclude_unset=True) + "\n")
    return finished


def refuse_synthetic(scan: Scan, settings: Settings) -> None:
    """Refuse an image that a command made, unless it is wanted.

    Raises:
        ScanError: see above.
    """
    if is_marked(scan.header) and not settings.synthetic:
        raise ScanError(
            f"{scan.origin}: is synthetic, as its header says, expected a scan of a scanner; leave it out, or give "
            "--synthetic if a training is meant to learn from what another made"
        )


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of those of the files in a folder."""
    if path.is_file():
        return sha256(path)
    digests = sorted(sha256(file) for file in path.iterdir() if file.is_file())
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _read(path: Path, volume: int | None) -> Scan:
    """A NIfTI file, or the one volume of a folder of DICOM files."""
    if not path.is_dir():
        return read_nifti(path, volume=volume)
    series = find_series([file for file in sorted(path.iterdir()) if file.is_file()])
    if len(series) != 1:
        raise ScanError(f"{path}: found {len(series)} DICOM series, expected one; leave one in the folder")
    return read_series(series[0], path)


def _targets(case: Case, areas_mm2: list[float], labels: list[Label], settings: Settings) -> dict[str, Any]:
    """The target of the scan, and of each slice where it is of slices."""
    if settings.target != LESION_AREA:
        return {"target": case.target}
    if "unknown" in labels:  # nobody drew its lesions
        return {"target": None}
    areas_cm2 = [round(area / 100, 5) for area in areas_mm2]
    return {"target": sum(areas_cm2) / len(areas_cm2), "slice_targets": areas_cm2}


def _key(case: Case, source: Mapping[str, SourceFile], settings: Settings) -> str:
    """What a finished volume was made from and how: equal for the same result, wherever the cohort lies."""
    about = {
        "version": __version__,
        "settings": asdict(settings.of_volumes),
        "source": {name: file.model_dump() for name, file in source.items()},
        "case": [case.patient, case.session, case.target, case.lesion_labels, sorted(case.volumes.items())],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _finished(directory: Path, record_file: Path, key: str) -> _Finished | None:
    try:
        done = _Finished.model_validate_json(record_file.read_bytes())
        whole = done.key == key and all((directory / path).stat().st_size == size for path, size in done.bytes.items())
    except (OSError, ValueError):  # not there, or cut short when the machine stopped
        return None
    return done if whole else None


def _other(path: Path, scan: Scan, kind: str, volume: int | None = None, binary: bool = False) -> NDArray[np.float32]:
    other = on_grid_of(scan, read_nifti(path, constant_ok=binary, volume=volume))
    check_same_grid(scan, other, kind)
    return other.intensities()


def _lesion(case: Case, scan: Scan, settings: Settings) -> tuple[NDArray[np.bool_] | None, list[str]]:
    if case.mask is None:
        return None, []
    mask = on_grid_of(scan, read_nifti(case.mask, constant_ok=True))
    check_same_grid(scan, mask, "mask")
    lesion, notes = lesion_voxels(mask, scan, case.lesion_labels)
    if not lesion.any() and not settings.healthy:
        raise ScanError(
            f"{case.mask}: the mask {empty(mask)}, expected voxels with a lesion label; if the person is healthy, "
            "leave the scan out or give --healthy"
        )
    return lesion, notes


def _labelled(
    lesion: NDArray[np.bool_] | None,
    ignored: NDArray[np.bool_] | None,
    scan: Scan,
    slab: tuple[int, int],
    settings: Settings,
) -> tuple[list[float], list[Label]]:
    """Lesion area in mm² and label of each slice of the slab; with something to ignore in it, none is healthy."""
    first, last = slab
    if lesion is None:
        return [0.0] * (last - first), ["healthy" if settings.healthy else "unknown"] * (last - first)
    _, height_mm, width_mm = scan.axial_spacing_mm
    areas_mm2 = scan.axial(lesion)[first:last].sum(axis=(1, 2)) * height_mm * width_mm
    labels = label_slices(areas_mm2, settings.min_lesion_mm2)
    if ignored is not None:
        for place, other in enumerate(scan.axial(ignored)[first:last]):
            if labels[place] == "healthy" and other.any():
                labels[place] = "excluded"
    return [round(float(area), 3) for area in areas_mm2], labels


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", name)


def _levels(windowed: NDArray[np.float32]) -> NDArray[np.uint16]:
    levels: NDArray[np.uint16] = np.rint(windowed * np.float32(LEVELS)).astype(np.uint16)
    return levels


def _write_axial(path: Path, axial: NDArray[np.generic], scan: Scan, first: int) -> None:
    """Write (slices, right, anterior) as a RAS volume whose affine places it where the scan has it."""
    to_scan = inv_ornt_aff(scan.orientation, scan.shape)
    shift = from_matvec(np.eye(3), (0, 0, first))
    affine = scan.affine @ to_scan @ shift
    write_stored(path, axial, affine)


def previous_splits(
    path: Path, records: Sequence[Prepared | Case], settings: Settings
) -> tuple[dict[str, Split], list[str]]:
    """Splits that patients were in before, by themselves or by one of their scans, and what is to be said.

    Args:
        path: `cohort.json` of then.
        records: the scans of now.
        settings: of now.
    """
    try:
        previous = Cohort.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return {}, []
    if (previous.settings.split, previous.settings.seed) != (settings.shares, settings.seed):
        return {}, []  # another split was asked for
    by_subject = {subject.subject: subject.split for subject in previous.subjects}
    kept: dict[str, Split] = {subject.patient: subject.split for subject in previous.subjects}
    for record in records:
        if record.patient not in kept and record.subject in by_subject:
            kept[record.patient] = by_subject[record.subject]
    new = sorted({record.patient for record in records} - kept.keys())
    gone = sorted(kept.keys() - {record.patient for record in records})
    if not new and not gone:
        return kept, []
    changed = [f"{len(names)} {what}" for names, what in ((new, "came"), (gone, "left")) if names]
    return kept, [f"of the patients, {' and '.join(changed)}; all others stay in the splits that they were in"]


def split_of(
    records: Iterable[Prepared | Case], cases: Iterable[Case], settings: Settings, previous: Mapping[str, Split]
) -> dict[str, Split]:
    """The split of each patient.

    Args:
        records: scans, whose patients are meant.
        cases: scans as they were found, some of which may say their split.
        settings: shares and seed.
        previous: splits that patients stay in.

    Raises:
        UsageError: if there are too few patients.
    """
    given: dict[str, Split] = {case.patient: cast("Split", case.split) for case in cases if case.split}
    undecided = [record.patient for record in records if record.patient not in given]
    drawn = split_patients(undecided, settings.shares, settings.seed, previous) if undecided else {}
    return given | drawn


def _missing_labels(subjects: list[Subject]) -> list[str]:
    """What some methods will miss."""
    labels = {label for subject in subjects for label in subject.labels}
    if "unknown" in labels:
        return []
    return [
        f"found no {label} slice in any scan, so methods that need some cannot be trained on this cohort; {remedy}"
        for label, remedy in (
            ("healthy", "for these, widen the slab (--slab-mm, --slices) so that slices without lesion are in it"),
            ("pathological", "for these, lower --min-lesion-mm2 or widen the slab"),
        )
        if label not in labels
    ]


def _remove_leftovers(directory: Path, subjects: list[Subject]) -> None:
    """Remove what killed runs left half-written, and files of subjects that are no longer in the cohort."""
    kept = {directory / file for subject in subjects for file in subject.files}
    kept |= {directory / "subjects" / f"{subject.subject}.json" for subject in subjects}
    for path in (*(path for name in FOLDERS for path in (directory / name).glob("*")), *directory.glob(f"{PARTIAL}*")):
        if path not in kept and path.is_file():
            path.unlink()


def write_tables(
    directory: Path, subjects: Sequence[Subject], settings: Mapping[str, Any], layout: str, notes: Sequence[str]
) -> None:
    """Write `slices.csv` and, last, `cohort.json`.

    Args:
        directory: of the cohort.
        subjects: what is in it.
        settings: what it was made with, as JSON can hold it.
        layout: in which the scans lay.
        notes: what was assumed.
    """
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["subject", "patient", "split", "slice", "label", "lesion_mm2"])
    for subject in subjects:
        for place, (label, area) in enumerate(zip(subject.labels, subject.lesion_mm2, strict=True)):
            rows.writerow([subject.subject, subject.patient, subject.split, place, label, area])
    write_text(directory / "slices.csv", table.getvalue())
    write_json(
        directory / COHORT_FILE,
        {
            "format": FORMAT,
            "pipeline_version": __version__,
            "layout": layout,
            "notes": list(notes),
            "settings": dict(settings),
            "counts": count(subjects),
            "subjects": [subject.model_dump(mode="json", exclude_unset=True) for subject in subjects],
        },
    )
    (directory / PREVIOUS).unlink(missing_ok=True)
