"""The table of all slices of an evaluation, of which a file holds the figures, not memory."""

import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.scores import KEYS, combined_volumes, volume_sums
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


class SliceTable:
    """Rows of `score_rows`, of any number of methods and volumes: eight bytes a figure, in an unnamed file.

    A cohort of 10,000 scans with 60 slices, and five controls, has 3.6 million rows.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="phs-rows-")  # noqa: SIM115  # as long as the table
        weakref.finalize(self, self._file.close)
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
        self._file.write(np.array(figures, np.float64).tobytes())  # None becomes nan
        self._parts.append(
            _Part(tuple(str(rows[0][key]) for key in KEYS), len(rows), self._layouts.setdefault(names, names))
        )
        self._rows += len(rows)
        for name, column in zip(names, zip(*figures, strict=True), strict=True):
            self._counts[name] = self._counts.get(name, 0) + len(rows)
            self._whole[name] = self._whole.get(name, True) and all(isinstance(value, int) for value in column)

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
            size = part.rows * len(part.names)
            read = np.frombuffer(self._file.read(8 * size), np.float64).reshape(part.rows, len(part.names))
            figures[first : first + part.rows, [columns[name] for name in part.names]] = read
            first += part.rows
        frame = pd.DataFrame(figures, columns=list(columns))
        whole = [name for name, count in self._counts.items() if count == self._rows and self._whole[name]]
        frame = frame.astype(dict.fromkeys(whole, np.int64))
        rows = [part.rows for part in parts]
        for place, key in enumerate(KEYS):
            frame.insert(place, key, np.repeat(np.array([part.keys[place] for part in parts], object), rows))
        return frame
