"""Slices that a study shows: some patients, each by the slice with the largest lesion."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.volumes import Volume
from pipeline.mosaic import body_box, grey, outlined, square
from pipeline.preprocessing.foreground import AIR

ROWS = 6


@dataclass(frozen=True)
class Shown:
    """One slice of a volume.

    Attributes:
        volume: among those that were given, by index.
        row: of the volume's tensors.
        image: x_p in [0, 1], shape (H, W).
        lesion: bool, same shape.
        spacing_mm: pixel size along (right, anterior).
    """

    volume: int
    row: int
    image: NDArray[np.float32]
    lesion: NDArray[np.bool_]
    spacing_mm: tuple[float, float]

    def panel(self, image: NDArray[np.floating], mask: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """An image of this slice, cut to the body, with the outline of a mask if one is given."""
        body = body_box(self.image > AIR)
        drawn = grey(image[body]) if mask is None else outlined(image[body], mask[body])
        return square(drawn, self.spacing_mm)


def shown_slices(volumes: Iterable[Volume]) -> list[Shown]:
    """Each patient's slice with the largest lesion, in the patients' order; those without a lesion have none."""
    largest: dict[str, tuple[int, Shown]] = {}
    for index, volume in enumerate(volumes):
        areas = volume.lesion.sum(dim=(1, 2, 3))
        row = int(areas.argmax())
        if int(areas[row]) > largest.get(volume.patient, (0, None))[0]:
            image, lesion = (tensor[row, 0].cpu().numpy() for tensor in (volume.image, volume.lesion))
            largest[volume.patient] = (int(areas[row]), Shown(index, row, image, lesion, volume.spacing_mm))
    return [shown for _, shown in largest.values()]


def spread(items: Sequence[Any], rows: int = ROWS) -> list[Any]:
    """At most so many of them, spread evenly."""
    return [items[place] for place in sorted({round(place) for place in np.linspace(0, len(items) - 1, rows)})]
