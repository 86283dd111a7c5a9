"""Shares of an evaluation: each run measures some of the volumes, and one call makes the report of all.

A share is `<part>_of_<parts>.rows`, the figures of its slices, and `.json` beside it, written last: with what it was
measured, and sums over its volumes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.evaluation.slice_table import SliceTable
from pipeline.files import TABLE_FILE, small_text, write_text

FOLDER = "shares"
NAME = re.compile(r"(\d{1,6})_of_(\d{1,6})\.json")


@dataclass(frozen=True)
class Share:
    """What one run has measured.

    Attributes:
        wanted: what was measured with what; shares of one evaluation agree in it.
        slices: the figures of its volumes, in the order of the cohort.
        sums: what else was counted over these, as JSON holds it.
    """

    wanted: Mapping[str, Any]
    slices: SliceTable
    sums: Mapping[str, Any]


def write_share(folder: Path, part: tuple[int, int], share: Share) -> None:
    """Write a share into a report's folder, over an earlier one of this number.

    Args:
        folder: of the report.
        part: its number, from 0, and of how many.
        share: to write.

    Raises:
        OutputError: if it cannot be written.
    """
    path = _path(folder, part)
    path.unlink(missing_ok=True)  # until the figures are there
    about = {
        "wanted": dict(share.wanted),
        "slices": share.slices.write(path.with_suffix(".rows")),
        "sums": dict(share.sums),
    }
    write_text(path, json.dumps(about))


def has_shares(folder: Path) -> bool:
    """Whether a report's folder holds shares that no report was made of yet."""
    return bool(_found(folder))


def read_shares(folder: Path, wanted: Mapping[str, Any]) -> list[Share]:
    """All shares of a report's folder, in order.

    Args:
        folder: of the report.
        wanted: what they were to be measured with.

    Raises:
        UsageError: if one is missing, damaged, or was measured with something else.
    """
    found = _found(folder)
    counts = {parts for _, parts in found}
    if len(counts) > 1:
        raise UsageError(
            f"{folder}: holds shares of {' and of '.join(map(str, sorted(counts)))}, expected those of one number; "
            f"remove {folder / FOLDER} and measure them again"
        )
    (parts,) = counts
    for part in range(parts):
        if (part, parts) not in found:
            raise UsageError(
                f"{folder}: share {part} of {parts} is missing; give the same command with --num-parts {parts} "
                f"--part-id {part}"
            )
    shares = [_read(folder, (part, parts)) for part in range(parts)]
    # As it was written.
    held = json.loads(json.dumps(dict(wanted)))
    for part, share in enumerate(shares):
        if other := [name for name in {**held, **share.wanted} if held.get(name) != share.wanted.get(name)]:
            raise UsageError(
                f"{folder}: share {part} was measured with another {', '.join(other)} than is asked for; give the "
                "options that it was started with, or measure it again"
            )
    return shares


def remove_shares(folder: Path) -> None:
    """Remove the shares of a report that is made."""
    for part in _found(folder):
        path = _path(folder, part)
        path.unlink(missing_ok=True)
        path.with_suffix(".rows").unlink(missing_ok=True)
    if (folder / FOLDER).is_dir() and not any((folder / FOLDER).iterdir()):
        (folder / FOLDER).rmdir()


def _path(folder: Path, part: tuple[int, int]) -> Path:
    return folder / FOLDER / f"{part[0]}_of_{part[1]}.json"


def _found(folder: Path) -> set[tuple[int, int]]:
    if not (folder / FOLDER).is_dir():
        return set()
    names = (NAME.fullmatch(path.name) for path in (folder / FOLDER).iterdir())
    return {(int(name[1]), int(name[2])) for name in names if name}


def _read(folder: Path, part: tuple[int, int]) -> Share:
    path = _path(folder, part)
    try:
        about = json.loads(small_text(path, TABLE_FILE))
        slices = SliceTable.read(path.with_suffix(".rows"), about["slices"])
        return Share(about["wanted"], slices, about["sums"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: damaged, expected a share of an evaluation; give the same command with --num-parts {part[1]} "
            f"--part-id {part[0]} again"
        ) from error
