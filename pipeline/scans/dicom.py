"""DICOM series in: attributes with pydicom, pixels with ITK, slices in the order in which they lie.

Every file's attributes are checked first (`dicom_frames`). The frames of a series are grouped by plane, and by echo,
time point and the like where they share positions, until each group is one straight, evenly spaced stack: a volume.
What does not fall into such stacks is refused with the reason.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
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
from pipeline.files import scratch_folder
from pipeline.scans.dicom_frames import NOT_SCANS, Frame, frames_of, open_dicom, transfer_syntax
from pipeline.scans.dicom_stacks import (
    affine_of,
    by_plane,
    damage,
    mixed,
    parts,
    stack_problem,
    with_strays,
    without_copies,
)
from pipeline.scans.itk_reader import read_with_itk
from pipeline.scans.lps import scan_from_lps
from pipeline.scans.scan import DicomSeries, Scan

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
    # Of segmentations and doses nothing is told; one among slices is a slice that is damaged.
    series = [by_uid[uid] for uid in sorted(by_uid) if any(frame.modality not in NOT_SCANS for frame in by_uid[uid])]
    found = [entry for frames in with_strays(series) for entry in _volumes(frames)]
    spoiled = set()
    for place, entry in enumerate(found):
        beside = next((folder for folder in damaged if _may_hold(folder, entry)), None)
        if beside is not None and entry.is_scan:
            lost = damaged[beside]
            # Among the slices, so that whoever hides the names of a series' files knows of this one.
            found[place] = replace(entry, problem=lost.fault, slices=(*entry.slices, lost.place))
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
            padding = np.zeros(stored.shape, bool)
            for k, frame in enumerate(frames):
                plane = pixels[frame.place.file][frame.place.frame or 0].T
                if frame.padding is not None:
                    padding[:, :, k] = (plane >= frame.padding[0]) & (plane <= frame.padding[1])
                stored[:, :, k] = plane if same_rescale else plane * frame.slope + frame.intercept
    except MemoryError as error:
        raise ScanError(
            f"{origin}: found a volume of shape {(first.columns, first.rows, len(frames))}, expected one that fits "
            "into memory; crop it or free memory"
        ) from error
    slope, intercept = rescales.pop() if same_rescale else (1.0, 0.0)
    scan = scan_from_lps(stored, affine_of(frames), origin, slope, intercept, series)
    # Padding below all else is black as it is, and stays what it was.
    bright = padding.any() and not padding.all() and scan.stored[padding].max() > scan.stored[~padding].min()
    return replace(scan, padding=padding) if bright else scan


def _volumes(frames: Sequence[Frame]) -> list[FoundSeries]:
    """Sort the frames of one series into volumes."""
    found = []
    others = [frame for frame in frames if not frame.is_scan]
    slices = [frame for frame in frames if frame.is_scan]
    if others:
        found.append(_entry(others, others[0].fault, is_scan=False))
    if not slices:
        return found
    slices, problem = without_copies(slices)
    problem = problem or mixed(slices)
    if problem:
        return [*found, _entry(slices, problem)]
    planes = by_plane(slices)
    singles = [plane[0] for plane in planes if len(plane) == 1]
    groups = [parts(plane) for plane in planes if len(plane) > 1]
    problem = damage(groups, singles, others)
    if problem:
        return [_entry([*slices, *others], problem)]
    if len(singles) > 1:
        problem = (
            f"found {len(singles)} single slices in planes of their own (a localizer), expected a volume; choose "
            "another series"
        )
        found.append(_entry(singles, problem, is_scan=False))
    elif singles:
        found.append(_entry(singles, stack_problem(singles), is_scan=False))
    return found + [_entry(volume, stack_problem(volume)) for group in groups for volume in group]


def _may_hold(folder: Path, series: FoundSeries) -> bool:
    """Whether a folder is one of those, or lies among those, that a series' files lie in."""
    folders = {each.file.parent for each in series.slices}
    return folder in folders or (len(folders) > 1 and folder.is_relative_to(os.path.commonpath(folders)))


def _entry(frames: Sequence[Frame], problem: str | None, is_scan: bool = True) -> FoundSeries:
    first = frames[0]
    step_mm = 0.0 if problem else float(np.linalg.norm(affine_of(frames)[:3, 2]))
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
    with open_dicom(file) as opened:
        source = pydicom.dcmread(opened, force=True, specific_tags=[*PIXEL_FORMAT, "PixelData"])
    syntax = transfer_syntax(source)
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
