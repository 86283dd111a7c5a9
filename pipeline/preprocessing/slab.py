"""The slab of middle axial slices: the papers leave out the top and bottom of the head."""

import math
from dataclasses import dataclass

from pipeline.errors import ScanError


@dataclass(frozen=True)
class Slab:
    """How much of the middle to keep: a number of slices, or a thickness.

    PHS-GAN keeps 60 middle slices of 1 mm. A thickness keeps the same anatomy when slices are thicker.

    Args:
        slices: number of slices, or None.
        thickness_mm: thickness in millimetres, or None. With neither, the whole volume is kept.
    """

    slices: int | None = None
    thickness_mm: float | None = 60.0

    def __post_init__(self) -> None:
        if self.slices is not None and self.thickness_mm is not None:
            raise ValueError("a slab is given as a number of slices or as a thickness, not both")
        if (self.slices is not None and self.slices < 1) or (
            self.thickness_mm is not None and not 0 < self.thickness_mm < math.inf
        ):
            raise ValueError(f"a slab needs at least one slice, found {self.slices} slices and {self.thickness_mm} mm")

    def range(self, count: int, spacing_mm: float) -> tuple[int, int]:
        """First slice and one past the last, of `count` slices that lie `spacing_mm` apart.

        A scan with fewer slices than asked for is kept whole.

        >>> Slab(slices=60, thickness_mm=None).range(155, 1.0)
        (47, 107)
        >>> Slab(thickness_mm=60).range(23, 5.0)
        (5, 17)
        """
        if count < 1:
            raise ScanError("found no axial slices")
        wanted = self.slices
        if wanted is None:
            wanted = count if self.thickness_mm is None else max(1, round(self.thickness_mm / spacing_mm))
        wanted = min(wanted, count)
        first = (count - wanted) // 2
        return first, first + wanted


WHOLE = Slab(thickness_mm=None)
