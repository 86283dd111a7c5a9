"""Which frames of a DICOM series make up a volume: one straight, evenly spaced stack of planes alike in all else.

What is left over beside a stack is a localizer in planes of its own, or a slice that the stack lacks.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.files import sha256
from pipeline.scans.dicom_frames import IDENTITY, UNSTATED, Frame
from pipeline.scans.scan import GRID_TOLERANCE

# Share of the slice distance by which a step may differ from the others, but never less than what scanners round to.
STEP_TOLERANCE = 0.01
STEP_ROUNDING_MM = 0.01
# Components of unit vectors; the planes of one series agree to the sixth decimal.
SAME_AXES = 1e-3
SAME_SPACING_MM = 1e-3
# Cosine of the angle up to which planes count as parallel: a volume's are to a millionth, a localizer's stand upright.
PARALLEL = 0.996
# Stacks that lie this many slices apart, or less, were one.
TORN_SLICES = 3.5


def stack_problem(frames: Sequence[Frame]) -> str | None:
    """Why frames of one plane, in order of position, are no straight and evenly spaced stack; None if they are one."""
    if len(frames) < 2:
        return "found a single slice, expected a volume; name the folder that holds all slices of the series"
    along = np.array([frame.position_mm @ frames[0].axes[2] for frame in frames])
    steps = np.diff(along)
    shared = int((steps < STEP_ROUNDING_MM).sum())
    if shared:
        return (
            f"found {shared + 1} slices or more that lie at the place of another, expected one at each; the series "
            "holds several volumes or copies, export them as series of their own"
        )
    step = float(np.median(steps))
    uneven = np.flatnonzero(np.abs(steps - step) > max(STEP_TOLERANCE * step, STEP_ROUNDING_MM))
    if uneven.size:
        places = ", ".join(f"{place + 1} and {place + 2}" for place in uneven[:3])
        more = f" and at {uneven.size - 3} more places" if uneven.size > 3 else ""
        return (
            f"found steps of {steps.min():.4g} to {steps.max():.4g} mm between slices, expected {step:.4g} mm "
            f"throughout (by position, not so between slices {places} of {len(frames)}{more}); slices are missing or "
            "unevenly spaced, copy the whole series again or resample it"
        )
    affine = affine_of(frames)
    on_line = affine[:3, 3] + np.arange(len(frames))[:, None] * affine[:3, 2]
    away_mm = np.array([frame.position_mm for frame in frames]) - on_line
    sideways_mm = np.linalg.norm(away_mm @ frames[0].axes[:2].T, axis=1)
    if sideways_mm.max() > GRID_TOLERANCE * min(*frames[0].spacing_mm, step):
        angle = np.degrees(np.arctan2(sideways_mm[-1], along[-1] - along[0]))
        return (
            f"found slices that shift sideways as they go on (a gantry tilt of {angle:.2g} degrees), expected ones "
            "straight above each other; resample the series without tilt (dcm2niix does) and give the result"
        )
    return None


def affine_of(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Columns, rows and slices to millimetres in LPS+, shape (4, 4); `frames` are in order of position."""
    first, last = frames[0], frames[-1]
    step_mm = (last.position_mm - first.position_mm) @ first.axes[2] / (len(frames) - 1)
    affine = np.eye(4)
    affine[:3, :3] = first.axes.T * [*first.spacing_mm, step_mm]
    affine[:3, 3] = first.position_mm
    return affine


def without_copies(frames: Sequence[Frame]) -> tuple[list[Frame], str | None]:
    """Leave out files that are there twice; a problem if two differ that should be one, or if one has a fault."""
    kept: dict[str, Frame] = {}
    for number, frame in enumerate(frames):
        if frame.fault:
            return list(frames), frame.fault
        known = kept.setdefault(frame.instance or str(number), frame)
        if known.place.file != frame.place.file and sha256(known.place.file) != sha256(frame.place.file):
            return list(frames), (
                f"found two different images with one SOP Instance UID ({known.place.file.name} and "
                f"{frame.place.file.name}), expected a UID for each; keep the right one"
            )
    return list(kept.values()), None


def mixed(frames: Sequence[Frame]) -> str | None:
    """A problem if the frames of a series are not of one person, study, space and modality, whatever it says."""
    uids = {frame.uid for frame in frames}
    if len(uids) > 1:
        return (
            f"found {len(uids)} Series Instance UIDs in one stack of {len(frames)} slices, expected one for all; what "
            "exported or de-identified them gave files a UID of their own, do it again so that they keep one"
        )
    for keyword, values in zip(IDENTITY, zip(*(frame.identity for frame in frames), strict=True), strict=True):
        if len(set(values)) > 1:
            return (
                f"found slices of {len(set(values))} different {keyword} in one series, expected one person, study and "
                "frame of reference; the files were mixed up, export the series again"
            )
    modalities = {frame.modality for frame in frames} - {UNSTATED}
    if len(modalities) > 1:
        return (
            f"found slices of the modalities {' and '.join(sorted(modalities))} in one series, expected one; the files "
            "were mixed up, export the series again"
        )
    return None


def with_strays(series: Sequence[list[Frame]]) -> list[list[Frame]]:
    """Put slices with other Series Instance UIDs to the stack that they make up together, or are lacking in.

    Args:
        series: frames by Series Instance UID.

    Returns:
        As given, with the slices of such a stack as one series, which `mixed` then tells of.
    """
    gathered: list[list[Frame]] = []
    for frames in series:
        if len(frames) > 1 or frames[0].fault:
            stack = next((others for others in gathered if _were_one(frames, others)), None)
            if stack is not None:
                stack += frames
            else:
                gathered.append(list(frames))
    alone: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    for frames in series:
        if len(frames) == 1 and not frames[0].fault:
            alone[frames[0].identity[:2]].append(frames[0])
    for person, singles in alone.items():
        for group in by_plane(singles):
            stack = next(
                (frames for frames in gathered if frames[0].identity[:2] == person and _lacks(frames, group)), None
            )
            if stack is not None:
                stack += group
            elif len(group) > 2 and stack_problem(group) is None:
                gathered.append(group)
            else:
                gathered += [[frame] for frame in group]
    return gathered


def _were_one(first: Sequence[Frame], second: Sequence[Frame]) -> bool:
    """Whether two series of one number, or one of them of few slices, are one stack; others may be two stations."""
    if first[0].identity != second[0].identity or any(frame.fault for frame in (*first, *second)):
        return False
    if first[0].number != second[0].number and min(len(first), len(second)) > TORN_SLICES:
        return False
    planes = by_plane([*first, *second])
    return len(planes) == 1 and stack_problem(planes[0]) is None


def _lacks(frames: Sequence[Frame], slices: Sequence[Frame]) -> bool:
    """Whether slices are like those of a stack, and lie where it has none but should."""
    sound = [frame for frame in frames if not frame.fault]
    stack = in_order(frame for frame in sound if len(by_plane([frame, slices[0]])) == 1)
    if len(stack) < 2 or stack_problem(stack):
        return len(stack) > 1 and _completes(slices, stack)
    distances_mm = [abs((each.position_mm - slices[0].position_mm) @ stack[0].axes[2]) for each in stack]
    return min(distances_mm) > STEP_ROUNDING_MM and _is_next(slices[0], stack)


def by_plane(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Group frames of equal orientation, spacing, size and type; each group in order of position."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            first = group[0]
            if (
                (frame.columns, frame.rows, frame.dtype) == (first.columns, first.rows, first.dtype)
                and np.abs(frame.axes - first.axes).max() < SAME_AXES
                and np.abs(np.subtract(frame.spacing_mm, first.spacing_mm)).max() < SAME_SPACING_MM
            ):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return [in_order(group) for group in groups]


def in_order(frames: Iterable[Frame]) -> list[Frame]:
    """Frames in order of position along the normal of the first."""
    frames = list(frames)
    return sorted(frames, key=lambda frame: float(frame.position_mm @ frames[0].axes[2]))


def parts(frames: list[Frame]) -> list[list[Frame]]:
    """Split frames of one plane that are no volume by the attribute that makes volumes of equal size of them."""
    if stack_problem(frames) is None:
        return [frames]
    attributes = range(min(len(frame.parts) for frame in frames))
    varying = [place for place in attributes if len({frame.parts[place] for frame in frames}) > 1]
    for places in (*((place,) for place in varying), *itertools.combinations(varying, 2)):
        split: dict[tuple[str, ...], list[Frame]] = defaultdict(list)
        for frame in frames:
            split[tuple(frame.parts[place] for place in places)].append(frame)
        ordered = [in_order(split[value]) for value in sorted(split)]
        if len({len(part) for part in ordered}) == 1 and all(stack_problem(part) is None for part in ordered):
            return ordered
    return [frames]


def damage(groups: Sequence[Sequence[list[Frame]]], singles: Sequence[Frame], others: Sequence[Frame]) -> str | None:
    """Why stacks found in one series are not all of it.

    Args:
        groups: stacks of two slices or more in order of position, those of one plane together, as `parts` gives them.
        singles: slices that are like no other.
        others: files of the series that cannot be slices.

    Returns:
        The reason if stacks interleave, abut or overlap in part, as the pieces of one do, or a stack lacks a slice that
        is among `singles` or `others`; None if all that is left over is a localizer or no image of the volume.
    """
    stacks = [group[0] for group in groups]
    within = ((group[0], stack) for group in groups for stack in group[1:])
    for first, second in (*within, *itertools.combinations(stacks, 2)):
        if _are_torn(first, second):
            return _unlike(*sorted((first, second), key=len))
    for stack in stacks:
        lost = [frame for frame in singles if _would_extend(frame, stack) and not _is_localizer(frame, singles)]
        if not lost and stack_problem(stack) and _completes(singles, stack):
            lost = list(singles)
        if lost:
            return _unlike(lost, stack)
        lost = [frame for frame in others if _looks_alike(frame, stack[0]) and _may_extend(frame, stack)]
        if lost:
            found, _, expected = str(lost[0].fault).partition(", expected ")
            return f"{found} (in {names_of(lost)}), expected {expected}"
    return None


def names_of(frames: Sequence[Frame]) -> str:
    """The files of frames, by name; the first three if there are more."""
    names = list(dict.fromkeys(frame.place.file.name for frame in frames))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _unlike(fewer: Sequence[Frame], more: Sequence[Frame]) -> str:
    first, second = fewer[0], more[0]
    differences = {
        "size": (first.columns, first.rows) == (second.columns, second.rows),
        "bits or sign of the pixels": first.dtype == second.dtype,
        "orientation": np.abs(first.axes - second.axes).max() < SAME_AXES,
        "pixel spacing": np.abs(np.subtract(first.spacing_mm, second.spacing_mm)).max() < SAME_SPACING_MM,
    }
    what = " and ".join(name for name, same in differences.items() if not same) or "acquisition"
    return (
        f"found slices ({names_of(fewer)}) that differ from the {len(more)} others in {what}, expected all slices of a "
        "series to make up one stack; export the series again, or remove them if they are no part of it"
    )


def _are_parallel(first: Frame, second: Frame) -> bool:
    return bool(abs(first.axes[2] @ second.axes[2]) > PARALLEL)


def _are_torn(first: list[Frame], second: list[Frame]) -> bool:
    """Whether two stacks are pieces of one, and not two volumes of one place or of places apart."""
    if _completes(*sorted((first, second), key=len)):
        return True
    if not _are_parallel(first[0], second[0]):
        return False
    normal = first[0].axes[2]
    along = [np.sort([frame.position_mm @ normal for frame in stack]) for stack in (first, second)]
    step = max(float(np.median(np.diff(places))) for places in along)
    (low, high), (other_low, other_high) = ((places[0], places[-1]) for places in along)
    if max(abs(low - other_low), abs(high - other_high)) <= step:
        return False
    return bool(max(low, other_low) - min(high, other_high) <= TORN_SLICES * step)


def _completes(slices: Sequence[Frame], stack: Sequence[Frame]) -> bool:
    """Whether slices, whichever way they say that they are turned, lie where those would that a stack lacks."""
    axes = stack[0].axes
    return stack_problem(in_order([*stack, *(replace(frame, axes=axes) for frame in slices)])) is None


def _would_extend(frame: Frame, stack: list[Frame]) -> bool:
    """Whether a slice is parallel to a stack, or lies where its next or a missing one should."""
    return _are_parallel(frame, stack[0]) or (stack_problem(stack) is None and _is_next(frame, stack))


def _is_next(frame: Frame, stack: list[Frame]) -> bool:
    affine = affine_of(stack)
    first, step = affine[:3, 3], affine[:3, 2]
    place = float((frame.position_mm - first) @ step / (step @ step))
    away_mm = np.linalg.norm(frame.position_mm - first - round(place) * step)
    return bool(-TORN_SLICES < place < len(stack) + TORN_SLICES and away_mm < GRID_TOLERANCE * np.linalg.norm(step))


def _is_localizer(frame: Frame, singles: Sequence[Frame]) -> bool:
    """Whether there is a slice of its size in a plane that is not parallel to it."""
    size = (frame.columns, frame.rows)
    return any((each.columns, each.rows) == size and not _are_parallel(each, frame) for each in singles)


def _looks_alike(frame: Frame, other: Frame) -> bool:
    """Whether a file of the series is meant as the same kind of image; a screenshot is of another, or has no place."""
    same_size = (frame.columns, frame.rows) == (other.columns, other.rows)
    return frame.sop_class == other.sop_class and (frame.is_placed or same_size)


def _may_extend(frame: Frame, stack: list[Frame]) -> bool:
    """Whether a file that cannot be a slice would lie where a stack has none, or does not say where it lies."""
    if not frame.is_placed:
        return True
    normal = stack[0].axes[2]
    distances_mm = [abs((each.position_mm - frame.position_mm) @ normal) for each in stack]
    return min(distances_mm) > STEP_ROUNDING_MM and _would_extend(frame, stack)
