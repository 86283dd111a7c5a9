"""Scorers: image in, a number or class out."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.inferers import Inferer
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference.inputs import Inputs, see
from pipeline.inference.network import GridNetwork, NetworkPredictor, check_names
from pipeline.inference.products import Figure, Product, ProductKind, Result
from pipeline.preprocessing.grid import Grid, VolumeGrid
from pipeline.preprocessing.slab import WHOLE, Slab
from pipeline.preprocessing.window import WindowRule

if TYPE_CHECKING:
    from pipeline.training.held_out import HeldOut

UNMEASURED = "the bundle does not say how far its answers are off on patients that it was not trained on"


class Scorer(NetworkPredictor):
    """Applies a trained regression or classification network to whole scans: the mean over the slices of the slab.

    The products are the number, or of a classifier the probability of each class. Beside them stands how far it was off
    on patients that it was not trained on, where its bundle knows.

    Args:
        network: images (B, C, …) in [0, 1] to the target (B, 1), or to logits (B, K) of K classes.
        grid: the network's grid.
        window: how the intensity window is chosen.
        slab: the middle slices that the network was trained on. None takes the whole volume.
        target: name of the number, e.g. `age`.
        units: of the number, e.g. `years`.
        classes: names of K classes; None for a number.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: slices at once.
        channels: names of the sequences that the network takes.
        neighbours: slices above and below that it sees with each.

    Attributes:
        held_out: its error on patients that it was not trained on; None where that is not known.
    """

    kind = "scorer"
    output_types = frozenset({"regression", "classification"})
    without_error = UNMEASURED  # what to know of an answer whose error is not known

    def __init__(
        self,
        network: nn.Module,
        grid: Grid | VolumeGrid,
        window: WindowRule,
        slab: Slab | None = None,
        target: str = "score",
        units: str = "1",
        classes: tuple[str, ...] | None = None,
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 16,
        channels: tuple[str, ...] = ("image",),
        neighbours: int = 0,
    ) -> None:
        if not target.isidentifier():
            raise UsageError(f"target: found {target!r}, expected a name of letters, digits and _, such as age")
        runner = GridNetwork(network, grid, device, inferer, batch_size, neighbours)
        super().__init__(runner, window, channels, slab or WHOLE)
        self.target = target
        self.units = units
        self.classes = check_names("classes", classes) if classes else None
        self.held_out: HeldOut | None = None

    @property
    def main(self) -> tuple[str, ProductKind]:
        """Name and kind of the main product."""
        return self.classes[0] if self.classes else self.target, "number"

    def scores(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
        """The target, or the probability of each class, slice by slice.

        Args:
            windowed: axial slices in [0, 1], shape (slices, C, right, anterior).
            spacing_mm: voxel size along (slices, right, anterior).

        Returns:
            Shape (slices, 1) or (slices, classes); of a network that takes volumes, one row.

        Raises:
            ScanError: if the network gives NaN or infinite values.
        """
        rows = [output.float().cpu() for _, output in self.runner.outputs(windowed, spacing_mm)]
        expected = len(self.classes or (self.target,))
        if any(row.ndim != 2 or row.shape[1] != expected for row in rows):
            raise ScanError(
                f"the network gave {tuple(rows[0].shape)} for {len(rows[0])} images, expected {expected} numbers each"
            )
        scores = torch.cat(rows)
        values: NDArray[np.float32] = (scores.softmax(dim=1) if self.classes else scores).numpy()
        return values

    def _try(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> None:
        self.scores(windowed, spacing_mm)

    def _error(self) -> tuple[Figure, ...]:
        """The error to expect of an answer."""
        known = self.held_out
        if known is None:
            return ()
        if self.classes:
            right = None if known.accuracy is None else 100 * known.accuracy
            return (Figure("HeldOutAccuracy", "Accuracy", right, "%", 0, f"of {known.counted} of {known.of_whom}"),)
        units = "" if self.units == "1" else self.units
        value = known.mean_absolute_error
        return (Figure("HeldOutError", "Mean absolute error", value, units, 2, f"on {known.of_whom}"),)

    def __call__(self, inputs: Inputs) -> Result:
        """Score a scan.

        Raises:
            ScanError: if a step fails, or the network gives no numbers.
        """
        scan = inputs.scan
        seen = see(inputs, self.window, self.channels)
        region, _, notes = seen.slab(self.slab)
        span = seen.span(region)
        scores = self.scores(seen.windowed[span], seen.spacing_mm)
        spread = (
            f"; mean over {len(scores)} slices, which deviate by {scores[:, 0].std():.3g}" if len(scores) > 1 else ""
        )
        means = scores.mean(axis=0)
        if self.classes is None:
            products = [
                Product(
                    self.target, "number", means[0], self.units, self.target, f"{self.target} by the network{spread}"
                )
            ]
        else:
            products = [
                Product(
                    name,
                    "number",
                    means[index],
                    "1",
                    f"probability of {name}",
                    f"Probability of {name}, not calibrated",
                )
                for index, name in enumerate(self.classes)
            ]
        return Result(
            scan=scan,
            products=tuple(products),
            region=seen.region_on_scan(region),
            window=seen.window,
            notes=[*seen.notes, *seen.told(notes), *([] if self.held_out else [self.without_error])],
            steps=seen.steps,
            figures=tuple(
                Figure(
                    each.name,
                    each.title.capitalize(),
                    each.value,
                    "" if each.units == "1" else each.units,
                    2,
                    leading=True,
                )
                for each in products
            )
            + self._error(),
            facts={"Slices": len(scores), "HeldOut": self.held_out and self.held_out.model_dump(exclude_none=True)},
            made=f"{self.target.capitalize()} was estimated from the scan",
            method=(
                f"{self.target.capitalize()} is the mean of the network's answers over {len(scores)} axial slices.",
            ),
        )
