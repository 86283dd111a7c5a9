"""What comes of a scan: products, each of a kind by which it is written, named, told and drawn.

Writer, sidecar, page, index and `verify` ask for the kind and never for the name: a new product touches none of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.preprocessing.window import Window
from pipeline.scans import Scan

ProductKind = Literal["image", "difference", "mask", "map", "number"]


@dataclass(frozen=True)
class Product:
    """One thing made from a scan.

    Args:
        name: short, for file names, e.g. `pseudohealthy`.
        kind: `image`, an image of the scan's kind in its stored units; `difference` of two such; `mask`, uint8, 1
            inside; `map`, float32 values in `units`; `number`, one value in `units`.
        voxels: shape (X, Y, Z) of the scan; of a number, ().
        units: of the values, e.g. `years`; `scan` are those of the scan, and a mask has none.
        title: for headings, e.g. `pseudo-healthy`.
        meaning: a sentence for sidecars, without a full stop.
    """

    name: str
    kind: ProductKind
    voxels: NDArray[Any]
    units: str
    title: str
    meaning: str

    @property
    def heading(self) -> str:
        """The title as a noun, e.g. `pseudo-healthy image`."""
        return f"{self.title} image" if self.kind == "image" else self.title

    @property
    def value(self) -> float:
        """Of a number."""
        return float(self.voxels)


@dataclass(frozen=True)
class Figure:
    """One number about a result that describes itself: sidecar, page, index and tables read it here.

    Args:
        name: in tables and sidecars, e.g. `ChangedMl`.
        label: for headings, e.g. `Changed`.
        value: the number; None where it cannot be given.
        units: of the value, e.g. `ml`, `% of edited`; empty for none.
        digits: behind the decimal point.
        detail: a phrase for the page.
        leading: also a column of the index; the first such figure of a result orders it, the largest first.
    """

    name: str
    label: str
    value: float | None
    units: str
    digits: int
    detail: str = ""
    leading: bool = False

    @property
    def text(self) -> str:
        """The value with its digits; a dash where it cannot be given."""
        return "–" if self.value is None else f"{self.value:.{self.digits}f}"


@dataclass(frozen=True)
class Result:
    """All that was made from one scan.

    Args:
        scan: the input.
        products: at least one, the main one first.
        region: where the method was allowed to change the scan, or looked for what it reports, bool, shape (X, Y, Z).
        window: what the network was shown as [0, 1], in scan units.
        notes: what the user should know, one sentence each.
        warnings: why the result needs a look, one sentence each.
        steps: what was done to the scan before inference, as a sidecar records it.
        figures: numbers about the result.
        facts: further entries of the sidecar.
        made: how a methods section begins, e.g. `A pseudo-healthy version of the scan was synthesised`.
        method: further sentences for it, the first before the steps, the others after them.
        shown: products that pictures show beside, and that are not written.
    """

    scan: Scan
    products: tuple[Product, ...]
    region: NDArray[np.bool_]
    window: Window
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    figures: tuple[Figure, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    made: str = "The scan was processed"
    method: tuple[str, ...] = ()
    shown: tuple[Product, ...] = ()

    @property
    def main(self) -> Product:
        """What was asked for; the others go with it."""
        return self.products[0]

    def first(self, kind: ProductKind) -> Product | None:
        """The first product of a kind."""
        return next((product for product in self.products if product.kind == kind), None)

    def pictured(self, kind: ProductKind) -> list[Product]:
        """All products of a kind that pictures show; of masks the first is what histograms count apart."""
        return [product for product in (*self.products, *self.shown) if product.kind == kind]
