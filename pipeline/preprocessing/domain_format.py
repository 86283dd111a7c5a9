"""What a bundle's metadata hold under `training_domain`, checked before a scan is compared with it."""

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic import ValidationError as Invalid

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort_format import SlabSettings

FORMAT = 1
# Of intensity, in border and detail; and parts of the box around head or body, along (slices, right, anterior).
QUANTILES = 25
LAYOUT = (6, 12, 12)
PARTS = math.prod(LAYOUT)


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("expected the lower end first")
    return ends


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
RangeMm = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ordered)]
Quantiles = Annotated[list[float], Field(min_length=QUANTILES, max_length=QUANTILES)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class Kind(_Record):
    """Whole heads, or skull-stripped brains, of a training.

    Attributes:
        scans: how many.
        ring: from the least to the most loss of brightness from the border inwards.
        extent_mm: of head or body along right and anterior.
        border, detail: mean quantiles; each with the mean distance of the volumes from them.
        limit: which distance is unusual; None where there were too few volumes to tell.
    """

    scans: PositiveInt
    ring: Range
    extent_mm: tuple[RangeMm, RangeMm]
    border: Quantiles
    border_spread: NonNegativeFloat
    detail: Quantiles
    detail_spread: NonNegativeFloat
    limit: PositiveFloat | None


class Domain(_Record):
    """The training volumes of a cohort in numbers, as `pipeline.preprocessing.domain.describe` gives them."""

    format: Literal[1]
    slab: SlabSettings
    scans: PositiveInt
    contrasts: Annotated[list[str], Field(min_length=1)]
    thickness_mm: RangeMm
    slice_spacing_mm: RangeMm
    pixel_spacing_mm: RangeMm
    layout: Annotated[list[float], Field(min_length=PARTS, max_length=PARTS)]
    kinds: Annotated[dict[Literal["whole", "stripped"], Kind], Field(min_length=1)]


def check_domain(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a bundle was trained on, as its metadata say; None where they say nothing, or in another format.

    Raises:
        UsageError: if they are not as `phs-pipeline train` writes them.
    """
    domain = metadata.get("training_domain")
    if domain is None or (
        isinstance(domain, dict) and type(domain.get("format")) is int and domain["format"] != FORMAT
    ):
        return None
    try:
        return Domain.model_validate_json(json.dumps(domain)).model_dump()
    except Invalid as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(
            "configs/metadata.json of the bundle: its training_domain is not as `phs-pipeline train` writes it "
            f"({'.'.join(['training_domain', *map(str, first['loc'])])}: {first['msg']}); restore the file"
        ) from error
