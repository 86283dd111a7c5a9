"""A metric that describes itself: what it is called, needs and means, and how it is computed."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from torch import Tensor

Better = Literal["higher", "lower"]
Level = Literal["slice", "volume", "patient", "pooled"]

# A value as good as a perfect one, up to the rounding of 32-bit numbers.
ROUNDING = 1e-6


class Columns(Protocol):
    """Columns of a table by name, all of one length: those of a frame, or arrays."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True)
class Metric:
    """One number about a predictor, described in one place; reports and tables read there what they show of it.

    A metric of level `slice` is measured on each slice. One of another level counts `parts` on each slice, or on each
    scan, which are added up over the volume; `combine` makes the number from the rows of one volume, of all volumes of
    a patient, or of all volumes (`pooled`). Above its level means are taken: of slices for a volume, of volumes for a
    patient, and of patients.

    Attributes:
        name: column in tables, key in `summary.json`.
        label: heading, with the unit if there is one.
        definition: what is measured, with its source; a clause without full stop.
        digits: decimals to show.
        better: whether higher or lower values are better.
        needs: names of the fields that `measure` is called with: `image` (x_p), `twin` (x_s), `mask` (lesion),
            `foreground`, `truth` (healthy), `sizes` (each pixel's lesion's, by number in `lesion_size.SIZES`),
            `translated` and `target_image` (what a translation between modalities made, and should have made),
            `prediction` (a mask or a number), `target` (a number), `label` (a class), `found` (lesion that the
            evaluation segmentor sees in the twin), `spacing_mm` (of pixels), `voxel_ml`; of the method's own networks
            `reconstruction`, `found_again` (as `found`, in the reconstruction) and `own_found` (lesion that its own
            segmentor sees in `image`).
            Images and masks have the shape (N, 1, H, W).
        level: of which the number is one.
        perfect: the value of a perfect result; None where there is none.
        perfect_word: what a perfect result is called where it is no achievement ("identical": a control that leaves
            normal tissue alone), so that it is told by word, and neither ranked nor tested; empty where it is one.
        headline: shown on the command line and in studies.
        ranked: whether a better value is a better method; False for numbers that stand beside others.
        factor: from a value to the label's unit, for example 100 where a share is shown in percent.
        measure: from the needed fields, by name, to one value a slice, shape (N,), `nan` where there is none; or, for
            a metric of another level, to such values by name of the part.
        combine: from the rows of a table, with a column for each part, to the number; `nan` where there is none.
    """

    name: str
    label: str
    definition: str
    digits: int
    better: Better
    needs: tuple[str, ...]
    level: Level
    perfect: float | None = None
    perfect_word: str = ""
    headline: bool = False
    ranked: bool = True
    factor: float = 1.0
    measure: Callable[..., Any] | None = field(default=None, compare=False, repr=False)
    combine: Callable[[Columns], float] | None = field(default=None, compare=False, repr=False)

    @property
    def heading(self) -> str:
        """The label with an arrow in the direction of better."""
        return f"{self.label} {'↑' if self.better == 'higher' else '↓'}"

    def best(self, values: Collection[float]) -> float:
        """The best of some values."""
        return max(values) if self.better == "higher" else min(values)

    def is_perfect(self, values: pd.Series) -> bool:
        """Whether all values are those that `perfect_word` stands for."""
        if self.perfect is None or not self.perfect_word:
            return False
        return bool(np.isclose(values, self.perfect, rtol=0, atol=ROUNDING).all())

    def text(self, mean: float | None, missing: str = "–") -> str:
        """A value with the metric's digits; `missing` where there is none."""
        return missing if mean is None or math.isnan(mean) else f"{self.factor * mean:.{self.digits}f}"

    def spread(self, mean: float, sd: float | None) -> str:
        """Mean ± standard deviation."""
        return f"{self.text(mean)} ± {self.text(sd)}"

    def record(self) -> dict[str, Any]:
        """The description as JSON can hold it."""
        described = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in COMPUTED}
        infinite = self.perfect is not None and math.isinf(self.perfect)
        return {**described, "needs": list(self.needs), "perfect": "inf" if infinite else self.perfect}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Metric":
        """A description that `record` wrote; it can be shown, but not measured.

        Raises:
            KeyError, TypeError, ValueError: if it is none.
        """
        known = {one.name for one in fields(cls)} - COMPUTED
        if record["better"] not in ("higher", "lower") or set(record) != known:
            raise ValueError(f"no description of a metric: {record!r}")
        perfect = record["perfect"]
        described = {**record, "needs": tuple(record["needs"]), "perfect": None if perfect is None else float(perfect)}
        return cls(**described)


COMPUTED = {"measure", "combine"}


def metrics_for(registry: Mapping[str, Metric], available: Collection[str]) -> list[Metric]:
    """The metrics whose needs are met, in the registry's order."""
    return [metric for metric in registry.values() if set(metric.needs) <= set(available)]


def measured(metric: Metric, available: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a metric measures on some slices or on a scan, by column of the table."""
    if metric.measure is None:
        raise ValueError(f"the metric {metric.name!r} was read from a report and cannot be measured")
    found = metric.measure(**{name: available[name] for name in metric.needs})
    return dict(found) if isinstance(found, Mapping) else {metric.name: found}
