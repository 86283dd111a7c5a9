"""DICOM series in: attributes with pydicom, pixels with ITK, slices in the order in which they lie.

Every file's attributes are checked first (`dicom_frames`). The frames of a series are grouped by plane, and by echo,
time point and the like where they share positions, until each group is one straight, evenly spaced stack: a volume.
What does not fall into such stacks is refused with the reason.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from pipeline.errors import ScanError
from pipeline.files import scratch_folder, sha256
from pipeline.scans.dicom_frames import IDENTITY, Frame, frames_of
from pipeline.scans.itk_reader import read_with_itk
from pipeline.scans.lps import scan_from_lps
from pipeline.scans.scan import GRID_TOLERANCE, DicomSeries, Scan

# Share of the slice distance by which a step may differ from the others, but never less than what scanners round to.
STEP_TOLERANCE = 0.01
STEP_ROUNDING_MM = 0.01
# Components of unit vectors; the planes of one series agree to the sixth decimal.
SAME_AXES = 1e-3
SAME_SPACING_MM = 1e-3
MOST_BYTES = 8 << 30
PIXEL_FORMAT = ("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation")  # fmt: skip


@dataclass(frozen=True)
class FoundSeries(DicomSeries):
    """A volume of a series, or what stands in its place, as a list of series shows it.

    Args:
        label: what `--series` takes: the series' number, with a count behind it ("4.2") where several volumes have it.
        shape: columns, rows, slices.
        spacing_mm: of columns, rows and slices; 0 for slices that make up no stack.
        original: whether Image Type calls it original and not derived.
        problem: why it cannot be read, if it cannot.
        is_scan: whether it is meant as a volume; a screenshot, a localizer of one slice or a synthetic series is not.
    """

    label: str = ""
    shape: tuple[int, int, int] = (0, 0, 0)
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    original: bool = True
    problem: str | None = None
    is_scan: bool = True


def find_series(files: Sequence[Path]) -> list[FoundSeries]:
    """Sort DICOM files into volumes by what they say about themselves; names and instance numbers do not count.

    Args:
        files: DICOM files of any number of series, in any order.

    Returns:
        The volumes by series number, and an entry with a `problem` for each series, or part of one, that makes up none.
        A file too damaged to tell its series spoils the series beside it in its folder, as it may be a slice of theirs.
    """
    by_uid: dict[str, list[Frame]] = defaultdict(list)
    damaged: dict[Path, Frame] = {}
    for file in files:
        for frame in frames_of(file):
            if frame.uid:
                by_uid[frame.uid].append(frame)
            else:
                damaged.setdefault(file.parent, frame)
    found = [entry for uid in sorted(by_uid) for entry in _volumes(by_uid[uid])]
    spoiled = set()
    for place, entry in enumerate(found):
        beside = next((folder for folder in {each.file.parent for each in entry.slices} if folder in damaged), None)
        if beside is not None and entry.is_scan:
            found[place] = replace(entry, problem=entry.problem or damaged[beside].fault)
            spoiled.add(beside)
    found += [_entry([frame], frame.fault) for folder, frame in damaged.items() if folder not in spoiled]
    found.sort(key=lambda entry: (entry.number is None, entry.number or 0))
    labels = ["none" if entry.number is None else str(entry.number) for entry in found]
    counts: dict[str, int] = defaultdict(int)
    for place, label in enumerate(labels):
        if labels.count(label) > 1:
            counts[label] += 1
            found[place] = replace(found[place], label=f"{label}.{counts[label]}")
        else:
            found[place] = replace(found[place], label=label)
    return found


def read_series(series: DicomSeries, origin: Path) -> Scan:
    """Read a volume that `find_series` found.

    Args:
        series: slices in order of position.
        origin: what the user named, for messages and sidecars.

    Returns:
        The scan; `stored[i, j, k]` is column i and row j of slice k, as stored, in the file's own type; where the
        slices have different rescale slopes or intercepts, float32 intensities.

    Raises:
        ScanError: if the series makes up no volume or its pixels cannot be decoded.
    """
    if isinstance(series, FoundSeries) and series.problem:
        raise ScanError(f"{origin}: {series.problem}")
    files = list(dict.fromkeys(each.file for each in series.slices))
    frames_by_place = {frame.place: frame for file in files for frame in frames_of(file)}
    try:
        frames = [frames_by_place[each] for each in series.slices]
    except KeyError as error:
        raise ScanError(f"{origin}: found files that changed while they were read; start again") from error
    problem = next((frame.fault for frame in frames if frame.fault), None) or stack_problem(frames)
    size = sum(frame.rows * frame.columns * frame.dtype.itemsize for frame in frames)
    if size > MOST_BYTES:
        problem = f"found a volume of {size} bytes, expected at most {MOST_BYTES}; give a part of it"
    if problem:
        raise ScanError(f"{origin}: {problem}")
    first = frames[0]
    rescales = {(frame.slope, frame.intercept) for frame in frames}
    same_rescale = len(rescales) == 1
    dtype = first.dtype if same_rescale else np.dtype(np.float32)
    try:
        stored = np.empty((first.columns, first.rows, len(frames)), dtype, order="F")
        with scratch_folder() as folder:
            pixels = _decode(files, frames, origin, folder)
            for k, frame in enumerate(frames):
                plane = pixels[frame.place.file][frame.place.frame or 0].T
                stored[:, :, k] = plane if same_rescale else plane * frame.slope + frame.intercept
    except MemoryError as error:
        raise ScanError(
            f"{origin}: found a volume of shape {(first.columns, first.rows, len(frames))}, expected one that fits "
            "into memory; crop it or free memory"
        ) from error
    slope, intercept = rescales.pop() if same_rescale else (1.0, 0.0)
    return scan_from_lps(stored, _affine(frames), origin, slope, intercept, series)


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
    affine = _affine(frames)
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


def _affine(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Columns, rows and slices to millimetres in LPS+, shape (4, 4); `frames` are in order of position."""
    first, last = frames[0], frames[-1]
    step_mm = (last.position_mm - first.position_mm) @ first.axes[2] / (len(frames) - 1)
    affine = np.eye(4)
    affine[:3, :3] = first.axes.T * [*first.spacing_mm, step_mm]
    affine[:3, 3] = first.position_mm
    return affine


def _volumes(frames: Sequence[Frame]) -> list[FoundSeries]:
    """Sort the frames of one series into volumes."""
    found = []
    others = [frame for frame in frames if not frame.is_scan]
    slices = [frame for frame in frames if frame.is_scan]
    if others:
        found.append(_entry(others, others[0].fault, is_scan=False))
    if slices:
        slices, problem = _without_copies(slices)
        problem = problem or _mixed(slices)
        if problem:
            return [*found, _entry(slices, problem)]
        groups = _by_plane(slices)
        singles = [group[0] for group in groups if len(group) == 1]
        if len(singles) > 1:
            problem = (
                f"found {len(singles)} single slices in planes of their own (a localizer), expected a volume; choose "
                "another series"
            )
            found.append(_entry(singles, problem, is_scan=False))
            groups = [group for group in groups if len(group) > 1]
        for group in groups:
            found += [_entry(part, stack_problem(part), is_scan=len(part) > 1) for part in _parts(group)]
    return found


def _entry(frames: Sequence[Frame], problem: str | None, is_scan: bool = True) -> FoundSeries:
    first = frames[0]
    step_mm = 0.0 if problem else float(np.linalg.norm(_affine(frames)[:3, 2]))
    return FoundSeries(
        slices=tuple(frame.place for frame in frames),
        uid=first.uid,
        modality=first.modality,
        number=first.number,
        shape=(first.columns, first.rows, len(frames)),
        spacing_mm=(*first.spacing_mm, step_mm),
        description=first.description,
        original=first.original,
        problem=problem,
        is_scan=is_scan,
    )


def _without_copies(frames: Sequence[Frame]) -> tuple[list[Frame], str | None]:
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


def _mixed(frames: Sequence[Frame]) -> str | None:
    """A problem if the frames of a series are not of one person, study and space, whatever their series says."""
    for keyword, values in zip(IDENTITY, zip(*(frame.identity for frame in frames), strict=True), strict=True):
        if len(set(values)) > 1:
            return (
                f"found slices of {len(set(values))} different {keyword} in one series, expected one person, study and "
                "frame of reference; the files were mixed up, export the series again"
            )
    return None


def _by_plane(frames: Iterable[Frame]) -> list[list[Frame]]:
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
    return [_in_order(group) for group in groups]


def _in_order(frames: Iterable[Frame]) -> list[Frame]:
    frames = list(frames)
    return sorted(frames, key=lambda frame: float(frame.position_mm @ frames[0].axes[2]))


def _parts(frames: list[Frame]) -> list[list[Frame]]:
    """Split frames of one plane that are no volume by the attribute that makes volumes of equal size of them."""
    if stack_problem(frames) is None:
        return [frames]
    attributes = range(min(len(frame.parts) for frame in frames))
    varying = [place for place in attributes if len({frame.parts[place] for frame in frames}) > 1]
    for places in (*((place,) for place in varying), *itertools.combinations(varying, 2)):
        parts: dict[tuple[str, ...], list[Frame]] = defaultdict(list)
        for frame in frames:
            parts[tuple(frame.parts[place] for place in places)].append(frame)
        in_order = [_in_order(parts[value]) for value in sorted(parts)]
        if len({len(part) for part in in_order}) == 1 and all(stack_problem(part) is None for part in in_order):
            return in_order
    return [frames]


def _decode(
    files: Sequence[Path], frames: Sequence[Frame], origin: Path, folder: Path
) -> dict[Path, NDArray[np.generic]]:
    """Stored values of each file, shape (frames, rows, columns), memory-mapped in `folder`."""
    shapes = {frame.place.file: (frame.rows, frame.columns) for frame in frames}
    first = frames[0]
    copies, most_bytes = [], 0
    for number, file in enumerate(files):
        copies.append(folder / f"{number}.dcm")
        try:
            count = _copy_pixels(file, copies[-1])
        except OSError as error:
            raise ScanError(
                f"{origin}: cannot be unpacked ({error.strerror}), expected room for the pixels in {folder.parent}; "
                "free some or set TMPDIR"
            ) from error
        except Exception as error:  # as in frames_of
            raise _undecodable(origin, file, "is truncated or damaged") from error
        most_bytes = max(most_bytes, count * first.rows * first.columns * first.dtype.itemsize)
    pixels = {}
    for file, image in zip(files, read_with_itk(copies, "GDCMImageIO", most_bytes, folder), strict=False):
        if image.problem:
            raise _undecodable(origin, file, image.problem)
        if image.voxels.shape[-2:] != shapes[file] or image.voxels.nbytes > most_bytes:
            raise _undecodable(origin, file, "holds an image of another size than its header claims")
        pixels[file] = image.voxels.reshape(-1, *shapes[file])
    return pixels


def _undecodable(origin: Path, file: Path, found: str) -> ScanError:
    return ScanError(f"{origin}: found that {file.name} {found}, expected pixels that can be read; copy it again")


def _copy_pixels(file: Path, target: Path) -> int:
    """Write a file that holds the pixels of another and their format, and nothing else; tell its number of frames.

    GDCM, which ITK decodes with, would apply a rescale and search the whole header for geometry, and on a damaged
    header it may search without end. This header is sound.
    """
    source = pydicom.dcmread(file, specific_tags=[*PIXEL_FORMAT, "PixelData"])
    syntax = source.file_meta.TransferSyntaxUID
    count = int(source.get("NumberOfFrames") or 1)
    several = count > 1
    bare = Dataset()
    bare.file_meta = FileMetaDataset()
    bare.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage if several else SecondaryCaptureImageStorage
    bare.SOPInstanceUID = "2.25.1"
    for keyword in PIXEL_FORMAT:
        if keyword in source:
            setattr(bare, keyword, source[keyword].value)
    if syntax.is_encapsulated:
        pixels = encapsulate(list(generate_frames(source.PixelData, number_of_frames=count)), has_bot=False)
    else:
        size = count * source.Rows * source.Columns * source.BitsAllocated // 8
        pixels = source.PixelData[:size] + bytes(size % 2)
        if syntax != ExplicitVRBigEndian:
            syntax = ExplicitVRLittleEndian
    bare.file_meta.TransferSyntaxUID = syntax
    bare.file_meta.MediaStorageSOPClassUID = bare.SOPClassUID
    bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID
    bare.add_new("PixelData", "OW" if source.BitsAllocated > 8 and not syntax.is_encapsulated else "OB", pixels)
    bare["PixelData"].is_undefined_length = syntax.is_encapsulated
    bare.save_as(target, enforce_file_format=True)
    return count
