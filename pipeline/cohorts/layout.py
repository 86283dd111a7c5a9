"""Layouts register themselves by name; a new one is a new file, named in this package's `__init__`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.cohorts.case import Entry

Finder = Callable[[Path, str | None], list[Entry]]


@dataclass(frozen=True)
class Layout:
    """One way in which a cohort lies on disk.

    Attributes:
        name: what `--layout` calls it.
        example: paths that a user recognises it by.
        find: (cohort, modality) to what it holds, by file names alone.
    """

    name: str
    example: str
    find: Finder


LAYOUTS: dict[str, Layout] = {}


def register(name: str, example: str) -> Callable[[Finder], Finder]:
    """Make a finder known as the layout `name`."""

    def known(find: Finder) -> Finder:
        LAYOUTS[name] = Layout(name, example, find)
        return find

    return known
