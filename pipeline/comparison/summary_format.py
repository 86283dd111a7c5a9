"""What `summary.json` of a report holds that tables are made of, checked when it is read."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from pipeline.evaluation.evaluate import FORMAT
from pipeline.metrics.metric import Better, Level

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class MetricRecord(_Record):
    """As `Metric.record` writes it."""

    name: str
    label: str
    definition: str
    digits: Annotated[int, Field(ge=0, le=9)]
    better: Better
    needs: list[str]
    level: Level
    perfect: Finite | Literal["inf"] | None
    perfect_word: str
    headline: bool
    ranked: bool
    factor: Finite


class Score(_Record):
    """A method's mean in a metric."""

    mean: Finite | None
    sd: Finite | None
    n: NonNegativeInt


class Scores(_Record):
    """Of one method, by metric."""

    metrics: dict[str, Score]


class CohortRecord(_Record):
    """What was measured on."""

    sha256: str
    split: str
    slices: NonNegativeInt
    patients: NonNegativeInt
    volumes: NonNegativeInt
    unit: str


class DiceRecord(_Record):
    """The judge's own Dice on a split."""

    pooled: Finite
    mean_per_slice: Finite


class JudgeRecord(_Record):
    """The evaluation segmentor."""

    network: str
    seed: int
    iterations: PositiveInt
    dice: dict[str, DiceRecord | None]
    weights_sha256: str


class SeedScores(_Record):
    """A-Dice of one row over seeds."""

    mean: Finite | None
    sd: Finite | None
    seeds: list[Any]
    collapsed: list[bool]


class ADiceRecord(_Record):
    """A-Dice of all rows."""

    images: dict[str, SeedScores]
    settings: dict[str, Any]
    learned: bool


class Summary(_Record):
    """A report of `phs-pipeline evaluate` on a cohort."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    method: str
    kind: str
    provenance: dict[str, Any] | None = None
    cohort: CohortRecord
    judge: JudgeRecord | None
    metrics: Annotated[list[MetricRecord], Field(min_length=1)]
    methods: Annotated[dict[str, Scores], Field(min_length=1)]
    a_dice: ADiceRecord | None
