"""Folders and files of a cohort, by name alone."""

from pathlib import Path

from pipeline.errors import UsageError
from pipeline.files import small_bytes
from pipeline.scans.nifti import stem


def by_session(root: Path, places: tuple[str, ...]) -> dict[str, list[Path]]:
    """NIfTI files in `places` of each sub-*/[ses-*/], under the name sub-<id>[_ses-<id>]."""
    sessions = {}
    for subject in folders(root):
        if not subject.name.startswith("sub-"):
            continue
        inner = [folder for folder in folders(subject) if folder.name.startswith("ses-")]
        for folder in [subject, *inner]:
            paths = [path for place in places for path in niftis(folder / place)]
            if paths:
                sessions["_".join(folder.relative_to(root).parts)] = paths
    return sessions


def with_suffix(paths: list[Path], suffix: str) -> list[Path]:
    """Those whose name ends in `_<suffix>`, whatever the case."""
    return [path for path in paths if stem(path).rpartition("_")[2].casefold() == suffix.casefold()]


def with_entity(paths: list[Path], *entities: str) -> list[Path]:
    """Those that have one of the entities, such as `label-lesion`, in their name."""
    return [path for path in paths if not set(entities).isdisjoint(stem(path).split("_"))]


def plain_else_all(candidates: list[Path], *plain: set[str]) -> list[Path]:
    """Those named as the first of the sets `plain` that names any, whatever the case; all when none does."""
    for stems in plain:
        wanted = {name.casefold() for name in stems}
        if chosen := [path for path in candidates if stem(path).casefold() in wanted]:
            return chosen
    return candidates


def folders(root: Path, depth: int = 1) -> list[Path]:
    """Folders up to `depth` levels below `root`, sorted; hidden ones and a disk's lost+found are left out."""
    if depth == 0 or not root.is_dir():
        return []
    found = sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".") and path.name != "lost+found"
    )
    return found + [inner for folder in found for inner in folders(folder, depth - 1)]


def niftis(folder: Path) -> list[Path]:
    """NIfTI files by name, sorted; hidden ones (macOS puts `._*` beside each file) are left out."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.name.endswith((".nii", ".nii.gz")) and not path.name.startswith(".")
    )


def read_utf8(path: Path) -> str:
    """The text of a table or list.

    Raises:
        UsageError: if it is not UTF-8.
    """
    content = small_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}: is malformed (line {line} holds the byte 0x{content[error.start]:02x}, which is no UTF-8), "
            "expected text in UTF-8; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
        ) from error
