"""Translators between modalities: image in, the same anatomy as another modality shows it out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference.inputs import Inputs, see
from pipeline.inference.network import GridNetwork, NetworkPredictor, check_names
from pipeline.inference.products import Product, ProductKind, Result
from pipeline.inference.stored import add_intensity
from pipeline.networks import SourceTranslators
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import WHOLE, Slab
from pipeline.preprocessing.window import WindowRule

TRANSLATED = (
    "What the network takes {target} of this anatomy to look like, in [0, 1] scaled to the window of the scan: not in "
    "the units of {target}"
)
NETWORK_S = (
    "The network was applied to axial slices, windowed to [{low:g}, {high:g}] in the scan's units, and its output, "
    "resampled to the scan's grid, was scaled to the same window."
)


class ModalityTranslator(NetworkPredictor):
    """Applies a generator to whole scans of a source modality, or to those of several that it takes together.

    The output is another modality's, so no residual is carried back: all voxels are the network's, and those of slices
    that it was not trained on are left empty. The product is `translated`, an image in the scan's window.

    Args:
        network: a generator for each source modality, of which one is used at a time; or, with `channels`, a generator
            that takes all of these, (B, C, H, W) in [0, 1] to (B, 1, H, W).
        grid: the network's grid.
        window: how the intensity window is chosen.
        slab: the middle slices that the network was trained on; None translates the whole volume.
        target_modality: name of the modality that comes out.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: slices at once.
        channels: names of the sequences that one generator takes, that whose grid the result lies on first; None where
            each source modality has its own.

    Raises:
        UsageError: if the network is another one, or a name cannot be one of a file.
    """

    kind = "modality translator"
    main: tuple[str, ProductKind] = ("translated", "image")
    output_types = frozenset({"image"})

    def __init__(
        self,
        network: nn.Module,
        grid: Grid,
        window: WindowRule,
        slab: Slab | None = None,
        target_modality: str = "target",
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 4,
        channels: Sequence[str] | None = None,
    ) -> None:
        self.translators = network if isinstance(network, SourceTranslators) else None
        if (self.translators is None) == (channels is None):
            wanted = "another generator with channels" if self.translators else "SourceTranslators without channels"
            raise UsageError(f"network: found a {type(network).__name__}, expected {wanted}")
        taken = (self.translators.source,) if self.translators else tuple(channels or ())
        super().__init__(GridNetwork(network, grid, device, inferer, batch_size), window, taken, slab or WHOLE)
        (self.target_modality,) = check_names("target_modality", (target_modality,))
        self.sources = check_names("sources", tuple(self.translators) if self.translators else taken[:1])

    @property
    def networks(self) -> dict[str, nn.Module]:
        """By the id in the configs, whose weights they take."""
        return super().networks if self.translators is None else {"translators_def": self.translators}

    @property
    def source(self) -> str:
        """The modality of the scans: of several sequences taken together, that of the first."""
        return self.channels[0]

    @property
    def settings(self) -> dict[str, Any]:
        """What a user may change of it, as records keep it."""
        return {**super().settings, "SourceModality": self.source}

    def choose(self, source: str | None) -> None:
        """Translate scans of this source modality from now on; None: of the only one there is.

        Raises:
            UsageError: if there is no generator for it, or are several.
        """
        known = self.sources
        chosen = source if source is not None or len(known) > 1 else known[0]
        if chosen not in known:
            raise UsageError(
                f"--source {source or '(not given)'}: the bundle translates {' and '.join(known)} into "
                f"{self.target_modality}, expected one of these"
            )
        if self.translators is not None:
            self.translators.source = chosen
            self.channels = (chosen,)

    def trained_on(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """A bundle's metadata with what its scans of this source modality were like in place of the target's."""
        domains = metadata.get("source_domains")
        about = metadata.get("network_data_format" if self.translators is None else "translators_def_data_format")
        return {
            **metadata,
            "training_domain": domains.get(self.source) if isinstance(domains, dict) else None,
            "network_data_format": about,
        }

    def translate(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
        """The network's output on the slices' own pixels; 0 where there is nothing but air around its canvas.

        Args:
            windowed: axial slices in [0, 1], shape (slices, 1, right, anterior).
            spacing_mm: voxel size along (slices, right, anterior).

        Returns:
            In [0, 1], shape (slices, right, anterior).

        Raises:
            ScanError: if the network gives NaN or infinite values, or more than one channel.
        """
        translated = np.empty((windowed.shape[0], *windowed.shape[2:]), dtype=np.float32)
        for batch, made in self.runner.on_pixels(windowed, spacing_mm):
            if made.shape[1] != 1:
                raise ScanError(f"the network gave {made.shape[1]} channels, expected one image")
            translated[batch] = made[:, 0].clip(0, 1)
        return translated

    def _try(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> None:
        self.translate(windowed, spacing_mm)

    def __call__(self, inputs: Inputs) -> Result:
        """Translate a scan.

        Raises:
            ScanError: if the scan holds nothing brighter than air, a step fails, or the network gives no numbers.
        """
        scan = inputs.scan
        seen = see(inputs, self.window, self.channels)
        region, _, notes = seen.slab(self.slab)
        span = seen.span(region)
        axial = np.zeros(seen.axial.shape, dtype=np.float32)
        axial[span] = self.translate(seen.windowed[span], seen.spacing_mm)
        covered = np.zeros(axial.shape, dtype=bool)
        covered[span] = True
        intensities = seen.window.low + seen.window.width * seen.on_scan(axial, in_units=False)
        everywhere = np.ones(scan.shape, dtype=bool)
        stored, held = add_intensity(
            scan.stored.copy(order="K"), everywhere, (intensities - scan.intensities())[everywhere], scan.slope
        )
        meaning = TRANSLATED.format(target=self.target_modality)
        return Result(
            scan=scan,
            products=(Product("translated", "image", stored, "scan", f"translated {self.target_modality}", meaning),),
            region=seen.region_on_scan(covered),
            window=seen.window,
            notes=[*seen.notes, *seen.told([note.replace("left alone", "left empty") for note in notes]), *held],
            steps=seen.steps,
            facts={"SourceModality": self.source, "TargetModality": self.target_modality},
            made=f"The scan was translated from {self.source} into {self.target_modality}",
            method=(NETWORK_S.format(low=seen.window.low, high=seen.window.high),),
        )
