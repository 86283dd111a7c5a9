"""The table of all slices of an evaluation, of which a file holds the figures, not memory."""

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluation.scores import KEYS, combined_volumes, volume_sums
from pipeline.files import writing_temporary, written_aside
from pipeline.metrics.metric import Metric

PLACE = "slice"
# Rows of a frame, about: enough for pandas to work on columns, few enough to be small.
FRAME_ROWS = 20_000


@dataclass(frozen=True)
class _Part:
    """Rows of one method and volume: `KEYS`, how many rows, and names of the figures."""

    keys: tuple[str, ...]
    rows: int
    names: tuple[str, ...]

    @property
    def subject(self) -> str:
        """Whose volume."""
        return self.keys[KEYS.index("subject")]


def _discard(file: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # a full disk, of which was told when it was written
        file.close()


class SliceTable:
    """Rows of `score_rows`, of any number of methods and volumes: eight bytes a figure, in an unnamed file.

    A cohort of 10,000 scans with 60 slices, and five controls, has 3.6 million rows.

    Raises:
        OutputError: if the folder for temporary files cannot be written or is full; by its methods, too.
    """

    def __init__(self) -> None:
        with writing_temporary():
            self._file = tempfile.TemporaryFile(prefix="phs-rows-")  # noqa: SIM115  # as long as the table
        weakref.finalize(self, _discard, self._file)
        self._parts: list[_Part] = []
        self._layouts: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._rows = 0
        # By figure, in the order of their first rows: how many rows have it, and whether it is a whole number in all.
        self._counts: dict[str, int] = {}
        self._whole: dict[str, bool] = {}

    def __len__(self) -> int:
        return self._rows

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append all rows of one method and volume, as `score_rows` makes them."""
        if not rows:
            return
        names = tuple(name for name in rows[0] if name not in KEYS)
        figures = [[row[name] for name in names] for row in rows]
        columns = zip(names, zip(*figures, strict=True), strict=True)
        whole = {name: all(isinstance(value, int) for value in column) for name, column in columns}
        part = _Part(tuple(str(rows[0][key]) for key in KEYS), len(rows), names)
        self._append(part, np.array(figures, np.float64), whole)  # None becomes nan

    def _append(self, part: _Part, figures: NDArray[np.float64], whole: Mapping[str, bool]) -> None:
        with writing_temporary():
            self._file.write(figures.tobytes())
            self._file.flush()  # else it would fail where the rows are read
        self._count(part, whole)

    def _count(self, part: _Part, whole: Mapping[str, bool]) -> None:
        """A part whose figures are in the file."""
        self._parts.append(_Part(part.keys, part.rows, self._layouts.setdefault(part.names, part.names)))
        self._rows += part.rows
        for name in part.names:
            self._counts[name] = self._counts.get(name, 0) + part.rows
            self._whole[name] = self._whole.get(name, True) and whole[name]

    @property
    def subjects(self) -> list[str]:
        """Whose volumes, in the order of their first rows."""
        return list(dict.fromkeys(part.subject for part in self._parts))

    def frames(self) -> Iterator[pd.DataFrame]:
        """The table, some volumes at a time: `KEYS`, `slice`, and a column for each figure that any row has."""
        self._file.seek(0)
        waiting: list[_Part] = []
        for part in self._parts:
            waiting.append(part)
            if sum(each.rows for each in waiting) >= FRAME_ROWS:
                yield self._frame(waiting)
                waiting = []
        if waiting:
            yield self._frame(waiting)

    def volumes(self, metrics: Sequence[Metric]) -> pd.DataFrame:
        """Each volume's row, as `score_volumes` makes it of all rows at once."""
        sums = pd.concat([volume_sums(frame, metrics) for frame in self.frames()])
        return combined_volumes(sums, metrics)

    def _frame(self, parts: Sequence[_Part]) -> pd.DataFrame:
        columns = {name: place for place, name in enumerate(self._counts)}
        figures = np.full((sum(part.rows for part in parts), len(columns)), np.nan)
        first = 0
        for part in parts:
            figures[first : first + part.rows, [columns[name] for name in part.names]] = self._next(part)
            first += part.rows
        frame = pd.DataFrame(figures, columns=list(columns))
        whole = [name for name, count in self._counts.items() if count == self._rows and self._whole[name]]
        frame = frame.astype(dict.fromkeys(whole, np.int64))
        rows = [part.rows for part in parts]
        for place, key in enumerate(KEYS):
            frame.insert(place, key, np.repeat(np.array([part.keys[place] for part in parts], object), rows))
        return frame

    def _next(self, part: _Part) -> NDArray[np.float64]:
        """The figures of the part that the file is at."""
        size = part.rows * len(part.names)
        return np.frombuffer(self._file.read(8 * size), np.float64).reshape(part.rows, len(part.names))

    def write(self, path: Path) -> dict[str, Any]:
        """Write the figures into a file; returns what `read` has to know beside it, as JSON holds it."""
        self._file.seek(0)
        with written_aside(path) as aside, aside.open("wb") as written:
            shutil.copyfileobj(self._file, written)
        layouts = list(self._layouts)
        parts = [[*part.keys, part.rows, layouts.index(part.names)] for part in self._parts]
        return {"layouts": layouts, "parts": parts, "whole": self._whole}

    @classmethod
    def read(cls, path: Path, about: Mapping[str, Any]) -> "SliceTable":
        """What `write` has written.

        Raises:
            ValueError: if file and `about` do not belong together; others if `about` is of something else.
        """
        table = cls()
        whole = {str(name): bool(value) for name, value in about["whole"].items()}
        layouts = [tuple(map(str, names)) for names in about["layouts"]]
        parts = [_Part(tuple(map(str, keys)), int(rows), layouts[place]) for *keys, rows, place in about["parts"]]
        if path.stat().st_size != sum(8 * part.rows * len(part.names) for part in parts):
            raise ValueError(f"{path}: has another size than its rows")
        with path.open("rb") as file, writing_temporary():
            shutil.copyfileobj(file, table._file)
            table._file.flush()
        for part in parts:
            table._count(part, whole)
        return table

    @classmethod
    def joined(cls, tables: Sequence["SliceTable"], subjects: Iterable[str]) -> "SliceTable":
        """The rows of several tables, subject after subject; each subject's are in one of them.

        Args:
            tables: whose subjects are in the order of `subjects`, each.
            subjects: all of them.
        """
        joined = cls()
        waiting = [list(reversed(table._parts)) for table in tables]
        for table in tables:
            table._file.seek(0)
        for subject in subjects:
            for table, parts in zip(tables, waiting, strict=True):
                while parts and parts[-1].subject == subject:
                    part = parts.pop()
                    joined._append(part, table._next(part), table._whole)
        return joined
