"""Which scans of a BIDS dataset are meant, as BIDS Apps are told: participants, sessions, and a file of filters."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files import read_json

# Entities of anatomical scans, as filters call them and as file names do (BIDS 1.10, Appendix "Entities").
ENTITIES = {
    "subject": "sub",
    "session": "ses",
    "task": "task",
    "acquisition": "acq",
    "ceagent": "ce",
    "reconstruction": "rec",
    "run": "run",
    "echo": "echo",
    "part": "part",
    "chunk": "chunk",
    "space": "space",
    "description": "desc",
}
OTHERS = ("suffix", "datatype", "extension")
ANY = "*"
Filter = Mapping[str, Any]


@dataclass(frozen=True)
class BidsFilter:
    """Of a dataset's scans, those that are asked for.

    Args:
        participants: labels, with or without `sub-`; empty: all.
        sessions: labels, with or without `ses-`; empty: all.
        queries: a scan that one of these fits is kept, from entity to value, values, null (not there) or `*` (there);
            empty: all.
    """

    participants: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    queries: tuple[Filter, ...] = ()

    @classmethod
    def of(cls, participants: Sequence[str], sessions: Sequence[str], filter_file: Path | None) -> "BidsFilter":
        """From what a user gives.

        Raises:
            UsageError: if the file holds something else than filters.
        """
        return cls(
            frozenset(label.removeprefix("sub-") for label in participants),
            frozenset(label.removeprefix("ses-") for label in sessions),
            () if filter_file is None else _queries(filter_file),
        )

    def keeps(self, file: Path) -> bool:
        """Whether a scan, by its name, is asked for."""
        found = entities(file)
        if self.participants and found.get("subject") not in self.participants:
            return False
        if self.sessions and found.get("session") not in self.sessions:
            return False
        return not self.queries or any(_fits(found, query) for query in self.queries)

    def unknown(self, files: Sequence[Path]) -> list[str]:
        """Participants and sessions that are asked for and of which there is no scan, as they stand in file names."""
        found = [entities(file) for file in files]
        return [
            f"{prefix}-{label}"
            for prefix, entity, asked in (
                ("sub", "subject", self.participants),
                ("ses", "session", self.sessions),
            )
            for label in sorted(asked - {each.get(entity) for each in found})
        ]


def entities(file: Path) -> dict[str, str]:
    """What the name and folder of a file of a BIDS dataset say of it.

    >>> entities(Path("sub-01/anat/sub-01_acq-3D_FLAIR.nii.gz"))["acquisition"]
    '3D'
    """
    stem, dot, extension = file.name.partition(".")
    *pairs, suffix = stem.split("_")
    named = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    found = {long: named[short] for long, short in ENTITIES.items() if short in named}
    return {**found, "suffix": suffix, "datatype": file.parent.name, "extension": dot + extension}


def _fits(found: Mapping[str, str], query: Filter) -> bool:
    return all(_is(found.get(entity), wanted) for entity, wanted in query.items())


def _is(found: str | None, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_is(found, each) for each in wanted)
    if wanted is None or found is None:
        return found is wanted
    # `run-01` is run 1.
    return wanted == ANY or _number(found) == _number(str(wanted))


def _number(value: str) -> str:
    return str(int(value)) if re.fullmatch(r"[0-9]+", value) else value


def _queries(file: Path) -> tuple[Filter, ...]:
    """The filters of a file: an object of objects, as fMRIPrep's, whose names are free."""
    read = read_json(file)
    if not file.is_file() or not read or not all(isinstance(query, dict) for query in read.values()):
        raise UsageError(
            f"{file}: holds no filters, expected JSON such as "
            '{"flair": {"suffix": "FLAIR", "acquisition": null}}; correct it'
        )
    for name, query in read.items():
        for entity, wanted in query.items():
            if entity not in (*ENTITIES, *OTHERS):
                raise UsageError(
                    f"{file}: {name} filters by {entity!r}, expected one of {', '.join((*ENTITIES, *OTHERS))}"
                )
            if not all(each is None or isinstance(each, str | int) for each in _listed(wanted)):
                raise UsageError(f"{file}: {name} has {wanted!r} for {entity}, expected text, a number, null or a list")
    return tuple(read.values())


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]
