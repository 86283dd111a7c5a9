"""Anomaly detectors: what a network of healthy images cannot reconstruct, as a mask and map, or as one number."""

import numpy as np
import torch
from monai.inferers import Inferer
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.inference.network import check_is
from pipeline.inference.products import Product
from pipeline.inference.scorer import Scorer
from pipeline.inference.segmenter import Segmenter
from pipeline.metrics.anomaly import Residual, anomaly_map
from pipeline.networks import AnomalyScore, Reconstruction, SearchedReconstruction
from pipeline.preprocessing.foreground import AIR
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule

DETECTORS = (Reconstruction, SearchedReconstruction)
TOLD = (
    "A network that was trained on healthy slices alone reconstructed each slice; voxels that differed from their "
    "reconstruction by {:.3g} of the intensity window or more were taken for anomalous, a threshold that was chosen on "
    "validation patients."
)

RELATIVE = "an anomaly score has no scale of its own; compare it with those of other scans by the same weights"


class AnomalySegmenter(Segmenter):
    """Marks what a network of healthy images reconstructs otherwise.

    The products are a mask, and the anomaly map that it was cut from, in units of the intensity window.

    Args:
        network: images (B, 1, H, W) in [0, 1] to healthy reconstructions, with the threshold of its map.
        grid: the network's grid.
        window: how the intensity window is chosen.
        slab: the middle slices that the network was trained on; others are left empty. None takes the whole volume.
        residual: how a pixel's difference counts, see `anomaly_map`.
        smooth: pixels of the network's grid that differences are averaged over, likewise.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: slices at once.
        channels: name of the sequence that the network takes.
    """

    output_types = frozenset({"image"})

    def __init__(
        self,
        network: Reconstruction | SearchedReconstruction,
        grid: Grid,
        window: WindowRule,
        slab: Slab | None = None,
        residual: Residual = "absolute",
        smooth: int = 1,
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 16,
        channels: tuple[str, ...] = ("image",),
    ) -> None:
        check_is("network", network, DETECTORS)
        super().__init__(
            network,
            grid,
            window,
            slab,
            labels=("anomaly",),
            device=device,
            inferer=inferer,
            batch_size=batch_size,
            channels=channels,
        )
        self.detector = network
        self.residual = residual
        self.smooth = smooth

    @property
    def threshold(self) -> float:
        """Of the anomaly map, from the network's training.

        Raises:
            UsageError: if no validation patients have chosen one.
        """
        threshold = float(self.detector.threshold)
        if threshold == 0:
            raise UsageError(
                "the bundle has no threshold for its anomaly map, expected one that validation slices with lesions "
                "chose; train it on a cohort that has some"
            )
        return threshold

    def probabilities(
        self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]
    ) -> NDArray[np.float32]:
        """The anomaly map, on the slices' own pixels; no probability, though the threshold cuts it like one.

        Args:
            windowed: axial slices in [0, 1], shape (slices, 1, right, anterior).
            spacing_mm: voxel size along (slices, right, anterior).

        Returns:
            In [0, 1], zero in air, shape (slices, 1, right, anterior).

        Raises:
            ScanError: if the network gives NaN or infinite values.
        """
        anomaly = np.zeros_like(windowed)
        for batch, made in self.runner.on_pixels(windowed, spacing_mm, wanted=self._anomaly):
            anomaly[batch] = made
        return anomaly * (windowed > AIR)

    def _try(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> None:
        super()._try(windowed, spacing_mm)
        _ = self.threshold  # refused where there is none, before any scan is read

    def _anomaly(self, images: Tensor, healthy: Tensor) -> Tensor:
        return anomaly_map(images, healthy, self.residual, self.smooth)

    def _map(self, label: str, values: NDArray[np.float32]) -> Product:
        meaning = "Difference to a healthy reconstruction, as a share of the intensity window"
        return Product(f"{label}map", "map", values, "1", f"{label} map", meaning)

    def _told(self) -> str:
        return TOLD.format(self.threshold)


class AnomalyScorer(Scorer):
    """How anomalous a scan is: the mean over its slices of the network's anomaly score.

    Args:
        network: as of `AnomalySegmenter`; its `score` is asked.
        grid: the network's grid.
        window: how the intensity window is chosen.
        slab: the middle slices that the network was trained on. None takes the whole volume.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: slices at once.
        channels: name of the sequence that the network takes.
    """

    output_types = frozenset({"image"})
    without_error = RELATIVE

    def __init__(
        self,
        network: Reconstruction | SearchedReconstruction,
        grid: Grid,
        window: WindowRule,
        slab: Slab | None = None,
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 16,
        channels: tuple[str, ...] = ("image",),
    ) -> None:
        check_is("network", network, DETECTORS)
        super().__init__(
            AnomalyScore(network),
            grid,
            window,
            slab,
            target="anomalyscore",
            device=device,
            inferer=inferer,
            batch_size=batch_size,
            channels=channels,
        )
        self.detector = network

    @property
    def networks(self) -> dict[str, nn.Module]:
        """By the id in the configs, whose weights they take."""
        return {"network_def": self.detector}
