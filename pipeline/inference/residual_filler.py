"""A filler that adds a network's residual to the harmonic fill."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from monai.inferers import Inferer
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference.fill_error import FillError
from pipeline.inference.filler import HARMONIC, Fill, FillsMask
from pipeline.inference.inputs import Inputs, Seen
from pipeline.inference.network import GridNetwork, NetworkPredictor, check_whole
from pipeline.inference.products import Result
from pipeline.preprocessing.biharmonic import biharmonic_fill, open_to_air
from pipeline.preprocessing.box import box_of
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import LONGEST_SIDE, Grid
from pipeline.preprocessing.harmonic import harmonic_fill
from pipeline.preprocessing.hole_slices import network_channels
from pipeline.preprocessing.symmetry import line_of
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan

# Of which the mid-sagittal line is found.
SLICES_OF_LINE = 24
RESIDUAL = (
    "To this the residual of a network was added, which saw the filled slices, their neighbours, the mask and the "
    "other side of the head."
)
SMALL = (
    "Lesions below {:g} ml got a weighted mean of that and of the solution of the biharmonic equation in each slice, "
    "beside air of the harmonic fill; the network's weight falls with the logarithm of the lesion's volume, to none at "
    "{:g} ml."
)
BIHARMONIC = (
    "Lesions below {:g} ml were filled by the biharmonic equation in each slice, those beside air harmonically."
)


class ResidualFiller(FillsMask, NetworkPredictor):
    """Fills a lesion harmonically on the scan's own grid, and adds what a network on its grid adds to that.

    In small lesions a control is as near to the truth, and errs otherwise: the biharmonic equation in each slice, or
    the harmonic fill where air is near. They get a mean of both, in which the weight of the network rises with the
    logarithm of the connected lesion's volume, from 0 at `from_ml` to 1 at `alone_ml`. In scans that are unlike those
    of its training, the harmonic fill stays alone.

    Args:
        network: what `network_channels` makes of a scan, with neighbours, to filled slices (B, 1, H, W) in [0, 1].
        grid: the network's grid.
        window: how the intensity window is chosen.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: slices at once.
        channels: name of the sequence.
        neighbours: slices above and below that the network sees with each.
        from_ml: smallest volume of a connected lesion in which the network is used, in ml.
        alone_ml: volume from which it is used alone; `from_ml` if that is larger.
        context: pixels of its grid that the network is shown around the hole, at least those that it takes for its
            surroundings; more take longer and change little.
        error: of its fills.

    Raises:
        UsageError: if a value is out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        grid: Grid,
        window: WindowRule,
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 4,
        channels: Sequence[str] = ("image",),
        neighbours: int = 1,
        from_ml: float = 0.0,
        alone_ml: float = 0.0,
        context: int = 24,
        error: FillError | None = None,
    ) -> None:
        super().__init__(GridNetwork(network, grid, device, inferer, batch_size, neighbours), window, channels)
        for name, volume_ml in (("from_ml", from_ml), ("alone_ml", alone_ml)):
            if not (isinstance(volume_ml, int | float) and 0 <= volume_ml < math.inf):
                raise UsageError(f"{name}: found {volume_ml!r}, expected a volume in ml of at least 0")
        if alone_ml > from_ml == 0:
            raise UsageError(f"from_ml: found 0, expected more than 0, from which the weight rises to {alone_ml:g} ml")
        check_whole("context", context, 1, LONGEST_SIDE)
        self.grid = grid
        self.from_ml = from_ml
        self.alone_ml = max(from_ml, alone_ml)
        self.context = context
        self.error = error

    def fill(
        self, windowed: NDArray[np.float32], hole: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
    ) -> NDArray[np.float32]:
        """As `FillsMask.fill`."""
        head = foreground(windowed[:, 0])
        start = harmonic_fill(windowed[:, 0], hole, head & ~hole, spacing_mm)
        weight, _ = self._weight(hole, spacing_mm)
        made = start + self.residual(start, hole, weight > 0, spacing_mm)
        return _mixed(made, start, hole, weight, head).clip(0, 1)

    def residual(
        self,
        start: NDArray[np.float32],
        hole: NDArray[np.bool_],
        trusted: NDArray[np.bool_],
        spacing_mm: tuple[float, float, float],
    ) -> NDArray[np.float32]:
        """What the network adds to a harmonic fill.

        Args:
            start: harmonically filled slices in [0, 1], shape (slices, right, anterior).
            hole: same shape.
            trusted: the part of the hole that it is added to, same shape.
            spacing_mm: voxel size along (slices, right, anterior).

        Returns:
            Same shape; 0 elsewhere.

        Raises:
            ScanError: if the network gives no numbers.
        """
        added = np.zeros(start.shape, dtype=np.float32)
        if not trusted.any():
            return added
        indices, reach = np.flatnonzero(trusted.any(axis=(1, 2))), self.runner.neighbours
        span = slice(max(0, int(indices[0]) - reach), int(indices[-1]) + 1 + reach)
        # The other side of the head is looked up on square pixels, as many as the whole field of view has.
        shape = start.shape[1], start.shape[2]
        wide = self.grid.enlarged(shape, spacing_mm[1:])
        pixels_mm = (spacing_mm[0], wide.spacing_mm, wide.spacing_mm)
        filled, holes = (torch.from_numpy(np.float32(volume[:, None])) for volume in (start, hole))
        line = line_of(wide.images(filled[:: max(1, len(start) // SLICES_OF_LINE)], spacing_mm[1:])[:, 0])
        channels = network_channels(
            wide.images(filled[span], spacing_mm[1:])[:, 0], wide.masks(holes[span], spacing_mm[1:])[:, 0], line
        )
        if not channels[:, 1].any():  # too small to be seen on the grid
            return added
        rows, columns = (_around(channels[:, 1].amax(dim=(0, axis)), self.context, wide.stride) for axis in (2, 1))
        runner = self.runner.on(Grid(wide.spacing_mm, (len(rows), len(columns)), wide.stride))
        part = channels[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        for batch, change in runner.on_pixels(
            part.numpy(),
            pixels_mm,
            lambda shown, output: output - runner.main_channel(shown),
            chosen=np.any(trusted[span], axis=(1, 2)),
        ):
            whole = torch.zeros(len(change), 1, *wide.size)
            whole[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = torch.from_numpy(change)
            back = wide.back({wide.middle(shape, spacing_mm[1:]): whole}, shape, spacing_mm[1:])
            added[span][batch] = back[:, 0].numpy()
        return np.where(trusted, added, np.float32(0))

    def fill_seen(self, seen: Seen, hole: NDArray[np.bool_]) -> Fill:
        """As `FillsMask.fill_seen`."""
        start = harmonic_fill(seen.axial, hole, seen.foreground & ~hole, seen.spacing_mm)
        weight, each = self._weight(hole, seen.spacing_mm)
        added = self.residual(seen.window.apply(start), hole, weight > 0, seen.spacing_mm)
        added *= np.float32(seen.window.width)
        # Nothing becomes darker than air.
        made = np.maximum(start + added, np.minimum(start, seen.window.low))
        told = [HARMONIC] * bool((weight > 0).any()) + [RESIDUAL] * bool(added.any())
        controlled = int((each == 0).sum())
        if np.any((each > 0) & (each < 1)):
            told.append(SMALL.format(self.alone_ml, self.from_ml))
        elif controlled:
            told.append(BIHARMONIC.format(self.from_ml))
        which = f"{controlled} of {len(each)} lesions, below {self.from_ml:g} ml,"
        notes = [f"{which} were filled without the network"] if controlled else []
        return Fill(_mixed(made, start, hole, weight, seen.foreground), " ".join(told), notes)

    def __call__(self, inputs: Inputs) -> Result:
        """Fill the mask of the inputs.

        Raises:
            ScanError: if there is no mask, it lies on another grid or is empty, or the network gives no numbers.
        """
        refusals: list[str] = []

        def check(scan: Scan, windowed: NDArray[np.float32]) -> list[str]:
            try:
                return [] if inputs.check is None else inputs.check(scan, windowed)
            except ScanError as refusal:
                refusals.append(str(refusal))
                return []

        def fill(seen: Seen, hole: NDArray[np.bool_]) -> Fill:
            if not refusals:
                return self.fill_seen(seen, hole)
            start = harmonic_fill(seen.axial, hole, seen.foreground & ~hole, seen.spacing_mm)
            notes = [f"the lesion was filled harmonically alone: {refusals[0]}"]
            return Fill(start, HARMONIC, notes, is_like_training=False)

        return self.result(replace(inputs, check=check), fill)

    def _weight(
        self, hole: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The network's weight in each voxel of the hole, 0 elsewhere, and in each lesion; of none if all are 1."""
        weight = np.zeros(hole.shape, dtype=np.float32)
        if not self.alone_ml:
            weight[hole] = 1
            return weight, np.empty(0, dtype=np.float32)
        box = box_of(hole)
        labels, _ = ndimage.label(hole[box], structure=np.ones((3, 3, 3)))
        volume_ml = np.bincount(labels.ravel())[1:] * float(np.prod(spacing_mm)) / 1000
        each = (volume_ml >= self.from_ml).astype(np.float32)
        if self.alone_ml > self.from_ml:
            each *= (np.log(volume_ml / self.from_ml) / math.log(self.alone_ml / self.from_ml)).clip(0, 1)
        weight[box] = np.concatenate([[np.float32(0)], each])[labels]
        return weight, each


def _mixed(
    made: NDArray[np.float32],
    start: NDArray[np.float32],
    hole: NDArray[np.bool_],
    weight: NDArray[np.float32],
    head: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """A filled scan (slices, right, anterior), in its small lesions mixed with the control."""
    small = hole & (weight < 1)
    if not small.any():
        return made
    beside_air = open_to_air(small, head)
    control = np.where(beside_air, start, biharmonic_fill(made, small & ~beside_air))
    return np.where(small, weight * made + (1 - weight) * control, made)


def _around(hole: torch.Tensor, context: int, stride: int) -> range:
    """The pixels along an axis that a network is shown of a hole, (pixels,), and around it: a multiple of `stride`."""
    inside = torch.nonzero(hole)[:, 0]
    first, last = int(inside[0]) - context, int(inside[-1]) + 1 + context
    side = min(-(-(last - first) // stride) * stride, len(hole))
    start = min(max(0, first), len(hole) - side)
    return range(start, start + side)
