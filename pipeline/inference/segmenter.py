"""Segmenters: image in, masks out."""

from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference.half_slices import HalfSliceNetwork
from pipeline.inference.inputs import Inputs, see
from pipeline.inference.network import GridNetwork, NetworkPredictor, check_names
from pipeline.inference.products import Figure, Product, ProductKind, Result
from pipeline.preprocessing.foreground import AIR
from pipeline.preprocessing.grid import Grid, VolumeGrid
from pipeline.preprocessing.slab import WHOLE, Slab
from pipeline.preprocessing.window import WindowRule

# A logit where the network was shown nothing: a probability of 1e-9.
NEVER = -20.0
# The mirror image is looked at where something may be found: a logit above that of a probability of 2 %. Elsewhere it
# would have to be surer than 38 % of what the scan as it is shows none of, to lift the mean to the 10 % from which
# `FoundFiller` fills.
DOUBT = -3.9
THRESHOLDED = (
    "The network's logits were brought to the scan's grid, and voxels with a probability of {:g} or more were taken "
    "for {}."
)


class Segmenter(NetworkPredictor):
    """Applies a trained segmentation network to whole scans.

    Logits are brought back to the scan's pixels and cut there, so that a mask's border has no steps of the network's
    grid. The products are a mask and a map of probabilities for each label.

    Args:
        network: images (B, C, …) in [0, 1] to logits (B, K, …), one channel a label.
        grid: the network's grid; of half-slices, both halves of each slice are joined.
        window: how the intensity window is chosen.
        slab: the middle slices that the network was trained on; others are left empty. None takes the whole volume.
        labels: names of the K labels.
        threshold: a voxel belongs to a label if its probability is at least this.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: slices at once.
        channels: names of the sequences that the network takes, the one whose grid the mask lies on first.
        neighbours: slices above and below that it sees with each.
        flip_average: average the logits of the slices and of their mirror images (right to left), mirrored back, in
            all slices where the first are not sure that there is nothing. For anatomy that is symmetric.
    """

    kind = "segmenter"
    output_types = frozenset({"segmentation"})

    def __init__(
        self,
        network: nn.Module,
        grid: Grid | VolumeGrid,
        window: WindowRule,
        slab: Slab | None = None,
        labels: tuple[str, ...] = ("lesion",),
        threshold: float = 0.5,
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 4,
        channels: tuple[str, ...] = ("image",),
        neighbours: int = 0,
        flip_average: bool = False,
    ) -> None:
        if not 0 < threshold < 1:
            raise UsageError(f"threshold: found {threshold!r}, expected a probability between 0 and 1")
        if not isinstance(flip_average, bool):
            raise UsageError(f"flip_average: found {flip_average!r}, expected true or false")
        halves = isinstance(grid, Grid) and grid.halves
        if halves and neighbours:
            raise UsageError(
                "half-slices: found a network that sees neighbouring slices, expected one that takes slices one by one"
            )
        kind = HalfSliceNetwork if halves else GridNetwork
        runner = kind(network, grid, device, inferer, batch_size, neighbours)
        super().__init__(runner, window, channels, slab or WHOLE)
        self.labels = check_names("labels", labels)
        self._threshold = threshold
        self.flip_average = flip_average

    @property
    def settings(self) -> dict[str, Any]:
        """What a user may change of it, as records keep it."""
        return {**super().settings, "FlipAverage": self.flip_average}

    @property
    def threshold(self) -> float:
        """A voxel belongs to a label if its value in the label's map is at least this."""
        return self._threshold

    @property
    def main(self) -> tuple[str, ProductKind]:
        """Name and kind of the main product."""
        return self.labels[0], "mask"

    def probabilities(
        self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]
    ) -> NDArray[np.float32]:
        """Probability of each label, on the slices' own pixels.

        Args:
            windowed: axial slices in [0, 1], shape (slices, C, right, anterior).
            spacing_mm: voxel size along (slices, right, anterior).

        Returns:
            In [0, 1], shape (slices, labels, right, anterior).

        Raises:
            ScanError: if the network gives NaN or infinite values, or logits of another number of labels.
        """
        tissue: NDArray[np.bool_] = np.any(windowed > AIR, axis=(1, 2, 3))
        logits = self._logits(windowed, spacing_mm, tissue)
        doubtful: NDArray[np.bool_] = np.any(logits > DOUBT, axis=(1, 2, 3))
        if self.flip_average and doubtful.any():
            flipped = self._logits(np.ascontiguousarray(windowed[:, :, ::-1]), spacing_mm, doubtful)
            logits[doubtful] = (logits[doubtful] + flipped[doubtful][:, :, ::-1]) * np.float32(0.5)
        return torch.from_numpy(logits).sigmoid().numpy()

    def _logits(
        self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float], chosen: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Of the chosen slices; `NEVER` in others."""
        logits = np.full((windowed.shape[0], len(self.labels), *windowed.shape[2:]), NEVER, dtype=np.float32)
        for batch, made in self.runner.on_pixels(windowed, spacing_mm, beyond=NEVER, chosen=chosen):
            if made.shape[1] != len(self.labels):
                raise ScanError(
                    f"the network gave {made.shape[1]} channels, expected one for each of {', '.join(self.labels)}"
                )
            logits[batch] = made
        return logits

    def _try(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> None:
        self.probabilities(windowed, spacing_mm)

    def __call__(self, inputs: Inputs) -> Result:
        """Find the labels in a scan.

        Raises:
            ScanError: if a step fails or the network gives no numbers.
        """
        scan = inputs.scan
        seen = see(inputs, self.window, self.channels)
        region, _, notes = seen.slab(self.slab)
        span = seen.span(region)
        found = self.probabilities(seen.windowed[span], seen.spacing_mm)
        searched = seen.region_on_scan(region)
        masks, maps, figures = [], [], []
        for index, label in enumerate(self.labels):
            axial = np.zeros(seen.axial.shape, dtype=np.float32)
            axial[span] = found[:, index] * region[span]
            probability = seen.on_scan(axial, in_units=False)
            mask = (probability >= self.threshold).astype(np.uint8)
            volume = int(mask.sum()) * scan.voxel_ml
            figures.append(Figure(f"{label.capitalize()}Ml", label.capitalize(), volume, "ml", 1, leading=True))
            meaning = f"Where the network finds {label}: 1 {label}, 0 elsewhere"
            masks.append(Product(label, "mask", mask, "", f"{label} mask", meaning))
            maps.append(self._map(label, probability))
        return Result(
            scan=scan,
            products=(*masks, *maps),
            region=searched,
            window=seen.window,
            notes=[*seen.notes, *seen.told(notes)],
            steps=seen.steps,
            figures=tuple(figures),
            facts={"Threshold": self.threshold},
            made=f"{' and '.join(self.labels).capitalize()} was segmented",
            method=(self._told(),),
        )

    def _map(self, label: str, values: NDArray[np.float32]) -> Product:
        """What the mask was cut from."""
        meaning = f"Probability of {label} by the network, not calibrated"
        return Product(f"{label}probability", "map", values, "1", f"probability of {label}", meaning)

    def _told(self) -> str:
        """How it was done, for a methods section."""
        return THRESHOLDED.format(self.threshold, " or ".join(self.labels))
