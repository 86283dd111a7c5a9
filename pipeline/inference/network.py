"""A network on its own grid: slice by slice, with neighbouring slices, or whole volumes."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from types import NoneType
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer, SimpleInferer
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.devices import BFLOAT16, FLOAT32
from pipeline.errors import PipelineError, ScanError, UsageError, first_line
from pipeline.memory import is_full
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import Grid, VolumeGrid
from pipeline.preprocessing.neighbours import with_neighbours
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule

MOST_SLICES_AT_ONCE = 4096
NAME = re.compile(r"\w[\w.+-]{0,99}")


class GridNetwork:
    """Runs a network over the channels of a scan and brings what it puts out back to the scan's pixels.

    Args:
        network: images (B, C, H, W) in [0, 1], or volumes (1, C, D, H, W), to tensors (B, K, …).
        grid: the network's grid; a `VolumeGrid` for networks that take volumes.
        device: where to compute.
        inferer: runs the network on a batch, for example in windows or in many steps; MONAI's `SimpleInferer` if None.
        batch_size: slices at once.
        neighbours: slices above and below that the network sees with each, as further channels of each sequence, from
            the lowest; at the ends the last slice is seen again.

    Attributes:
        precision: of the network's convolutions and matrix products, `float32` or `bfloat16`; what it is given and
            gives is float32.

    Raises:
        UsageError: if a value is out of range.
    """

    precision: str = FLOAT32

    def __init__(
        self,
        network: nn.Module,
        grid: Grid | VolumeGrid,
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 4,
        neighbours: int = 0,
    ) -> None:
        check_whole("batch_size", batch_size, 1, MOST_SLICES_AT_ONCE)
        check_whole("neighbours", neighbours, 0, 16)
        check_is("network", network, nn.Module)
        check_is("grid", grid, (Grid, VolumeGrid))
        check_is("inferer", inferer, (Inferer, NoneType))
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.grid = grid
        self.inferer = inferer or SimpleInferer()
        self.batch_size = batch_size
        self.neighbours = neighbours

    def on(self, grid: Grid) -> "GridNetwork":
        """The same network on another canvas."""
        other = type(self)(self.network, grid, self.device, self.inferer, self.batch_size, self.neighbours)
        other.precision = self.precision
        return other

    @property
    def sees_neighbours(self) -> bool:
        """Whether what it makes of a slice depends on others."""
        return self.neighbours > 0 or isinstance(self.grid, VolumeGrid)

    @torch.inference_mode()
    def outputs(
        self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]
    ) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        """What the network makes of a scan, or of the middle of it that training saw too, batch by batch.

        Args:
            windowed: axial slices in [0, 1], shape (slices, C, right, anterior).
            spacing_mm: voxel size along (slices, right, anterior).

        Yields:
            Indices of slices, and what the network put out, on its grid.

        Raises:
            ScanError: if it puts out NaN or infinite values.
        """
        if isinstance(self.grid, VolumeGrid):
            yield np.arange(len(windowed)), self._run(self.grid.images(self._volume(windowed), spacing_mm))
            return
        for batch, slices in self._batches(windowed, np.arange(len(windowed))):
            yield batch, self._run(self.grid.images(slices, spacing_mm[1:]))

    @torch.inference_mode()
    def on_pixels(
        self,
        windowed: NDArray[np.float32],
        spacing_mm: tuple[float, float, float],
        wanted: Callable[[Tensor, Tensor], Tensor] | None = None,
        beyond: float = 0.0,
        chosen: NDArray[np.bool_] | None = None,
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """What the network makes of a whole scan, on the scan's pixels, batch by batch.

        Where the head or body is larger than the network's canvas, overlapping canvases cover it.

        Args:
            windowed: axial slices in [0, 1], shape (slices, C, right, anterior).
            spacing_mm: voxel size along (slices, right, anterior).
            wanted: made of what the network saw and put out, (B, C, …) and (B, K, …), before it is resampled; the
                output itself if None.
            beyond: the value where there is nothing but air, and the network was shown nothing.
            chosen: which slices are asked for, shape (slices,); all if None. A network of volumes gives all.

        Yields:
            Indices of slices, and an array (B, K, right, anterior).

        Raises:
            ScanError: if the network puts out NaN or infinite values.
        """
        slices, _, height, width = windowed.shape
        if isinstance(self.grid, VolumeGrid):
            volume = self._made(self.grid.images(self._volume(windowed), spacing_mm), wanted)
            back = self.grid.back(volume, (slices, height, width), spacing_mm)[0].transpose(0, 1)
            yield np.arange(slices), back.cpu().numpy()
            return
        corners = [self.grid.middle((height, width), spacing_mm[1:])]
        if not self.grid.holds((height, width), spacing_mm[1:]):
            corners = self.grid.corners(foreground(windowed.max(axis=1)), spacing_mm[1:])
        indices = np.arange(slices) if chosen is None else np.flatnonzero(chosen)
        for batch, part in self._batches(windowed, indices):
            canvases = self.grid.canvases(part, spacing_mm[1:], corners)
            made = {corner: self._made(images, wanted) for corner, images in canvases.items()}
            yield batch, self.grid.back(made, (height, width), spacing_mm[1:], beyond).cpu().numpy()

    def main_channel(self, images: Tensor) -> Tensor:
        """The slices in question of the first sequence, of what the network saw: shape (B, 1, …)."""
        return images[:, self.neighbours : self.neighbours + 1]

    def _run(self, images: Tensor) -> Tensor:
        try:
            if self.precision == BFLOAT16:
                with torch.autocast(self.device.type, torch.bfloat16):
                    output: Tensor = self.inferer(images, self.network).float()
            else:
                output = self.inferer(images, self.network)
            finite = bool(output.isfinite().all())
        except Exception as error:  # whatever a network or an inferer raises that does not fit the images
            if isinstance(error, PipelineError) or is_full(error):
                raise
            raise ScanError(
                f"the network cannot be run on images of shape {tuple(images.shape)} ({first_line(error)}), expected "
                "network, inferer, grid and channels that fit; correct the bundle's inference.json"
            ) from error
        if not finite:
            raise ScanError("the network gave NaN or infinite values, expected numbers; train it anew")
        return output

    def _made(self, images: Tensor, wanted: Callable[[Tensor, Tensor], Tensor] | None) -> Tensor:
        output = self._run(images)
        if output.shape[2:] != images.shape[2:] or output.ndim != images.ndim:
            raise ScanError(
                f"the network gave {tuple(output.shape)} for images {tuple(images.shape)}, expected as many pixels; "
                "correct network_def in the bundle's inference.json"
            )
        return output if wanted is None else wanted(images, output)

    def _volume(self, windowed: NDArray[np.float32]) -> Tensor:
        """Slices as one volume (1, C, D, H, W)."""
        return torch.from_numpy(np.ascontiguousarray(windowed.swapaxes(0, 1)[None])).to(self.device)

    def _batches(
        self, windowed: NDArray[np.float32], indices: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        """Some of these slices, and them with their neighbours, (B, C · (2n + 1), H, W)."""
        for first in range(0, len(indices), self.batch_size):
            batch = indices[first : first + self.batch_size]
            stacked = with_neighbours(windowed, batch, self.neighbours)
            yield batch, torch.from_numpy(np.ascontiguousarray(stacked)).to(self.device)


class NetworkPredictor:
    """What predictors that run one network over the slices of scans have in common.

    Args:
        runner: the network on its grid.
        window: how the intensity window of a scan is chosen.
        channels: names of the sequences that the network takes, the one whose grid the results lie on first.
        slab: the slices that it works on; None where the user's mask decides.
    """

    def __init__(
        self, runner: GridNetwork, window: WindowRule, channels: Sequence[str], slab: Slab | None = None
    ) -> None:
        check_is("window", window, WindowRule)
        check_is("slab", slab, (Slab, NoneType))
        self.runner = runner
        self.window = window
        self.channels = check_names("channels", channels)
        self.slab = slab

    @property
    def networks(self) -> dict[str, nn.Module]:
        """By the id in the configs, whose weights they take."""
        return {"network_def": self.runner.network}

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.runner.device

    @property
    def joins_slices(self) -> bool:
        """Whether what it makes of a slice depends on others."""
        return self.runner.sees_neighbours

    def try_out(self) -> None:
        """Run it on a canvas, so that a network that does not fit is told before any scan is read.

        Raises:
            ScanError: if it fails.
        """
        grid = self.runner.grid
        if isinstance(grid, VolumeGrid):
            return
        brighter = np.linspace(0, 1, math.prod(grid.size), dtype=np.float32).reshape(grid.size)
        self._try(np.stack([brighter] * len(self.channels))[None], (grid.spacing_mm,) * 3)

    def _try(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> None:
        """What is done with a slice, shape (1, C, right, anterior)."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a user may change of it, as records keep it."""
        if self.slab is None:
            return {}
        return {"Slab": {"slices": self.slab.slices, "thickness_mm": self.slab.thickness_mm}}


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is no whole number of a range, both ends included.

    Raises:
        UsageError: see above.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{name}: found {value!r}, expected a whole number from {low} to {high}")


def check_is(name: str, value: object, kind: type | tuple[type, ...]) -> None:
    """Refuse what is of another class than a predictor is built of.

    Raises:
        UsageError: see above.
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(each.__name__ for each in kinds if each is not NoneType)
        raise UsageError(f"{name}: found a {type(value).__name__}, expected a {wanted}")


def check_names(what: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names, which become part of file names.

    Raises:
        UsageError: if there is none, two are the same, or one is more than letters, digits and `_.+-`.
    """
    found = tuple(names)
    if not found or len(set(found)) < len(found) or not all(NAME.fullmatch(name) for name in found):
        raise UsageError(
            f"{what}: found {', '.join(map(repr, found))[:120] or 'none'}, expected different names of letters, digits "
            "and _ . + -"
        )
    return found
