"""Fillers: image and mask in, image out; voxels outside the mask keep their exact value."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference.fill_error import FillError, place_in
from pipeline.inference.inputs import Inputs, Seen, see
from pipeline.inference.mask_check import check_mask, grown
from pipeline.inference.network import GridNetwork, NetworkPredictor, check_whole
from pipeline.inference.products import Figure, Product, ProductKind, Result
from pipeline.inference.stored import add_intensity, stored_difference
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import Grid, VolumeGrid
from pipeline.preprocessing.harmonic import harmonic_fill
from pipeline.preprocessing.window import WindowRule

FILLED = "The scan with its lesion mask filled; voxels outside the mask are those of the scan"
DIFFERENCE = "Input minus filled scan, in the scan's units"
MASK = "The lesion mask that was filled"
UNCERTAINTY = (
    "Standard deviation of the fill's error, in the scan's units; ± 1.645 of it held the truth in 90 % of the voxels "
    "of holes planted in healthy tissue"
)
SAMPLE = "The fill with an error drawn from its distribution: plausible in scale and smoothness, not anatomy"
UNLIKE = (
    "the uncertainty was calibrated on scans like those of the training, which this one is not; it may be too small"
)
MOST_SAMPLES = 20
HARMONIC = "The fill solves Laplace's equation in three dimensions, with the tissue around the lesion as boundary."


@dataclass(frozen=True)
class Fill:
    """What was put into a hole.

    Args:
        axial: in the scan's units, shape (slices, right, anterior); outside the hole it says nothing.
        method: how, a sentence.
        notes: for the user.
        is_like_training: whether it was made as where its error was calibrated.
    """

    axial: NDArray[np.float32]
    method: str
    notes: Sequence[str] = ()
    is_like_training: bool = True


class FillsMask(ABC):
    """What fillers have in common: from a mask and a fill of axial intensities to the result.

    Attributes:
        grow_mm: by how much a mask is grown before it is filled.
        error: of its fills, as calibrated on planted truth; None where that was not done.
        samples: how many plausible fills are drawn; None leaves their spread out, too.
        seed: of what is drawn.
    """

    kind = "filler"
    main: tuple[str, ProductKind] = ("filled", "image")
    output_types = frozenset({"image"})
    grow_mm: float = 0.0
    error: FillError | None = None
    samples: int | None = None
    seed: int = 0
    window: WindowRule
    channels: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """What a user may change of it, as records keep it."""
        drawn = {} if self.samples is None else {"Samples": self.samples, "Seed": self.seed}
        return {**({"GrowMm": self.grow_mm} if self.grow_mm else {}), **drawn}

    @abstractmethod
    def fill(
        self, windowed: NDArray[np.float32], hole: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
    ) -> NDArray[np.float32]:
        """What is put into the hole.

        Args:
            windowed: axial slices in [0, 1], shape (slices, C, right, anterior).
            hole: bool, shape (slices, right, anterior).
            spacing_mm: voxel size along (slices, right, anterior).

        Returns:
            The first sequence in [0, 1], shape (slices, right, anterior); equal to the input outside the hole.
        """

    def _try(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> None:
        # A square in the middle: a network may be shown the hole and what is around it alone.
        hole = np.zeros((len(windowed), *windowed.shape[2:]), dtype=bool)
        rows, columns = (slice(3 * side // 8, 5 * side // 8) for side in hole.shape[1:])
        hole[:, rows, columns] = True
        self.fill(windowed, hole, spacing_mm)

    def draw(self, samples: int, seed: int = 0) -> None:
        """Give the spread of plausible fills with each result, and some of them.

        Args:
            samples: how many, from 0 to `MOST_SAMPLES`.
            seed: of what is drawn; the same gives the same error at the same place in space, in all scans.

        Raises:
            UsageError: if the error of the fills was not calibrated.
        """
        check_whole("samples", samples, 0, MOST_SAMPLES)
        if self.error is None:
            raise UsageError(
                "--uncertainty, --samples: found no calibrated error in the bundle's configs/inference.json, expected "
                "`fill_error`; calibrate it with scripts/calibrate_fill.py --write, or leave the option out"
            )
        self.samples, self.seed = samples, seed

    @abstractmethod
    def fill_seen(self, seen: Seen, hole: NDArray[np.bool_]) -> Fill:
        """What it puts into a hole of a scan as it is seen.

        Args:
            seen: the scan.
            hole: bool, shape (slices, right, anterior).
        """

    def result(self, inputs: Inputs, fill: Callable[[Seen, NDArray[np.bool_]], Fill]) -> Result:
        """Fill the mask of the inputs.

        Args:
            inputs: of one person.
            fill: fills a hole in what is seen.

        Raises:
            ScanError: if there is no mask, it lies on another grid or is empty, or `fill` refuses.
        """
        scan = inputs.scan
        if inputs.mask is None:
            raise ScanError(f"{scan.origin}: no lesion mask was given, expected one to fill; give --mask FILE")
        seen = see(inputs, self.window, self.channels)
        hole, assumed = seen.mask(inputs.mask)
        if self.grow_mm:
            hole = grown(hole, seen.foreground, seen.spacing_mm, self.grow_mm)
            assumed = [*assumed, f"the mask was grown by {self.grow_mm:g} mm"]
        checked = check_mask(seen.axial, seen.windowed[:, 0], hole, seen.foreground, seen.spacing_mm)
        made = fill(seen, hole)
        region = seen.region_on_scan(hole)
        stored, more = _stored(seen, region, hole, made.axial)
        filled_ml = int(region.sum()) * scan.voxel_ml
        spread = self.spread(seen, region, hole, made)
        return Result(
            scan=scan,
            products=(
                Product("filled", "image", stored, "scan", "filled", FILLED),
                Product("fill", "difference", stored_difference(scan.stored, stored), "scan", "difference", DIFFERENCE),
                Product("filled", "mask", region.astype(np.uint8), "", "filled mask", MASK),
                *spread.products,
            ),
            region=region,
            window=seen.window,
            notes=[*seen.notes, *assumed, *made.notes, *more, *spread.notes],
            warnings=checked.warnings,
            steps=seen.steps,
            figures=(
                Figure("FilledMl", "Filled", filled_ml, "ml", 1, "inside the mask", leading=True),
                *spread.figures,
                *checked.figures,
            ),
            facts={"EditedVoxels": int(region.sum()), "ChangedVoxels": int((stored != scan.stored).sum())},
            made="The lesion was filled with synthetic tissue",
            method=(made.method, "Voxels outside the mask keep their exact values.", *spread.method),
        )

    def spread(self, seen: Seen, region: NDArray[np.bool_], hole: NDArray[np.bool_], made: Fill) -> "Spread":
        """The deviation of plausible fills, and as many of them as were asked for by `draw`.

        Args:
            seen: the scan.
            region: the hole on the scan's own grid.
            hole: bool, shape (slices, right, anterior).
            made: what was put into it.
        """
        if self.samples is None or self.error is None:
            return Spread()
        deviation = self.error.deviation(place_in(made.axial, hole, seen.foreground & ~hole, seen.spacing_mm))
        volume = np.zeros(hole.shape, np.float32)
        volume[hole] = deviation
        products = [Product("uncertainty", "map", seen.on_scan(volume), "scan", "uncertainty", UNCERTAINTY)]
        points_mm = seen.points_mm(hole)
        for number in range(self.samples):
            drawn = made.axial.copy()
            # Nothing becomes darker than air.
            lowest = np.minimum(made.axial[hole], seen.window.low)
            drawn[hole] = np.maximum(
                made.axial[hole] + deviation * self.error.field(points_mm, (self.seed, number)), lowest
            )
            stored, _ = _stored(seen, region, hole, drawn)
            title = f"plausible fill {number + 1}"
            products.append(Product(f"sample{number + 1}", "image", stored, "scan", title, SAMPLE))
        mean = float(deviation.mean())
        detail = "standard deviation in the filled mask"
        return Spread(
            products=tuple(products),
            figures=(
                Figure("UncertaintyMean", "Uncertainty", mean, "scan units", 3, detail, leading=True),
                Figure(
                    "UncertaintyPercent", "Uncertainty", 100 * mean / seen.window.width, "% of the window", 1, detail
                ),
            ),
            notes=() if made.is_like_training else (UNLIKE,),
            method=(
                f"{UNCERTAINTY.replace('Standard deviation', 'The map of uncertainty is the standard deviation')}.",
            ),
        )


@dataclass(frozen=True)
class Spread:
    """What is added to a result of the spread of plausible fills; nothing where it was not asked for."""

    products: tuple[Product, ...] = ()
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    method: tuple[str, ...] = ()


def _stored(
    seen: Seen, region: NDArray[np.bool_], hole: NDArray[np.bool_], axial: NDArray[np.float32]
) -> tuple[NDArray[np.generic], list[str]]:
    """The scan's stored voxels with a fill, and notes on them."""
    scan = seen.view.source
    change = seen.on_scan(np.where(hole, axial - seen.axial, np.float32(0)))
    return add_intensity(scan.stored.copy(order="K"), region, change[region], scan.slope)


class HarmonicFiller(FillsMask):
    """Fills a lesion with the solution of Laplace's equation that continues the tissue around it, in three dimensions.

    It has no weights and invents no anatomy: the smoothest fill without a seam, and the control that a trained filler
    has to beat.

    Args:
        window: how the intensity window is chosen, from which head or body is told from air.
        device: taken for the sake of the other predictors; the equation is solved on the CPU.
    """

    channels = ("image",)
    networks: Mapping[str, nn.Module] = MappingProxyType({})

    def __init__(self, window: WindowRule, device: torch.device | str = "cpu") -> None:
        self.window = window
        self.device = torch.device(device)

    def fill(
        self, windowed: NDArray[np.float32], hole: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
    ) -> NDArray[np.float32]:
        """As `FillsMask.fill`."""
        image = windowed[:, 0]
        return harmonic_fill(image, hole, foreground(image) & ~hole, spacing_mm)

    def fill_seen(self, seen: Seen, hole: NDArray[np.bool_]) -> Fill:
        """As `FillsMask.fill_seen`."""
        return Fill(harmonic_fill(seen.axial, hole, seen.foreground & ~hole, seen.spacing_mm), HARMONIC)

    def __call__(self, inputs: Inputs) -> Result:
        """Fill the mask of the inputs.

        Raises:
            ScanError: if there is no mask, it lies on another grid, is empty, or touches no tissue.
        """
        return self.result(inputs, self.fill_seen)


class Filler(FillsMask, NetworkPredictor):
    """Fills a lesion by a network that sees the scan with the hole, and the hole.

    Args:
        network: sequences with 0 in the hole, and the hole, (B, C + 1, …), to the first sequence in [0, 1], (B, 1, …).
        grid: the network's grid.
        window: how the intensity window is chosen.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: slices at once.
        channels: names of the sequences that the network takes, the one that it fills first.
        neighbours: slices above and below that it sees with each.
    """

    def __init__(
        self,
        network: nn.Module,
        grid: Grid | VolumeGrid,
        window: WindowRule,
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 4,
        channels: tuple[str, ...] = ("image",),
        neighbours: int = 0,
    ) -> None:
        runner = GridNetwork(network, grid, device, inferer, batch_size, neighbours)
        super().__init__(runner, window, channels)

    def fill(
        self, windowed: NDArray[np.float32], hole: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
    ) -> NDArray[np.float32]:
        """What the network puts into the hole, as `FillsMask.fill`."""
        holed = np.where(hole[:, None], np.float32(0), windowed)
        shown = np.concatenate([holed, hole[:, None].astype(np.float32)], axis=1)
        filled = windowed[:, 0].copy()
        for batch, made in self.runner.on_pixels(shown, spacing_mm):
            filled[batch] = np.where(hole[batch], made[:, 0].clip(0, 1), filled[batch])
        return filled

    def fill_seen(self, seen: Seen, hole: NDArray[np.bool_]) -> Fill:
        """As `FillsMask.fill_seen`."""
        slices = np.flatnonzero(hole.any(axis=(1, 2)))
        # Neighbouring slices are seen, and a volume's network sees what lies around the hole.
        reach = len(hole) if isinstance(self.runner.grid, VolumeGrid) else self.runner.neighbours
        span = slice(max(0, int(slices[0]) - reach), int(slices[-1]) + 1 + reach)
        made = seen.axial.copy()
        filled = self.fill(seen.windowed[span], hole[span], seen.spacing_mm)
        made[span][hole[span]] = filled[hole[span]] * np.float32(seen.window.width) + np.float32(seen.window.low)
        return Fill(made, "The network saw the scan with the hole, and the hole.")

    def __call__(self, inputs: Inputs) -> Result:
        """Fill the mask of the inputs.

        Raises:
            ScanError: if there is no mask, it lies on another grid or is empty, or the network gives no numbers.
        """
        return self.result(inputs, self.fill_seen)
