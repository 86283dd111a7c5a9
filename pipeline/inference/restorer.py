"""Restorers: a degraded scan in, the same scan with less noise, fewer artefacts or thinner slices' detail out."""

from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference.change import amounts
from pipeline.inference.inputs import Inputs
from pipeline.inference.products import Product, ProductKind, Result
from pipeline.inference.stored import stored_difference
from pipeline.inference.translator import FLIPPED, NOT_FLIPPED, TRANSFER, Translator
from pipeline.preprocessing.degradation import Degradation
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan

RESTORED = "The scan with the difference added that the network predicts: what it takes degradation to have done"
REMOVED = "Input minus restored, in the scan's units: noise and artefacts, or whatever else was taken for them"
SIMULATED = (
    "The network was trained on simulated degradation; whether detail that it adds was there, nothing in the scan says."
)


class Restorer(Translator):
    """Applies a network that predicts the difference image of a degraded scan, by residual transfer.

    Only the difference is brought back to the scan's own grid and added inside head or body; air is left as it is. The
    products are `restored` and `removed` (input − restored).

    Thick slices can be restored on the grid of thin ones alone: what a thick slice holds is the mean over its
    thickness, and on its own grid nothing is amiss. So a network for them takes scans that were resampled to thin
    slices, and says so of others.

    Args:
        network: images (B, C, H, W) in [0, 1] to restored slices (B, 1, H, W) of the first sequence.
        grid: the network's grid.
        window: how its intensity window is chosen.
        slab: the middle slices that it was trained on; None restores the whole volume.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: slices at once.
        channels: names of the sequences that the network takes, the one that it restores first.
        neighbours: slices above and below that it sees with each.
        flip_average: average the difference over the slices and their mirror images (right to left).
        thickest_mm: of a scan's slices; None takes any.
        degradation: that it was trained to undo, which an evaluation simulates; None if that is not known.

    Raises:
        UsageError: if a value is out of range.
    """

    kind = "restorer"
    main: tuple[str, ProductKind] = ("restored", "image")

    def __init__(
        self,
        network: nn.Module,
        grid: Grid,
        window: WindowRule,
        slab: Slab | None = None,
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 4,
        channels: tuple[str, ...] = ("image",),
        neighbours: int = 0,
        flip_average: bool = False,
        thickest_mm: float | None = None,
        degradation: Degradation | None = None,
    ) -> None:
        if thickest_mm is not None and (isinstance(thickest_mm, bool) or not thickest_mm > 0):
            raise UsageError(f"thickest_mm: found {thickest_mm!r}, expected a thickness above 0 mm, or null")
        super().__init__(network, grid, window, slab, device, inferer, batch_size, channels, neighbours, flip_average)
        self.thickest_mm = thickest_mm
        self.degradation = degradation

    @property
    def settings(self) -> dict[str, Any]:
        """What a user may change of it, as records keep it."""
        return {"Slab": super().settings["Slab"], "FlipAverage": self.flip_average}

    def __call__(self, inputs: Inputs) -> Result:
        """Restore a scan.

        Raises:
            ScanError: as `Translator`, or if its slices are too thick.
        """
        slice_mm = inputs.scan.axial_spacing_mm[0]
        if self.thickest_mm is not None and slice_mm > self.thickest_mm:
            raise ScanError(
                f"{inputs.scan.origin}: has slices of {slice_mm:g} mm, expected at most {self.thickest_mm:g} mm: a "
                "thick slice holds its own mean, and detail across slices has no place on its grid; resample the scan "
                "to thin slices first"
            )
        return super().__call__(inputs)

    def _result(self, scan: Scan, edit: Any) -> Result:
        removed = stored_difference(scan.stored, edit.stored)
        change = removed.astype("float32")
        change *= scan.slope
        transfer = TRANSFER.format(what="axial slices", low=edit.window.low, high=edit.window.high)
        figures = amounts(change, edit.edited, edit.edited & False, edit.window, scan)
        return Result(
            scan=scan,
            products=(
                Product("restored", "image", edit.stored, "scan", "restored", RESTORED),
                Product("removed", "difference", removed, "scan", "removed", REMOVED),
            ),
            region=edit.edited,
            window=edit.window,
            notes=edit.notes,
            steps=edit.steps,
            figures=(
                *(figure for figure in figures if figure.name != "LesionMl"),
                *((edit.flip,) if edit.flip else ()),
            ),
            facts={"EditedVoxels": int(edit.edited.sum()), "ChangedVoxels": int((edit.stored != scan.stored).sum())},
            made="The scan was restored",
            method=(transfer, FLIPPED if edit.flip else NOT_FLIPPED, SIMULATED),
        )
