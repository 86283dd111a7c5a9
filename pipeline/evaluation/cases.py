"""Three cases of an evaluation to look at: the best, the median and the worst volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Example:
    """One slice to look at.

    Attributes:
        title: `best`, `median` or `worst`.
        subject: whose slice.
        place: its index in the subject's slab.
        score: of the whole volume, in the metric that the cases are chosen by: healthiness, or Dice.
        image: input in [0, 1], shape (right, anterior).
        lesion: annotated lesion, bool, same shape.
        pseudo_healthy: the method's image, as `image`; None of a method that makes none.
        predicted: lesion that the judge sees in it, or that a segmenter found in the input, bool, same shape.
        spacing_mm: pixel size along (right, anterior).
        reconstruction: what the method's way back makes of its image, as `image`; None of a method that has none.
    """

    title: str
    subject: str
    place: int
    score: float
    image: NDArray[np.float32]
    lesion: NDArray[np.bool_]
    pseudo_healthy: NDArray[np.float32] | None
    predicted: NDArray[np.bool_]
    spacing_mm: tuple[float, float]
    reconstruction: NDArray[np.float32] | None = None


def best_median_worst(ordered: Sequence[Thing]) -> dict[str, Thing]:
    """Of things ordered from the best: `best`, `median` and `worst`, the first two names where there are but two."""
    last = len(ordered) - 1
    # In this order, so that one or two volumes are called best and worst.
    chosen = {0: "best", last: "worst"} if last < 2 else {0: "best", last // 2: "median", last: "worst"}
    return {title: ordered[rank] for rank, title in chosen.items()}
