"""From a folder of scans to a cohort ready for training, in a folder that a person can inspect."""

import concurrent.futures
import csv
import io
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import EllipsisType, NoneType
from typing import Any, get_args

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec
from nibabel.orientations import inv_ornt_aff
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.cohorts import Case, Problem, find_cases
from pipeline.errors import OutputError, PipelineError, ScanError, UsageError
from pipeline.files import PARTIAL, sha256, write_json, write_text, written_aside
from pipeline.preprocessing.labels import Label, label_slices
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.splits import SPLITS, split_patients
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan, check_same_grid, read_nifti

# Normalised volumes are stored as unsigned 16-bit integers with this slope: [0, 1] to 1.5e-5, half the size of float32.
LEVELS = 65535
FOLDERS = ("images", "masks", "truth", "subjects")
COHORT_FILE = "cohort.json"

# What later steps read from `cohort.json`: the keys of objects, the one type of all items of a list, types of values.
CONTENT: dict[str, Any] = {
    "settings": {
        "window": {"percentile": (int, float), "foreground_only": bool, "fixed": (list, NoneType)},
        "slab": {"slices": (int, NoneType), "thickness_mm": (int, float, NoneType)},
    },
    "counts": {split: dict.fromkeys(("patients", *get_args(Label)), int) for split in SPLITS},
    "subjects": [
        {
            **dict.fromkeys(("subject", "patient", "split", "images", "masks"), str),
            "truth": (str, EllipsisType),  # may be absent
            "spacing_mm": [(int, float)],
            "labels": [str],
        }
    ],
}


@dataclass(frozen=True)
class Settings:
    """What `preprocess` does to each scan; written beside the result.

    Args:
        modality: which scan of a subject, in the layout's own words (FLAIR, t1ce, …); None: the layout's default.
        slab: which middle slices to keep.
        window: which intensities become [0, 1].
        min_lesion_mm2: smallest lesion area that makes a slice pathological.
        split: shares of training, validation and test patients.
        seed: of the split.
    """

    modality: str | None = None
    slab: Slab = Slab()
    window: WindowRule = WindowRule()
    min_lesion_mm2: float = 0.0
    split: tuple[float, float, float] = (0.7, 0.15, 0.15)
    seed: int = 0


@dataclass(frozen=True)
class Preprocessed:
    """What `preprocess` did: the cohort's folder, the subjects in it, and the scans it had to leave out."""

    directory: Path
    layout: str
    subjects: list[dict[str, Any]]
    problems: list[Problem]


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

    The folder receives `images/` (windowed to [0, 1], reoriented to RAS, middle slices), `masks/`, `truth/` where a
    healthy truth is known, `subjects/` (one record each), `slices.csv` and `cohort.json`. A subject's record is
    written after its volumes and `cohort.json` after all else, so that an interrupted run continues and is never taken
    for a finished one; the same scans and settings give the same bytes. Files of subjects that are no longer usable are
    removed.

    Args:
        cohort: a folder in a known layout, or a datalist.
        directory: where to write.
        settings: see `Settings`.
        layout: one of `pipeline.cohorts.LAYOUTS`; None recognises it.
        workers: processes; None uses all cores.
        overwrite: replace a cohort made from other settings.
        progress: called with (scans done, scans in all).

    Raises:
        UsageError: if nothing is usable, the folder holds something else, or there are too few patients to split.
    """
    found = find_cases(cohort, layout, settings.modality)
    if found.cases:  # told now, not after an hour's work
        _splits((case.patient for case in found.cases), found.cases, settings)
    _check_directory(directory, settings, overwrite)
    problems = list(found.problems)
    records = []
    for done, outcome in enumerate(_each(found.cases, directory, settings, workers), start=1):
        if isinstance(outcome, Problem):
            problems.append(outcome)
        else:
            records.append(outcome)
        if progress is not None:
            progress(done, len(found.cases))
    if not records:
        reasons = "; ".join(problem.reason for problem in problems) or "it holds no scans"
        raise UsageError(f"{cohort}: no usable scan in this {found.layout} cohort ({reasons})")
    records.sort(key=lambda record: str(record["subject"]))
    try:
        subjects = _with_splits(records, found.cases, settings)
        _check_labels(cohort, subjects)
    except UsageError as error:
        skipped = [f"skipped {problem.subject}: {problem.reason}" for problem in problems]
        raise UsageError("\n".join([str(error), *skipped])) from error
    _remove_leftovers(directory, subjects)
    _write_tables(directory, subjects, settings, found.layout)
    return Preprocessed(directory, found.layout, subjects, sorted(problems, key=lambda problem: problem.subject))


def _check_directory(directory: Path, settings: Settings, overwrite: bool) -> None:
    settings_file = directory / "settings.json"
    wanted = json.loads(json.dumps({"version": __version__, **asdict(settings)}))
    try:
        present = json.loads(settings_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        present = None
    if isinstance(present, dict) and present.keys() >= {"version", "slab", "window"}:
        # Without cohort.json, an earlier run did not get through: it may be started again, mended as it was told.
        if present != wanted and not overwrite and (directory / COHORT_FILE).is_file():
            other = sorted(key for key in wanted if present.get(key) != wanted[key])
            raise UsageError(
                f"{directory}: holds a cohort made with other settings ({', '.join(other)}); choose another "
                "folder or give --overwrite"
            )
    elif directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(
            f"{directory}: exists and is no cohort of ours, expected a new or empty folder; choose another"
        )
    write_json(settings_file, wanted)
    (directory / COHORT_FILE).unlink(missing_ok=True)


def _each(
    cases: list[Case], directory: Path, settings: Settings, workers: int | None
) -> Iterator[dict[str, Any] | Problem]:
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
        for half in directory.glob(f"*/{PARTIAL}*"):  # of processes that were killed
            half.unlink(missing_ok=True)


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


def _attempt(case: Case, directory: Path, settings: Settings) -> dict[str, Any] | Problem:
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


def preprocess_case(case: Case, directory: Path, settings: Settings) -> dict[str, Any]:
    """Preprocess one subject, or return its record if that is already done.

    Returns:
        The record: paths relative to `directory`, window, slices, lesion areas and labels by slice.

    Raises:
        ScanError: if scan and mask cannot be used together.
    """
    source = {
        name: {"name": path.name, "sha256": sha256(path)}
        for name, path in (("image", case.image), ("mask", case.mask), ("truth", case.truth))
        if path is not None and path.is_file()
    }
    settings = replace(settings, split=(1, 0, 0), seed=0)  # the split is decided later and changes no volume
    record_file = directory / "subjects" / f"{case.subject}.json"
    key = json.loads(json.dumps({"source": source, "settings": asdict(settings), "version": __version__}))
    if (done := _finished_record(directory, record_file, key)) is not None:
        return done
    scan = read_nifti(case.image)
    lesion = _lesion(case, scan)
    intensities = scan.intensities()
    window = settings.window.window(intensities, case.image)
    first, last = settings.slab.range(len(scan.axial(scan.stored)), scan.axial_spacing_mm[0])
    _, height_mm, width_mm = scan.axial_spacing_mm
    areas_mm2 = scan.axial(lesion)[first:last].sum(axis=(1, 2)) * height_mm * width_mm
    volumes: dict[str, NDArray[np.generic]] = {
        "images": _levels(window.apply(scan.axial(intensities)[first:last])),
        "masks": scan.axial(lesion)[first:last],
    }
    if case.truth is not None:
        truth = read_nifti(case.truth)
        check_same_grid(scan, truth, "healthy truth")
        volumes["truth"] = _levels(window.apply(truth.axial(truth.intensities())[first:last]))
    for folder, axial in volumes.items():
        _write_axial(directory / folder / f"{case.subject}.nii.gz", axial, scan, first)
    record: dict[str, Any] = {
        "subject": case.subject,
        "patient": case.patient,
        **{folder: f"{folder}/{case.subject}.nii.gz" for folder in volumes},
        "window": [window.low, window.high],
        "first_slice": first,
        "spacing_mm": [round(size, 6) for size in scan.axial_spacing_mm],
        "lesion_mm2": [round(float(area), 3) for area in areas_mm2],
        "labels": label_slices(areas_mm2, settings.min_lesion_mm2),
        "key": key,
    }
    record["bytes"] = {record[name]: (directory / record[name]).stat().st_size for name in volumes}
    write_json(record_file, record)
    return record


def _finished_record(directory: Path, record_file: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(record_file.read_text(encoding="utf-8"))
        whole = record["key"] == key and all(
            (directory / path).stat().st_size == size for path, size in record["bytes"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):  # not there, or cut short when the machine stopped
        return None
    return record if whole else None


def _lesion(case: Case, scan: Scan) -> NDArray[np.uint8]:
    if case.mask is None:
        raise ScanError(f"{case.image}: has no lesion mask, expected one; add it or leave the scan out")
    mask = read_nifti(case.mask, constant_ok=True)
    check_same_grid(scan, mask, "mask")
    labels = mask.intensities().round()
    lesion = np.isin(labels, case.lesion_labels) if case.lesion_labels else labels > 0
    if not lesion.any():
        raise ScanError(
            f"{case.mask}: the mask is empty, expected voxels with a lesion label; if the person is healthy, leave the "
            "scan out"
        )
    return lesion.astype(np.uint8)


def _levels(windowed: NDArray[np.float32]) -> NDArray[np.uint16]:
    return np.rint(windowed * np.float32(LEVELS)).astype(np.uint16)


def _write_axial(path: Path, axial: NDArray[np.generic], scan: Scan, first: int) -> None:
    """Write (slices, right, anterior) as a RAS volume whose affine places it where the scan has it."""
    to_scan = inv_ornt_aff(scan.orientation, scan.shape)
    shift = from_matvec(np.eye(3), (0, 0, first))
    affine = scan.affine @ to_scan @ shift
    image = nib.Nifti1Image(np.moveaxis(axial, 0, 2), affine, dtype=axial.dtype)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1 / LEVELS if axial.dtype == np.uint16 else 1.0, 0.0)
    with written_aside(path) as aside:
        nib.save(image, aside)


def _with_splits(records: list[dict[str, Any]], cases: list[Case], settings: Settings) -> list[dict[str, Any]]:
    splits = _splits((record["patient"] for record in records), cases, settings)
    return [
        {
            "subject": record["subject"],
            "patient": record["patient"],
            "split": splits[record["patient"]],
            **{key: value for key, value in record.items() if key not in ("subject", "patient", "key", "bytes")},
            "source": record["key"]["source"],
        }
        for record in records
    ]


def _splits(patients: Iterable[str], cases: list[Case], settings: Settings) -> dict[str, str]:
    splits = {case.patient: case.split for case in cases if case.split}
    undecided = [patient for patient in patients if patient not in splits]
    if undecided:
        splits |= split_patients(undecided, settings.split, settings.seed)
    return splits


def _check_labels(cohort: Path, subjects: list[dict[str, Any]]) -> None:
    labels = {label for subject in subjects for label in subject["labels"]}
    for label, remedy in (
        ("healthy", "widen the slab (--slab-mm, --slices) so that slices without lesion are in it"),
        ("pathological", "lower --min-lesion-mm2 or widen the slab"),
    ):
        if label not in labels:
            raise UsageError(
                f"{cohort}: found no {label} slice in any scan, expected both healthy and pathological ones; {remedy}"
            )


def _remove_leftovers(directory: Path, subjects: list[dict[str, Any]]) -> None:
    """Remove what killed runs left half-written, and files of subjects that are no longer in the cohort."""
    kept = {directory / subject[name] for subject in subjects for name in FOLDERS if name in subject}
    kept |= {directory / "subjects" / f"{subject['subject']}.json" for subject in subjects}
    for path in (*(path for name in FOLDERS for path in (directory / name).glob("*")), *directory.glob(f"{PARTIAL}*")):
        if path not in kept and path.is_file():
            path.unlink()


def _write_tables(directory: Path, subjects: list[dict[str, Any]], settings: Settings, layout: str) -> None:
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["subject", "patient", "split", "slice", "label", "lesion_mm2"])
    for subject in subjects:
        for place, (label, area) in enumerate(zip(subject["labels"], subject["lesion_mm2"], strict=True)):
            rows.writerow([subject["subject"], subject["patient"], subject["split"], place, label, area])
    write_text(directory / "slices.csv", table.getvalue())
    counts = {
        split: {
            "patients": len({s["patient"] for s in subjects if s["split"] == split}),
            **{
                label: sum(s["labels"].count(label) for s in subjects if s["split"] == split)
                for label in get_args(Label)
            },
        }
        for split in SPLITS
    }
    write_json(
        directory / COHORT_FILE,
        {
            "format": 1,
            "pipeline_version": __version__,
            "layout": layout,
            "settings": asdict(settings),
            "counts": counts,
            "subjects": subjects,
        },
    )


def read_cohort(directory: Path) -> dict[str, Any]:
    """The content of a preprocessed cohort's `cohort.json`.

    Raises:
        UsageError: if the folder is no preprocessed cohort, or its `cohort.json` lacks what later steps need.
    """
    path = directory / COHORT_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{directory}: holds no readable {COHORT_FILE}, expected a folder made by `phs-pipeline preprocess`; run "
            "that first"
        ) from error
    version = content.get("format") if isinstance(content, dict) else None
    if version != 1:
        raise UsageError(f"{path}: found format {version!r}, expected 1; preprocess the cohort again")
    wrong = _misfit(content, CONTENT)
    if wrong is not None:
        raise UsageError(
            f"{path}: {wrong} is missing or of the wrong type, expected it as `phs-pipeline preprocess` writes it; run "
            "that again"
        )
    return dict(content)


def _misfit(found: Any, expected: Any, place: str = "") -> str | None:
    """The first place in JSON content that is not of the expected types, `...` standing for what is absent."""
    if isinstance(expected, dict | list) and not isinstance(found, type(expected)):
        return place
    parts: Iterable[tuple[str, Any, Any]] = ()
    if isinstance(expected, dict):
        parts = ((f"{place}.{key}".lstrip("."), found.get(key, ...), types) for key, types in expected.items())
    elif isinstance(expected, list):
        parts = ((f"{place}[{index}]", item, expected[0]) for index, item in enumerate(found))
    elif not isinstance(found, expected):
        return place
    misfits = (_misfit(part, types, name) for name, part, types in parts)
    return next((misfit for misfit in misfits if misfit is not None), None)


def read_stored(path: Path) -> NDArray[Any]:
    """The stored values of a volume of a preprocessed cohort.

    Args:
        path: in `images/` or `truth/` (levels from 0 to `LEVELS`, uint16), or in `masks/` (0 and 1, uint8).

    Returns:
        Shape (slices, right, anterior), without the header's slope.

    Raises:
        UsageError: if the file is missing or damaged.
    """
    try:
        return np.ascontiguousarray(np.moveaxis(nib.load(path).dataobj.get_unscaled(), 2, 0))
    except Exception as error:  # nibabel's readers raise whatever their parser stumbles over
        raise _unreadable(path) from error


def stored_shape(path: Path) -> tuple[int, int, int]:
    """The shape that `read_stored` gives, from the header alone.

    Raises:
        UsageError: if the file is missing or damaged.
    """
    try:
        right, anterior, slices = nib.load(path).shape
    except Exception as error:
        raise _unreadable(path) from error
    return slices, right, anterior


def _unreadable(path: Path) -> UsageError:
    return UsageError(
        f"{path}: is missing or damaged, expected a volume of the preprocessed cohort; run `phs-pipeline preprocess` "
        "again"
    )
