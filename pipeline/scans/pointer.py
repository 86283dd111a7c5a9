"""Files of git-annex and Git LFS that stand in for content which was never fetched."""

import os
from pathlib import Path

from pipeline.errors import ScanError

# A pointer is a line or three of text.
LONGEST_POINTER = 1024
ANNEX = b"/annex/objects/"
POINTERS = {
    b"version https://git-lfs": ("Git LFS", "git lfs pull"),
    ANNEX: ("git-annex", "datalad get, git annex get"),
}


def is_unfetched(path: Path) -> bool:
    """Whether a path is a link of git-annex to content that is not there."""
    return path.is_symlink() and not path.exists() and ANNEX in os.fsencode(path.readlink())


def check_fetched(path: Path) -> None:
    """Refuse a pointer to content elsewhere.

    Raises:
        ScanError: if the file holds no scan but where to get it.
    """
    if is_unfetched(path):
        raise ScanError(
            f"{path}: is a link of git-annex, expected the file itself; get the file first ({POINTERS[ANNEX][1]})"
        )
    if not path.is_file() or path.stat().st_size > LONGEST_POINTER:
        return
    content = path.read_bytes()
    for mark, (program, command) in POINTERS.items():
        if content.startswith(mark):
            raise ScanError(
                f"{path}: is a pointer of {program}, expected the file itself; get the file first ({command})"
            )
