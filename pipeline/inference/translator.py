"""Translators: image in, image out, by residual transfer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference.change import CHANGE, amounts, cut_off, lesion_mask
from pipeline.inference.inputs import Inputs, Seen, see
from pipeline.inference.network import GridNetwork, NetworkPredictor
from pipeline.inference.products import Figure, Product, ProductKind, Result
from pipeline.inference.stored import add_intensity, stored_difference
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import Grid, VolumeGrid
from pipeline.preprocessing.slab import WHOLE, Slab
from pipeline.preprocessing.window import Window, WindowRule
from pipeline.scans import Scan

# Beyond the lesion mask, edits fade out over this distance, so that no seam is seen.
MARGIN_MM = 5.0
# Towards a slab's end inside head or body, at most over a quarter of the slab; over 5 mm, the eye still finds the end.
FADE_MM = 10.0
# Of the Gaussian along the slices, in standard deviations.
TRUNCATE = 3.0
MOST_SMOOTH_MM = 20.0
# The generators' stride: a field of view below it has nothing for them to see.
MIN_PIXELS = 4
# Test-time augmentation: the slices mirrored right to left or not, and these factors of their intensities. A network
# that is sure of its change makes it in all of them.
BRIGHTNESS = (0.95, 1.0, 1.05)
TRANSFER = (
    "The network was applied to {what}, windowed to [{low:g}, {high:g}] in the scan's units; only its residual was "
    "resampled to the scan's grid, rescaled to its intensities and added, so that all other voxels keep their exact "
    "values."
)
FLIPPED = (
    "The residual was averaged with that of the slices flipped left to right, so that a flipped scan gets the flipped "
    "result."
)
NOT_FLIPPED = "A scan flipped left to right may be changed differently; how differently was not measured."
SMOOTHED = (
    "The residual was smoothed across slices by a Gaussian of {width:g} mm (standard deviation) inside the edited "
    "region, so that neighbouring slices agree."
)
SPREAD = (
    "Its uncertainty was taken as the standard deviation over six versions of each slice, mirrored or not and at 95, "
    "100 and 105 % of its brightness."
)


class Translator(NetworkPredictor):
    """Applies a trained image-to-image network to whole scans by residual transfer.

    The network works on its own grid and intensity range. Only its residual, output − input, is brought back: resampled
    to the scan's pixels, rescaled to the scan's units, and added inside the edited region. The scan itself is never
    resampled. The products are `pseudohealthy`, `anomaly` (input − pseudo-healthy), `lesion`, what was taken for
    disease, and, where asked for, `uncertainty`.

    Args:
        network: pathological images (B, C, …) in [0, 1] to pseudo-healthy ones (B, 1, …) of the first sequence.
        grid: the network's grid.
        window: how its intensity window is chosen.
        slab: the middle slices that the network was trained on; it has not seen others, and leaves them as they are.
            None edits the whole volume.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: slices at once.
        channels: names of the sequences that the network takes, the one that it changes first.
        neighbours: slices above and below that it sees with each.
        flip_average: average the residual over the slices and their mirror images (right to left), which makes the
            result of a flipped scan the flipped result; twice the network's work. For anatomy that is symmetric: a
            network has seen no mirrored liver.
        smooth_mm: standard deviation of a Gaussian that smooths the residual across slices, which the network sees one
            by one, so that neighbours agree. Slices thicker than twice as much stay as they are, as do volumes; 0
            smooths none.

    Raises:
        UsageError: if a value is out of range.

    Attributes:
        uncertainty: whether it is measured, too.
    """

    kind = "translator"
    main: tuple[str, ProductKind] = ("pseudohealthy", "image")
    output_types = frozenset({"image"})

    def __init__(
        self,
        network: nn.Module,
        grid: Grid | VolumeGrid,
        window: WindowRule,
        slab: Slab | None = None,
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 4,
        channels: tuple[str, ...] = ("image",),
        neighbours: int = 0,
        flip_average: bool = False,
        smooth_mm: float = 0.0,
    ) -> None:
        if not isinstance(flip_average, bool):
            raise UsageError(f"flip_average: found {flip_average!r}, expected true or false")
        if (
            isinstance(smooth_mm, bool)
            or not isinstance(smooth_mm, int | float)
            or not 0 <= smooth_mm <= MOST_SMOOTH_MM
        ):
            raise UsageError(f"smooth_mm: found {smooth_mm!r}, expected a number from 0 to {MOST_SMOOTH_MM:g}")
        runner = GridNetwork(network, grid, device, inferer, batch_size, neighbours)
        super().__init__(runner, window, channels, slab or WHOLE)
        self.flip_average = flip_average
        self.smooth_mm = smooth_mm
        self.uncertainty = False

    @property
    def settings(self) -> dict[str, Any]:
        """What a user may change of it, as records keep it."""
        own = {"FlipAverage": self.flip_average, "SmoothMm": self.smooth_mm, "Uncertainty": self.uncertainty}
        return {**super().settings, **own}

    @property
    def joins_slices(self) -> bool:
        """Whether what it makes of a slice depends on others."""
        return super().joins_slices or self.smooth_mm > 0

    def residual(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
        """Network output − network input on the slices' own pixels, averaged over flips and smoothed as set.

        Args:
            windowed: axial slices in [0, 1], shape (slices, C, right, anterior), without gaps if `joins_slices`.
            spacing_mm: voxel size along (slices, right, anterior).

        Returns:
            Values in [−1, 1], shape (slices, right, anterior).

        Raises:
            ScanError: if the network gives NaN or infinite values.
        """
        residual = _mean(self._residuals(windowed, spacing_mm))
        if not self._smooths(spacing_mm[0]):
            return residual
        return self._smoothed(residual, foreground(windowed[:, 0]), spacing_mm[0])

    def _smooths(self, slice_mm: float) -> bool:
        return not isinstance(self.runner.grid, VolumeGrid) and self.smooth_mm > 0 and slice_mm <= 2 * self.smooth_mm

    def _smoothed(
        self, residual: NDArray[np.float32], where: NDArray[np.bool_], slice_mm: float
    ) -> NDArray[np.float32]:
        """A residual smoothed across the slices of a region, out of which nothing comes in; elsewhere as it was."""
        if not self._smooths(slice_mm):
            return residual

        def across(values: NDArray[np.float32]) -> NDArray[np.float32]:
            sigma = self.smooth_mm / slice_mm
            return ndimage.gaussian_filter1d(values, sigma, axis=0, mode="constant", truncate=TRUNCATE)

        smooth: NDArray[np.float32] = residual.copy()
        smooth[where] = across(residual * where)[where] / across(where.astype(np.float32))[where]
        return smooth

    def _residuals(
        self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]
    ) -> list[NDArray[np.float32]]:
        """The residual of the slices and, with `flip_average`, that of their mirror images, mirrored back."""
        residuals = [self._one_way(windowed, spacing_mm)]
        if self.flip_average:
            residuals.append(self._flipped(windowed, spacing_mm))
        return residuals

    def _flipped(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
        return self._one_way(np.ascontiguousarray(windowed[:, :, ::-1]), spacing_mm)[:, ::-1]

    def _one_way(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
        residual = np.empty((windowed.shape[0], *windowed.shape[2:]), dtype=np.float32)

        def change_of(images: Tensor, output: Tensor) -> Tensor:
            if output.shape[1] != 1:
                raise ScanError(f"the network gave {output.shape[1]} channels, expected the first sequence alone")
            return output - self.runner.main_channel(images)

        for batch, change in self.runner.on_pixels(windowed, spacing_mm, change_of):
            residual[batch] = change[:, 0].clip(-1, 1)
        return residual

    def augmented_deviation(
        self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float], where: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Standard deviation of the residual over mirrored, darker and brighter versions of the slices, brought back.

        Args:
            windowed: axial slices in [0, 1], shape (slices, C, right, anterior).
            spacing_mm: voxel size along (slices, right, anterior).
            where: the residual is applied, and smoothed, shape (slices, right, anterior).

        Returns:
            In [0, 1], shape (slices, right, anterior).
        """
        residuals = []
        for factor in BRIGHTNESS:
            shown = np.minimum(windowed * np.float32(factor), np.float32(1))
            for one in (self._one_way, self._flipped):
                change = one(shown, spacing_mm) / np.float32(factor)
                residuals.append(self._smoothed(change, where, spacing_mm[0]))
        deviation: NDArray[np.float32] = np.std(residuals, axis=0, dtype=np.float32)
        return deviation

    def _try(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> None:
        self._one_way(windowed, spacing_mm)

    def __call__(self, inputs: Inputs) -> Result:
        """Make the pseudo-healthy twin of a scan.

        With a lesion mask, edits are confined to it and a margin of `MARGIN_MM`, over which they fade out, in whatever
        slice they lie; without one, head or body is edited in the slab, and where that ends inside it, edits fade out
        over its last `FADE_MM`.

        Raises:
            ScanError: if the scan holds nothing brighter than air, its slices are too small for the network, the mask
                lies on another grid or is empty, a step fails, or the network gives no numbers.
        """
        return self._result(inputs.scan, self._edit(inputs))

    def _edit(self, inputs: Inputs) -> "_Edit":
        """All that holds the scan as the network saw it, which is let go of before the result is counted."""
        scan = inputs.scan
        seen = see(inputs, self.window, self.channels)
        if inputs.mask is None:
            region, left_out, notes = seen.slab(self.slab)
            span = seen.span(region)
            weight = _slab_weight(seen, region, span)
        else:
            inside, notes = seen.mask(inputs.mask)
            weight, left_out = _fading(seen, inside), 0
            span = seen.span(weight)
        self._check_size(seen, scan)
        residuals = self._residuals(seen.windowed[span], seen.spacing_mm)
        where = weight[span] > 0
        flip = _agreement(residuals, where, seen.scan.voxel_ml) if self.flip_average else None
        residual = self._smoothed(_mean(residuals), where, seen.spacing_mm[0])
        volume = np.zeros(seen.scan.shape, dtype=np.float32)
        seen.scan.axial(volume)[span][where] = seen.window.residual(
            seen.axial[span][where], residual[where] * weight[span][where]
        )
        change = seen.view.back(volume)
        edited = seen.region_on_scan(weight > 0)
        deviation = None
        if self.uncertainty:
            volume = np.zeros(seen.scan.shape, dtype=np.float32)
            spread = self.augmented_deviation(seen.windowed[span], seen.spacing_mm, where)
            seen.scan.axial(volume)[span] = spread * weight[span] * np.float32(seen.window.width)
            deviation = seen.view.back(volume)
        stored, more = add_intensity(scan.stored.copy(order="K"), edited, change[edited], scan.slope)
        notes = [*seen.notes, *seen.told(notes), *more]
        full = seen.region_on_scan(weight == 1) if left_out else None
        width = self.smooth_mm if self._smooths(seen.spacing_mm[0]) else 0.0
        return _Edit(stored, edited, deviation, flip, seen.window, notes, seen.steps, full, width)

    def _check_size(self, seen: Seen, scan: Scan) -> None:
        grid = self.runner.grid
        if isinstance(grid, VolumeGrid):
            return
        height, width = seen.axial.shape[1:]
        pixels = grid.resampled((height, width), seen.spacing_mm[1:])
        if min(pixels) < MIN_PIXELS:
            raise ScanError(
                f"{scan.origin}: found slices of {pixels[0]}×{pixels[1]} pixels of {grid.spacing_mm:g} mm, "
                f"expected at least {MIN_PIXELS}×{MIN_PIXELS}; give a larger field of view"
            )

    def _result(self, scan: Scan, edit: "_Edit") -> Result:
        stored, edited, deviation, window = edit.stored, edit.edited, edit.deviation, edit.window
        anomaly = stored_difference(scan.stored, stored)
        change = anomaly.astype(np.float32)
        change *= np.float32(scan.slope)
        lesion = lesion_mask(change, window, scan)
        warning = None if edit.full is None else cut_off(scan, edit.full, lesion)
        products = [
            Product("pseudohealthy", "image", stored, "scan", "pseudo-healthy", IMAGE),
            Product("anomaly", "difference", anomaly, "scan", "anomaly map", ANOMALY),
            Product("lesion", "mask", lesion.view(np.uint8), "", "lesion mask", LESION),
        ]
        figures = amounts(change, edited, lesion, window, scan) + ((edit.flip,) if edit.flip else ())
        if deviation is not None:
            products.append(Product("uncertainty", "map", deviation, "scan", "uncertainty", UNCERTAINTY))
            mean = float(deviation[edited].mean()) if edited.any() else 0.0
            inside = float(deviation[lesion].mean()) if lesion.any() else None
            figures += (
                Figure("UncertaintyMean", "Uncertainty", mean, "scan units", 3, "in the edited tissue", leading=True),
                Figure(
                    *("UncertaintyLesionMean", "Uncertainty of the lesion", inside, "scan units", 3),
                    detail="in what was taken for disease",
                ),
            )
        what = "the volume" if isinstance(self.runner.grid, VolumeGrid) else "axial slices"
        transfer = TRANSFER.format(what=what, low=window.low, high=window.high)
        return Result(
            scan=scan,
            products=tuple(products),
            region=edited,
            window=window,
            notes=edit.notes,
            warnings=[warning] if warning else [],
            steps=edit.steps,
            figures=figures,
            facts={"EditedVoxels": int(edited.sum()), "ChangedVoxels": int((stored != scan.stored).sum())},
            made="A pseudo-healthy version of the scan was synthesised",
            method=(
                transfer,
                FLIPPED if edit.flip else NOT_FLIPPED,
                *((SMOOTHED.format(width=edit.smooth_mm),) if edit.smooth_mm else ()),
                *(() if deviation is None else (SPREAD,)),
            ),
        )


@dataclass(frozen=True)
class _Edit:
    """What was made of a scan: stored voxels, where they could change, how sure that is, and how it was done.

    `full` is where a slab was edited in full, None where no slice was left out.
    """

    stored: NDArray[np.generic]
    edited: NDArray[np.bool_]
    deviation: NDArray[np.float32] | None
    flip: Figure | None
    window: Window
    notes: list[str]
    steps: list[dict[str, Any]]
    full: NDArray[np.bool_] | None
    smooth_mm: float


IMAGE = "The scan with the network's pseudo-healthy residual added"
ANOMALY = "Input minus pseudo-healthy, in the scan's units"
LESION = "Where the method removed disease: 1 lesion, 0 elsewhere"
UNCERTAINTY = "Standard deviation of the change over test-time augmentations, in the scan's units"


def _mean(residuals: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Of one or two; the same to the last bit in whichever order they come."""
    total = residuals[0]
    for other in residuals[1:]:
        total = (total + other) * np.float32(0.5)
    return total


def _agreement(residuals: list[NDArray[np.float32]], where: NDArray[np.bool_], voxel_ml: float) -> Figure:
    """How alike the changes of a scan and of its mirror image are, in the edited tissue."""
    as_it_is, flipped = (residual[where] for residual in residuals)
    varies = bool(as_it_is.std() and flipped.std())
    ml, flipped_ml = (float((np.abs(change) > CHANGE).sum()) * voxel_ml for change in (as_it_is, flipped))
    return Figure(
        "FlipCorrelation",
        "Agreement when flipped",
        float(np.corrcoef(as_it_is, flipped)[0, 1]) if varies else None,
        "",
        2,
        f"correlation of the network's change with that of the scan flipped left to right ({ml:.1f} and "
        f"{flipped_ml:.1f} ml by more than {100 * CHANGE:g} % of the window); their mean was taken",
    )


def _slab_weight(seen: Seen, region: NDArray[np.bool_], span: slice) -> NDArray[np.float32]:
    """1 in the edited region of a slab, falling to 0 towards those of its ends beyond which head or body goes on.

    A slice weighs as much as its middle lies inside the slab, as a share of `FADE_MM`.
    """
    weight = region.astype(np.float32)
    count, slice_mm = span.stop - span.start, seen.spacing_mm[0]
    inside_mm = (np.arange(count, dtype=np.float32) + 0.5) * slice_mm
    ramp = np.minimum(1, inside_mm / min(FADE_MM, count * slice_mm / 4))[:, None, None]
    if seen.foreground[: span.start].any():
        weight[span] *= ramp
    if seen.foreground[span.stop :].any():
        weight[span] *= ramp[::-1]
    return weight


def _fading(seen: Seen, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """1 inside a lesion mask, falling to 0 over `MARGIN_MM` of head or body around it."""
    distance_mm = ndimage.distance_transform_edt(~inside, sampling=seen.spacing_mm)
    fading: NDArray[np.float32] = np.clip(1 - distance_mm / MARGIN_MM, 0, 1).astype(np.float32)
    fading[~seen.foreground & ~inside] = 0
    return fading
