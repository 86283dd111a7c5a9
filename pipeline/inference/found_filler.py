"""A translator made of two predictors: a segmenter finds lesions, and a filler fills them; nothing else is touched."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import UsageError
from pipeline.inference.anomaly import AnomalySegmenter
from pipeline.inference.change import SMALLEST_ML, amounts, without_specks
from pipeline.inference.filler import Fill, Spread
from pipeline.inference.inputs import Inputs, Seen, see
from pipeline.inference.mask_check import Checked, check_mask, fill_warnings, grown
from pipeline.inference.network import GridNetwork
from pipeline.inference.products import Product, ProductKind, Result
from pipeline.inference.segmenter import Segmenter
from pipeline.inference.stored import add_intensity, stored_difference
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule

# How much of healthy tissue around what was found is filled too: the rim of a lesion is neither bright nor healthy.
# Chosen on validation patients, see the card of the bundle `lesion`.
GROW_MM = 3.0
# Of the probability: lower than where a mask is cut, since a lesion that is left does more harm than some healthy
# tissue that is filled. Chosen on the same patients.
THRESHOLD = 0.1
IMAGE = "The scan with the lesions that were found filled; all other voxels are those of the scan"
ANOMALY = "Input minus pseudo-healthy, in the scan's units"
LESION = "What was found and filled: 1 lesion and its rim, 0 elsewhere"
PROBABILITY = "Probability of lesion by the network that looked for it, not calibrated"
FOUND = (
    "A network looked for lesions; what it gave a probability of {:g} or more, in pieces of {:g} ml or more, was grown "
    "by {:g} mm and filled."
)
UNTOUCHED = "All other voxels keep their exact values."
NOTHING = "no lesion was found, and the scan was left as it is"


class AnyFiller(Protocol):
    """What it needs of a filler, see `pipeline.inference.filler`."""

    samples: int | None

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """By the id in the configs."""
        ...

    def fill(
        self, windowed: NDArray[np.float32], hole: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
    ) -> NDArray[np.float32]:
        """As `Filler.fill`."""
        ...

    def fill_seen(self, seen: Seen, hole: NDArray[np.bool_]) -> Fill:
        """As `FillsMask.fill_seen`."""
        ...

    def draw(self, samples: int) -> None:
        """As `FillsMask.draw`."""
        ...

    def spread(self, seen: Seen, region: NDArray[np.bool_], hole: NDArray[np.bool_], made: Fill) -> Spread:
        """As `FillsMask.spread`."""
        ...


class FoundFiller:
    """Finds lesions and fills them: a pseudo-healthy twin without a mask, and without a change to healthy tissue.

    The products are `pseudohealthy`, `anomaly` (input − pseudo-healthy), `lesion`, what was filled,
    `lesionprobability` and, where asked for, `uncertainty`, the filler's. A scan in which nothing is found is left
    bit-identical, and nothing in it is uncertain.

    Args:
        segmenter: what it finds first, of its labels, is filled.
        filler: of the same number of sequences: one.
        grow_mm: by how much what was found is grown, within head or body.
        threshold: a voxel is filled if its probability of lesion is at least this.

    Raises:
        UsageError: if the segmenter maps anomalies, which are no probabilities.
    """

    kind = "translator"
    main: tuple[str, ProductKind] = ("pseudohealthy", "image")
    output_types = frozenset({"image"})
    joins_slices = True  # lesions are found, and filled, in three dimensions

    def __init__(
        self, segmenter: Segmenter, filler: AnyFiller, grow_mm: float = GROW_MM, threshold: float = THRESHOLD
    ) -> None:
        if isinstance(segmenter, AnomalySegmenter):
            raise UsageError(
                "-b: found a bundle that maps differences to healthy slices, expected one that finds lesions with a "
                "probability; write the mask with `phs-pipeline segment`, and fill it with `phs-pipeline fill --mask`"
            )
        self.segmenter = segmenter
        self.filler = filler
        self.grow_mm = grow_mm
        self.threshold = threshold

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the sequences that it takes."""
        return self.segmenter.channels

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """Of both, the one that looks for lesions first."""
        of_filler = {f"filler::{name}": network for name, network in self.filler.networks.items()}
        return {**self.segmenter.networks, **of_filler}

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.segmenter.device

    @property
    def runner(self) -> GridNetwork:
        """Of the network that looks for lesions."""
        return self.segmenter.runner

    @property
    def window(self) -> WindowRule:
        """How the intensity window is chosen."""
        return self.segmenter.window

    @property
    def slab(self) -> Slab | None:
        """Where lesions are looked for."""
        return self.segmenter.slab

    @slab.setter
    def slab(self, slab: Slab) -> None:
        self.segmenter.slab = slab

    @property
    def flip_average(self) -> bool:
        """Whether lesions are looked for in the mirror image, too; a filler averages over flips always."""
        return self.segmenter.flip_average

    @flip_average.setter
    def flip_average(self, average: bool) -> None:
        self.segmenter.flip_average = average

    @property
    def uncertainty(self) -> bool:
        """Whether it is told how far the fills may be from the truth.

        Raises:
            UsageError: when it is set, if the error of the filler was not calibrated.
        """
        return self.filler.samples is not None

    @uncertainty.setter
    def uncertainty(self, wanted: bool) -> None:
        if wanted:
            self.filler.draw(0)
        else:
            self.filler.samples = None

    @property
    def settings(self) -> dict[str, Any]:
        """What a user may change of it, as records keep it."""
        return {**self.segmenter.settings, "GrowMm": self.grow_mm, "Uncertainty": self.uncertainty}

    def residual(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
        """What it changes, as `Translator.residual`: 0 outside the lesions that it finds.

        Args:
            windowed: axial slices in [0, 1], shape (slices, C, right, anterior), without gaps.
            spacing_mm: voxel size along (slices, right, anterior).
        """
        head = foreground(windowed[:, 0])
        hole = self._hole(self.segmenter.probabilities(windowed, spacing_mm)[:, 0], head, spacing_mm)
        if not hole.any():
            return np.zeros(hole.shape, dtype=np.float32)
        filled = self.filler.fill(windowed, hole, spacing_mm)
        return np.where(hole, filled - windowed[:, 0], np.float32(0))

    def _hole(
        self, probability: NDArray[np.float32], head: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
    ) -> NDArray[np.bool_]:
        voxel_ml = float(np.prod(spacing_mm)) / 1000
        hole = without_specks((probability >= self.threshold) & head, SMALLEST_ML, voxel_ml)
        return grown(hole, head, spacing_mm, self.grow_mm) if hole.any() and self.grow_mm else hole

    def __call__(self, inputs: Inputs) -> Result:
        """Make the pseudo-healthy twin of a scan.

        With a lesion mask, that is filled and no other lesion is looked for.

        Raises:
            ScanError: if the mask lies on another grid or is empty, a step fails, or a network gives no numbers.
        """
        scan = inputs.scan
        seen = see(inputs, self.window, self.channels)
        searched, _, notes = seen.slab(self.slab)
        probability = np.zeros(seen.axial.shape, dtype=np.float32)
        if inputs.mask is None:
            span = seen.span(searched)
            found = self.segmenter.probabilities(seen.windowed[span], seen.spacing_mm)
            probability[span] = found[:, 0] * searched[span]
            hole = self._hole(probability, searched, seen.spacing_mm)
            why = fill_warnings(seen.windowed[:, 0], hole, seen.foreground, seen.spacing_mm) if hole.any() else []
            checked = Checked((), why)
        else:
            hole, notes = seen.mask(inputs.mask)
            searched = hole
            checked = check_mask(seen.axial, seen.windowed[:, 0], hole, seen.foreground, seen.spacing_mm)
        made = self.filler.fill_seen(seen, hole) if hole.any() else Fill(seen.axial, "", [NOTHING])
        change = seen.on_scan(np.where(hole, made.axial - seen.axial, np.float32(0)))
        region, filled = seen.region_on_scan(searched), seen.region_on_scan(hole)
        spread = self.filler.spread(seen, filled, hole, made) if hole.any() else Spread()
        stored, more = add_intensity(scan.stored.copy(order="K"), filled, change[filled], scan.slope)
        anomaly = stored_difference(scan.stored, stored)
        removed = anomaly.astype(np.float32) * np.float32(scan.slope)
        maps = (
            ()
            if inputs.mask is not None
            else (
                Product(
                    "lesionprobability",
                    "map",
                    seen.on_scan(probability, in_units=False),
                    "1",
                    "probability of lesion",
                    PROBABILITY,
                ),
            )
        )
        return Result(
            scan=scan,
            products=(
                Product("pseudohealthy", "image", stored, "scan", "pseudo-healthy", IMAGE),
                Product("anomaly", "difference", anomaly, "scan", "anomaly map", ANOMALY),
                Product("lesion", "mask", filled.astype(np.uint8), "", "lesion mask", LESION),
                *maps,
                *spread.products,
            ),
            region=region,
            window=seen.window,
            notes=[*seen.notes, *seen.told(notes), *made.notes, *more, *spread.notes],
            warnings=checked.warnings,
            steps=seen.steps,
            figures=(*amounts(removed, region, filled, seen.window, scan), *spread.figures, *checked.figures),
            facts={
                "EditedVoxels": int(filled.sum()),
                "ChangedVoxels": int((stored != scan.stored).sum()),
                "Threshold": self.threshold,
            },
            made="A pseudo-healthy version of the scan was synthesised",
            method=(self._told(inputs), *((made.method,) if made.method else ()), UNTOUCHED, *spread.method),
        )

    def _told(self, inputs: Inputs) -> str:
        if inputs.mask is not None:
            return "The lesion mask that was given was filled."
        return FOUND.format(self.threshold, SMALLEST_ML, self.grow_mm)
