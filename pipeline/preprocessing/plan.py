"""What `preprocess` would make of a cohort, told from names and headers; nothing is written and no voxel is read."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.cohorts import Case, Problem
from pipeline.errors import PipelineError, UsageError
from pipeline.preprocessing.cohort import (
    PREVIOUS,
    Settings,
    check_directory,
    find_for,
    previous_splits,
    refuse_synthetic,
    split_of,
)
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.scans import Scan, check_same_grid, on_grid_of, read_grid

# Bytes of a voxel of a channel and of the healthy truth, and of a mask, before compression.
LEVEL_BYTES, MASK_BYTES = 2, 1


@dataclass(frozen=True)
class Plan:
    """What `preprocess` would do.

    Attributes:
        layout: in which the scans lie.
        scans: how many could be used, as far as their headers tell.
        masks: how many of these have a lesion mask.
        patients: of these, by split.
        slices: of these, within the slab.
        mib: what they take at most, before compression.
        unread: how many of these are folders of DICOM files, whose slices are not known without reading them.
        problems: the scans that would be left out.
        notes: what is assumed.
    """

    layout: str
    scans: int
    masks: int
    patients: Counter[str]
    slices: int
    mib: float
    unread: int
    problems: list[Problem]
    notes: list[str]


def plan(cohort: Path, directory: Path, settings: Settings, layout: str | None = None, overwrite: bool = False) -> Plan:
    """Look at a cohort as `preprocess` does, without reading voxels or writing anything.

    What only voxels tell (a damaged file, an empty mask, one image under two names) is not seen. One scan's headers are
    in memory at a time.

    Args:
        cohort: as for `preprocess`, as all that follows.
        directory: see there.
        settings: see there.
        layout: see there.
        overwrite: see there.

    Raises:
        UsageError: as `preprocess`.
    """
    found, settings = find_for(cohort, settings, layout)
    check_directory(directory, settings, overwrite)
    usable: list[Case] = []
    problems = list(found.problems)
    slices = size = unread = 0
    for case in found.cases:
        try:
            its_slices, its_bytes = _looked_at(case, settings)
        except (PipelineError, OSError) as error:
            problems.append(Problem(case.subject, str(error)))
            continue
        usable.append(case)
        slices, size, unread = slices + its_slices, size + its_bytes, unread + (not its_slices)
    if not usable:
        reasons = "; ".join(problem.reason for problem in problems) or "it holds no scans"
        raise UsageError(f"{cohort}: no usable scan in this {found.layout} cohort ({reasons})")
    made = [directory / name for name in (COHORT_FILE, PREVIOUS) if (directory / name).is_file()]
    previous, told = previous_splits(made[0], usable, settings) if made else ({}, [])
    splits = split_of(usable, usable, settings, previous)
    return Plan(
        layout=found.layout,
        scans=len(usable),
        masks=sum(case.mask is not None for case in usable),
        patients=Counter(splits[patient] for patient in {case.patient for case in usable}),
        slices=slices,
        mib=size / 2**20,
        unread=unread,
        problems=sorted(problems, key=lambda problem: problem.subject),
        notes=[*found.notes, *told],
    )


def _looked_at(case: Case, settings: Settings) -> tuple[int, int]:
    """Slices of a scan and bytes of its volumes; 0 of a folder of DICOM files.

    Raises:
        ScanError: if its headers tell that it cannot be used.
    """
    if case.image.is_dir():
        return 0, 0
    scan = read_grid(case.image, case.volumes.get("image"))
    refuse_synthetic(scan, settings)
    voxel_bytes = LEVEL_BYTES
    for other, kind, its_bytes in _others(case):
        if other.shape != scan.shape or not np.array_equal(other.affine, scan.affine):
            check_same_grid(scan, on_grid_of(scan, other), kind)
        voxel_bytes += its_bytes
    slices, right, anterior = scan.axial(scan.stored).shape
    first, last = settings.slab.range(slices, scan.axial_spacing_mm[0])
    return last - first, (last - first) * right * anterior * voxel_bytes


def _others(case: Case) -> Iterator[tuple[Scan, str, int]]:
    """What belongs to a scan, what messages call it, and bytes of a voxel."""
    if case.mask is not None:
        yield read_grid(case.mask), "mask", MASK_BYTES
    for name, path in case.channels.items():
        yield read_grid(path, case.volumes.get(name)), f"channel {name}", LEVEL_BYTES
    if case.truth is not None:
        yield read_grid(case.truth), "healthy truth", LEVEL_BYTES
    if case.ignore is not None:
        yield read_grid(case.ignore), "mask of what to ignore", MASK_BYTES
