"""A network of half-slices over whole scans: both halves of each slice, joined."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.inference.network import GridNetwork
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.half_slices import halved, without_air


class HalfSliceNetwork(GridNetwork):
    """Runs a network over the halves of a scan's slices, halved and standardised as in training.

    As `GridNetwork`, with the canvas of one half as grid and without neighbours; the network is given standardised
    half-slices (B, C, H, W), two for each slice of a batch.
    """

    grid: Grid

    @property
    def sees_neighbours(self) -> bool:
        """The line and the brain are those of the whole volume."""
        return True

    @torch.inference_mode()
    def on_pixels(
        self,
        windowed: NDArray[np.float32],
        spacing_mm: tuple[float, float, float],
        wanted: Callable[[Tensor, Tensor], Tensor] | None = None,
        beyond: float = 0.0,
        chosen: NDArray[np.bool_] | None = None,
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """As `GridNetwork`, `wanted` being of standardised halves."""
        shape = (windowed.shape[2], windowed.shape[3])
        pixel_mm = (self.grid.spacing_mm, self.grid.spacing_mm)
        volume = without_air(self.grid.interpolated(torch.from_numpy(np.ascontiguousarray(windowed)), spacing_mm[1:]))
        halves, _ = halved(volume, spacing_mm[0], self.grid)
        tissue = volume[:, 0].numpy() > 0
        # As high as a canvas, a half is covered by canvases beside each other along its length.
        corners = [
            self.grid.corners(part[:, 0].numpy() > 0, pixel_mm)
            for part in halves.split(torch.from_numpy(tissue[:, None].astype(np.float32)))
        ]
        indices = np.arange(len(volume)) if chosen is None else np.flatnonzero(chosen)
        for batch, slices in self._batches(volume.numpy(), indices):
            made = []
            for half, where in zip(halves.split(slices), corners, strict=True):
                canvases = self.grid.canvases(half, pixel_mm, where)
                outputs = {
                    corner: self._made(halves.standardised(images), wanted) for corner, images in canvases.items()
                }
                made.append(self.grid.back(outputs, (half.shape[-2], half.shape[-1]), pixel_mm, beyond))
            joined = halves.joined(made, (slices.shape[-2], slices.shape[-1]), beyond)
            yield batch, self.grid.on_scan(joined, shape).cpu().numpy()
