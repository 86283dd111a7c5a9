"""The scans that a user names: files, folders and zips, told apart, and listed before any is read.

A folder whose DICOM files lie in it directly is one scan, as a zip is; where it holds several series, one must be
chosen. In any other folder each NIfTI file, image and zip is a scan, and so is each DICOM volume, whichever folders its
slices lie in.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.errors import ScanError, UsageError
from pipeline.scans.archive import is_zip, member_names, unpack
from pipeline.scans.content import kind_of
from pipeline.scans.dicom import FoundSeries, find_series, read_series
from pipeline.scans.dicom_frames import is_dicom, name_pattern
from pipeline.scans.image_file import PICTURES, files_of, read_image
from pipeline.scans.image_file import suffix as image_suffix
from pipeline.scans.nifti import is_nifti, read_nifti, stem
from pipeline.scans.pointer import check_fetched, is_unfetched
from pipeline.scans.scan import Scan

EXPECTED = "NIfTI, DICOM (a folder, a zip or a multi-frame file), NRRD, MetaImage, MINC or GIPL"
# Scans, or archives of some, that are not read; a scan's own suffix may stand before the last.
FOREIGN = re.compile(
    r"\.(mgz|mgh|mif|mif\.gz|par|rec|brik|brik\.gz|head|ima\.gz|tar|tgz|tar\.(gz|bz2|xz|zst)|7z|rar"
    r"|(nii|nrrd|nhdr|mha|mhd|mnc|img|hdr)\.(gz|bz2|xz|zst|z|lz4|7z|rar)|img)$",
    re.IGNORECASE,
)
MASK = re.compile(r"_label-|(^|[_.-])(mask|msk|seg|dseg|probseg|lesion)$")
RAW_BIDS = re.compile(r"sub-[A-Za-z0-9]+/(ses-[A-Za-z0-9]+/)?anat/sub-[^/]+_(?P<suffix>[A-Za-z0-9]+)\.(?i:nii(\.gz)?)")
# How the names of files end, by what they hold.
NAMED = {"NIfTI": ".nii or .nii.gz", "NRRD": ".nrrd"}
DESCRIPTION = "dataset_description.json"
# BIDS keeps results and unconverted data there.
NO_SCANS_BELOW = ("derivatives", "sourcedata")


@dataclass(frozen=True)
class Source:
    """One scan that the user named, not read yet.

    Args:
        path: file, folder or zip, as the user named it or as it was found in a folder.
        stem: base for the names of results.
        kind: "nifti", "dicom" or "image".
        dataset: root of the BIDS dataset that the scan lies in, if any.
        series: the volume, where it is DICOM.
        fault: the whole sentence that says why it cannot be read, if that is known already.
    """

    path: Path
    stem: str
    kind: str
    dataset: Path | None = None
    series: FoundSeries | None = None
    fault: str | None = None

    def read(self) -> Scan:
        """Read it.

        Raises:
            ScanError: if it cannot be used.
        """
        try:
            self._check()
            if self.kind == "nifti":
                return read_nifti(self.path)
            if self.series is not None:
                return read_series(self.series, self.path)
            return read_image(self.path)
        except OSError as error:
            raise self._unreadable(error) from error

    def sha256(self) -> str:
        """SHA-256 of the file; where there are several, of their SHA-256's digits joined, in order of slices.

        Raises:
            ScanError: if it cannot be read.
        """
        try:
            self._check()
            if self.series is not None:
                parts = list(dict.fromkeys(each.file for each in self.series.slices))
            else:
                parts = files_of(self.path) if self.kind == "image" else [self.path]
            hashes = [files.sha256(part) for part in parts]
        except OSError as error:
            raise self._unreadable(error) from error
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    def _check(self) -> None:
        if self.fault:
            raise ScanError(self.fault)
        if self.series is not None and self.series.problem:
            raise ScanError(f"{self.path}: {self.series.problem}")

    def _unreadable(self, error: OSError) -> ScanError:
        return ScanError(f"{self.path}: cannot be read ({error.strerror}); check the path and its permissions")


@contextmanager
def open_sources(
    paths: Sequence[Path], series: str | None = None, modality: str | None = None
) -> Iterator[list[Source]]:
    """Find the scans that a user means; zips are unpacked into temporary folders for as long as the block lasts.

    In a folder, masks, results of ours, synthetic images, hidden files and what lies under `derivatives` are no scans,
    nor are localizers and screenshots; in a BIDS dataset, scans are what lies in `anat`.

    Args:
        paths: files, folders and zips.
        series: take the DICOM series of this number (or label in the list of series, or Series Instance UID) only.
        modality: take DICOM series of this Modality (MR), or files of a BIDS dataset with this suffix (FLAIR) only.

    Yields:
        The scans. One that turns out unusable says so when it is read, so that the others go on.

    Raises:
        UsageError: if a path does not exist, a folder holds no scan, or it is not clear which series is meant.
    """
    with ExitStack() as stack:
        search = _Search(stack, series, modality)
        found = [source for path in paths for source in search.named(Path(path))]
        if series is not None and not any(source.kind == "dicom" for source in found):
            raise UsageError(f"--series {series}: found no DICOM among the scans, expected some; leave it out")
        if modality is not None and not any(source.kind == "dicom" or source.dataset for source in found):
            raise UsageError(
                f"--modality {modality}: found neither DICOM nor a BIDS dataset among the scans, which alone tell "
                "theirs; leave it out"
            )
        yield list(dict.fromkeys(found))


class _Search:
    def __init__(self, stack: ExitStack, series: str | None, modality: str | None) -> None:
        self.stack = stack
        self.series = series
        self.modality = modality

    def named(self, path: Path) -> list[Source]:
        """The scans behind one path that the user gave."""
        if path.is_dir():
            return self._folder(path)
        if is_unfetched(path):
            return [_absent(path)]
        if not path.exists():
            raise UsageError(f"{path}: no such file; check the path")
        if not path.is_file():
            return [_absent(path)]
        return [_file(path)] if is_nifti(path) or image_suffix(path) else self._by_content(path)

    def _by_content(self, path: Path) -> list[Source]:
        try:
            if is_zip(path):
                return self._chosen(path, self._unpacked(path))
            if is_dicom(path):
                return self._chosen(path, [path])
        except ScanError as error:
            return [Source(path, path.stem, "dicom", fault=str(error))]
        except OSError as error:
            return [_unusable(path, f"cannot be read ({error.strerror}); mend its permissions")]
        picture = path.suffix.lower() in PICTURES
        found = "a picture, which has no third axis and no millimetres" if picture else "a file of another kind"
        return [_unusable(path, f"found {found}, expected {EXPECTED}; convert it or give the original scan")]

    def _folder(self, folder: Path) -> list[Source]:
        files_by_kind: dict[str, list[Path]] = defaultdict(list)
        for file in _walk(folder):
            files_by_kind[_kind_by_name(file)].append(file)
        dicom, unknown, absent = (files_by_kind[kind] for kind in ("dicom", "unknown", "absent"))
        sources = [_file(file) for file in files_by_kind["scan"] if self._is_scan(file)]
        sources += [source for file in files_by_kind["zip"] for source in self._archived(file)]
        # A slice that is empty or damaged beyond recognition is still called as the others are.
        kinds = {(file.parent, name_pattern(file.name)) for file in dicom}
        damaged = {file for file in (*unknown, *absent) if (file.parent, name_pattern(file.name)) in kinds}
        dicom += sorted(damaged)
        sources += [source for file in unknown if file not in damaged for source in self._misnamed(file, dicom)]
        sources += [_absent(file) for file in absent if file not in damaged and self._is_absent_scan(file)]
        if dicom and not sources and all(file.parent == folder for file in dicom):
            return self._chosen(folder, dicom)
        entries = find_series(dicom)
        sources += self._all(entries)
        if not sources:
            reason = next((f" ({entry.problem})" for entry in entries if entry.problem), "")
            raise UsageError(
                f"{folder}: holds no scan that can be used{reason}, expected {EXPECTED}; name another folder, or other "
                "values of --series and --modality if you gave them"
            )
        return sorted(sources, key=lambda source: (os.fspath(source.path), source.stem))

    def _misnamed(self, file: Path, dicom: list[Path]) -> list[Source]:
        """What to say of a file whose name is none of a scan that is read; packed DICOM joins the other files of it."""
        if self._is_foreign_scan(file):
            return [_foreign(file)]
        kind = kind_of(file)
        if kind == "DICOM":
            dicom.append(file)
        elif kind == "zip" and _holds_scans(file):
            return self._archived(file)
        elif kind in NAMED and self._is_scan(_as_nifti(file)):
            return [
                _unusable(
                    file, f"found {kind} under another name, expected one that ends with {NAMED[kind]}; rename it"
                )
            ]
        return []

    def _is_absent_scan(self, file: Path) -> bool:
        """Whether a pipe, or a link to what git-annex has not fetched, is called as a scan is."""
        named = is_nifti(file) or bool(image_suffix(file) or FOREIGN.search(file.name)) or file.suffix.lower() == ".dcm"
        return named and (file.exists() or is_unfetched(file)) and self._is_scan(_as_nifti(file))

    def _is_foreign_scan(self, file: Path) -> bool:
        """Whether a file found in a folder looks like a scan, of a kind that is not read."""
        found = FOREIGN.search(file.name)
        # The header beside an .img is what is read.
        beside = found is not None and any(file.with_suffix(end).is_file() for end in (".hdr", ".HDR"))
        return found is not None and not beside and self._is_scan(_as_nifti(file))

    def _is_scan(self, file: Path) -> bool:
        """Whether a NIfTI file or image found in a folder is a scan that the user wants."""
        if self.series is not None or MASK.search(_stem(file)) or _is_result(file):
            return False
        dataset = _dataset(file)
        if dataset is None:
            return True
        raw = RAW_BIDS.fullmatch(file.absolute().relative_to(dataset).as_posix())
        return raw is not None and (
            self.modality is None or self.modality.casefold() in {raw["suffix"].casefold(), "mr"}
        )

    def _archived(self, archive: Path) -> list[Source]:
        try:
            entries = find_series(self._unpacked(archive))
            if not any(entry.is_scan for entry in entries):
                return [self._without_series(archive, entries)]
            others = [
                name for name in member_names(archive) if _may_be_scan(name) and not MASK.search(_stem(Path(name)))
            ]
            more = f"found {others[0]} in a zip of DICOM, which is passed over; unpack it" if others else None
            return self._all(entries, archive) + ([_unusable(archive, more)] if more else [])
        except ScanError as error:
            return [Source(archive, archive.stem, "dicom", fault=str(error))]

    def _without_series(self, path: Path, entries: Sequence[FoundSeries]) -> Source:
        """What to say of an archive or file that holds no volume."""
        others = [name for name in member_names(path) if _may_be_scan(name)] if is_zip(path) else []
        if entries and entries[0].problem:
            return _unusable(path, entries[0].problem)
        if others:
            return _unusable(path, f"found a zip of other files ({others[0]}), expected one of DICOM; unpack it")
        return _unusable(path, "found no images, expected slices of a series; name the folder that holds them")

    def _unpacked(self, archive: Path) -> list[Path]:
        return unpack(archive, self.stack.enter_context(files.scratch_folder()))

    def _wanted(self, entry: FoundSeries) -> bool:
        numbers = {entry.label, entry.uid, str(entry.number)}
        return (self.series is None or self.series in numbers) and (
            self.modality is None or self.modality.casefold() == entry.modality.casefold()
        )

    def _all(self, entries: Sequence[FoundSeries], archive: Path | None = None) -> list[Source]:
        """A source for each volume, named after the archive or the folder that its slices lie in."""
        volumes = [(entry, archive or _common_folder(entry)) for entry in entries if entry.is_scan]
        shared = Counter(place for _, place in volumes)
        return [_series(place, entry, several=shared[place] > 1) for entry, place in volumes if self._wanted(entry)]

    def _chosen(self, path: Path, dicom: Sequence[Path]) -> list[Source]:
        """The one volume that the user means by a folder, a zip or a file."""
        entries = find_series(dicom)
        volumes = [entry for entry in entries if entry.is_scan]
        wanted = [entry for entry in entries if self._wanted(entry)]
        candidates = [entry for entry in wanted if entry.is_scan] or wanted[:1]
        if not entries:
            return [self._without_series(path, entries)]
        if len(candidates) != 1:
            found = f"holds {len(candidates)} series that may be meant" if candidates else "holds no such series"
            raise UsageError(
                f"{path}: {found}, expected one; choose it with --series or --modality:\n{_table(entries)}"
            )
        return [_series(path, candidates[0], several=len(volumes) > 1)]


def _series(place: Path, entry: FoundSeries, several: bool) -> Source:
    name = place.stem if place.is_file() else place.resolve().name
    suffix = f"_series-{entry.label.replace('.', '-')}" if several else ""
    return Source(place, f"{name}{suffix}", "dicom", series=entry)


def _file(path: Path) -> Source:
    return Source(path, _stem(path), "nifti" if is_nifti(path) else "image", _dataset(path))


def _foreign(path: Path) -> Source:
    ending = "".join(path.suffixes[-2:])
    return _unusable(path, f"found a file of a kind that is not read ({ending}), expected {EXPECTED}; convert it")


def _kind_by_name(file: Path) -> str:
    if not file.is_file():
        return "absent"
    if is_nifti(file) or image_suffix(file):
        return "scan"
    if file.suffix.lower() == ".zip":
        return "zip"
    return "dicom" if _opens_as_dicom(file) else "unknown"


def _absent(path: Path) -> Source:
    """A source that says so when it is read."""
    try:
        check_fetched(path)
    except ScanError as error:
        return Source(path, _stem(path), "image", fault=str(error))
    return _unusable(path, f"found no regular file, expected {EXPECTED}; copy it into one")


def _as_nifti(file: Path) -> Path:
    """What a file would be called if it were NIfTI."""
    return file.with_name(f"{file.name.partition('.')[0]}.nii.gz")


def _holds_scans(archive: Path) -> bool:
    """Whether a zip that is not called one, as office documents are not, has members that are called as scans are."""
    try:
        return any(_may_be_scan(name) or name.lower().endswith(".dcm") for name in member_names(archive))
    except ScanError:
        return False


def _may_be_scan(name: str) -> bool:
    path = Path(name)
    return is_nifti(path) or bool(image_suffix(path) or FOREIGN.search(name)) or path.suffix.lower() == ".zip"


def _unusable(path: Path, reason: str) -> Source:
    return Source(path, path.stem, "image", fault=f"{path}: {reason}")


def _opens_as_dicom(file: Path) -> bool:
    try:
        return is_dicom(file)
    except OSError as error:
        raise UsageError(
            f"{file}: cannot be read ({error.strerror}); mend its permissions or name the scans"
        ) from error


def _is_result(file: Path) -> bool:
    """Whether a file in a folder is what we made of another, as the sidecar beside it says."""
    name = _stem(file)
    return "_desc-" in name and files.read_json(file.with_name(f"{name}.json")).get("SyntheticData") is True


def _stem(path: Path) -> str:
    return stem(path) if is_nifti(path) else path.name[: len(path.name) - len(image_suffix(path))]


def in_dataset(path: Path) -> bool:
    """Whether a file or folder is a BIDS dataset or lies in one."""
    return _dataset(path / DESCRIPTION) is not None


def _dataset(file: Path) -> Path | None:
    """The nearest folder above a file that describes itself as a BIDS dataset."""
    return next((folder for folder in file.absolute().parents if (folder / DESCRIPTION).is_file()), None)


def _common_folder(entry: FoundSeries) -> Path:
    folders = {os.fspath(each.file.parent) for each in entry.slices}
    return Path(os.path.commonpath(folders))


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, pipes and broken links too, by name; links are followed, but no folder is entered twice."""
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: cannot be searched ({error.strerror}); mend its permissions") from error

    for here, below, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in NO_SCANS_BELOW)
        yield from (Path(here, name) for name in sorted(names) if not name.startswith("."))


def _table(entries: Sequence[FoundSeries]) -> str:
    """The series that can be chosen from, and what keeps the others from it."""
    rows = [("series", "modality", "columns x rows x slices", "spacing (mm)", "kind", "description")]
    rows += [
        (
            entry.label,
            entry.modality,
            " x ".join(map(str, entry.shape)),
            " x ".join(f"{size:.3g}" for size in entry.spacing_mm),
            "unusable" if entry.problem else "original" if entry.original else "derived",
            entry.description,
        )
        for entry in entries
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
