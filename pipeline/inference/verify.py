"""Whether a file is one of ours, unchanged, and what it was made from.

Each result is named, with its hash, by the sidecar that is written last beside it. This tells an accident (an edit,
another file of that name, a mix-up of versions) from the result itself; it is no signature, and no proof against
someone who writes a sidecar to go with a file.

The names in a sidecar are compared with the name of the file in question; of a sidecar in question, files beside it are
hashed.
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import nibabel as nib
import pydicom

from pipeline.files import sha256
from pipeline.identity import NAME, Sidecar, plain, read_sidecar
from pipeline.scans.nifti import is_marked, is_nifti
from pipeline.scans.sources import open_sources


class Standing(Enum):
    """What can be said of a file."""

    UNCHANGED = "ours and unchanged"
    CHANGED = "ours, but changed since it was written"
    UNRECORDED = f"made by {NAME}, but no sidecar beside it says what it was"
    SIDECAR = "a sidecar of ours, whose own hash nothing records; the files that it names are unchanged"
    STALE = "a sidecar of ours; files that it names are not as it records them"
    FOREIGN = "not ours: no sidecar beside it names it, and it does not say so itself"


@dataclass(frozen=True)
class Verdict:
    """What is known of a file, or of the files of a DICOM series.

    Args:
        standing: what can be said of it.
        detail: of a series, what is different; empty if nothing is.
        sidecar: what tells from what it was made; None if nothing does.
        same_source: whether the scan beside it, or given, is the one it was made from; None if there is none.
    """

    standing: Standing
    detail: str = ""
    sidecar: Sidecar | None = None
    same_source: bool | None = None

    @property
    def is_sound(self) -> bool:
        """Whether all is as it was recorded."""
        return self.standing in (Standing.UNCHANGED, Standing.SIDECAR) and self.same_source is not False

    def lines(self) -> list[str]:
        """All of it in words: the verdict, then an account of what it was made from."""
        head = f"{self.standing.value} ({self.detail})" if self.detail else self.standing.value
        if self.sidecar is None:
            return [head]
        source, *others = self.sidecar.account()
        compared = {None: "", True: " (compared, the same)", False: " (compared, it is ANOTHER scan)"}[self.same_source]
        return [head, source + compared, *others]


class Register:
    """The sidecars of ours in the folders of the files in question.

    A folder's sidecars are read through once, if a file that is none of them is in question, and what is kept is which
    of them name which file: memory does not grow with what they say.

    Args:
        source_hashes: of the scan that files should be made from; if None, a scan beside them with its name is taken.
    """

    def __init__(self, source_hashes: Collection[str] | None = None) -> None:
        self.source_hashes = source_hashes
        self._naming: dict[Path, dict[str, list[Path]]] = {}

    def verify(self, path: Path) -> Verdict:
        """Tell whether a file is as the sidecar beside it records it.

        Args:
            path: a NIfTI or DICOM file, a picture or a page; or the folder of a DICOM series.
        """
        # Not resolved: a linked file is judged by the sidecar beside the link.
        path = Path(os.path.abspath(path))  # noqa: PTH100
        verdict = self._verify_series(path) if path.is_dir() else self._verify_file(path)
        if verdict.sidecar is None:
            return verdict
        return replace(verdict, same_source=self._is_same_source(verdict.sidecar, path))

    def _verify_file(self, path: Path) -> Verdict:
        if (asked := _own_sidecar(path)) is not None:
            return _verdict_on(asked, path.parent)
        if not path.is_file():  # a pipe, a device
            return Verdict(Standing.FOREIGN)
        digest = sha256(path)
        naming = [
            (sidecar, sidecar.outputs[name])
            for folder, name in ((path.parent, path.name), (path.parent.parent, f"{path.parent.name}/{path.name}"))
            for sidecar in self._sidecars(folder, name)
            if name in sidecar.outputs
        ]
        for sidecar, recorded in naming:
            if recorded == digest:
                return Verdict(Standing.UNCHANGED, sidecar=sidecar)
        if naming:
            return Verdict(Standing.CHANGED, sidecar=naming[0][0])
        return Verdict(Standing.UNRECORDED if says_ours(path) else Standing.FOREIGN)

    def _is_same_source(self, sidecar: Sidecar, path: Path) -> bool | None:
        name, digest = sidecar.source
        if self.source_hashes is not None:
            return digest in self.source_hashes
        # What leads out of the folder, a path or a link, is not beside it.
        if Path(name).name != name or not name:
            return None
        beside = path.parent / name
        try:
            return sha256(beside) == digest if beside.is_file() and not beside.is_symlink() else None
        except OSError:
            return None

    def _verify_series(self, folder: Path) -> Verdict:
        files = {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
        digests: dict[str, str] = {}
        changed: list[Verdict] = []
        prefix = f"{folder.name}/"
        for sidecar in self._sidecars(folder.parent, prefix):
            recorded = {
                name.removeprefix(prefix): digest for name, digest in sidecar.outputs.items() if name.startswith(prefix)
            }
            if not recorded:
                continue
            digests = digests or {name: sha256(file) for name, file in files.items()}
            counts = {
                "changed": sum(name in recorded and recorded[name] != digest for name, digest in digests.items()),
                "missing": len(recorded.keys() - digests.keys()),
                "not ours": len(digests.keys() - recorded.keys()),
            }
            detail = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
            if not detail:
                return Verdict(Standing.UNCHANGED, f"{len(recorded)} files", sidecar)
            changed.append(Verdict(Standing.CHANGED, f"of {len(recorded)} files, {detail}", sidecar))
        if changed:
            return changed[0]
        ours = any(says_ours(file) for file in files.values())
        return Verdict(Standing.UNRECORDED if ours else Standing.FOREIGN)

    def _sidecars(self, folder: Path, name: str) -> Iterator[Sidecar]:
        """Those in a folder that name a file, or files in a subfolder (`name/`)."""
        if folder not in self._naming:
            naming: dict[str, list[Path]] = {}
            for file in _json_files(folder):
                sidecar = _own_sidecar(file)
                outputs = list(sidecar.outputs) if sidecar is not None else []
                for told in dict.fromkeys([*outputs, *(f"{of.partition('/')[0]}/" for of in outputs if "/" in of)]):
                    naming.setdefault(told, []).append(file)
            self._naming[folder] = naming
        files = self._naming[folder].get(name, [])
        return (sidecar for file in files if (sidecar := _own_sidecar(file)) is not None)


def _json_files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.json"))
    except OSError:
        return []


def _own_sidecar(path: Path) -> Sidecar | None:
    """What a sidecar of ours says; None for any other file."""
    try:
        # A link may lead out of the folder, and a pipe has no end.
        known = path.suffix == ".json" and path.is_file() and not path.is_symlink()
    except OSError:
        return None
    return read_sidecar(path) if known else None


def _verdict_on(sidecar: Sidecar, folder: Path) -> Verdict:
    """Of a sidecar: on the files that it names, as far as they lie where it lies or in a series beside it."""
    wrong = []
    for name, recorded in sidecar.outputs.items():
        parts = Path(name).parts
        file = folder / name
        beside = len(parts) <= 2 and ".." not in parts and not Path(name).is_absolute()
        linked = file.is_symlink() or (folder / parts[0] if parts else folder).is_symlink()
        if not beside or linked or not file.is_file() or sha256(file) != recorded:
            wrong.append(plain(name))
    if not wrong:
        return Verdict(Standing.SIDECAR, f"{len(sidecar.outputs)} files", sidecar)
    return Verdict(Standing.STALE, f"{len(wrong)} of {len(sidecar.outputs)}, the first is {wrong[0]}", sidecar)


def sidecars_below(folder: Path) -> Iterator[Path]:
    """The sidecars of ours that tell from what their results were made, in a folder of results and its subfolders."""
    return (path for path in sorted(folder.rglob("*.json")) if path.is_file() and read_sidecar(path))


def source_hashes(scan: Path, series: str | None = None) -> set[str]:
    """What sidecars call the SHA-256 of a scan, or of each scan in a folder or archive.

    Args:
        scan: file, folder or archive.
        series: which DICOM series of it, where there are several.

    Raises:
        UsageError: if there is no scan in it, or it is not clear which series is meant.
        ScanError: if it cannot be read.
    """
    with open_sources([scan], series) as sources:
        return {source.sha256() for source in sources}


def says_ours(path: Path) -> bool:
    """Whether a DICOM or NIfTI file says of itself that this software made it."""
    try:
        if is_nifti(path):
            return is_marked(nib.load(path).header)
        tags: list[Any] = ["SyntheticData", "ContributingEquipmentSequence"]
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        makers = [item.get("Manufacturer") for item in header.get("ContributingEquipmentSequence", [])]
    except Exception:  # both raise whatever their parsers stumble over
        return False
    return bool(header.get("SyntheticData") == "YES" and NAME in makers)
