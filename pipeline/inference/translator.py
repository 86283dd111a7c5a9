"""A scan in, its pseudo-healthy twin out, on the scan's own grid."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer, SimpleInferer
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from pipeline.errors import ScanError
from pipeline.inference.steps import Steps
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import WHOLE, Slab
from pipeline.preprocessing.window import Window, WindowRule
from pipeline.scans import Scan, check_labels, check_same_grid

# Beyond the lesion mask, edits fade out over this distance, so that no seam is seen.
MARGIN_MM = 5.0
# The generators' stride: a field of view below it has nothing for them to see.
MIN_PIXELS = 4
INTEGERS = (np.int16, np.int32, np.int64)
WIDER = {"uint8": "int16", "int8": "int16", "uint16": "int32", "int16": "int32"}
# Test-time augmentation: the slices mirrored right to left or not, and these factors of their intensities. A network
# that is sure of its change makes it in all of them.
BRIGHTNESS = (0.95, 1.0, 1.05)


@dataclass(frozen=True)
class Twin:
    """A scan and its pseudo-healthy twin.

    Args:
        scan: the input.
        stored: the twin's voxels in the input's stored units, shape (X, Y, Z), and in its data type, or in a wider one
            if that does not hold them; equal to the input's outside `edited`.
        edited: where the method was allowed to change the scan, bool, shape (X, Y, Z).
        window: what the network was shown as [0, 1], in scan units.
        notes: what the user should know, one sentence each.
        uncertainty: standard deviation of the change over test-time augmentations, in scan units, float32, shape
            (X, Y, Z), 0 outside `edited`; None if it was not asked for.
        steps: what was done to the scan for the network's eyes, as a sidecar records it.
        left_out: slices with tissue that were left alone because they lie outside the slab.
    """

    scan: Scan
    stored: NDArray[np.generic]
    edited: NDArray[np.bool_]
    window: Window
    notes: list[str] = field(default_factory=list)
    uncertainty: NDArray[np.float32] | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    left_out: int = 0

    @cached_property
    def stored_anomaly(self) -> NDArray[np.generic]:
        """Input − pseudo-healthy in stored units, in the smallest type that holds it, shape (X, Y, Z)."""
        change = np.subtract(self.scan.stored, self.stored, dtype=_difference_type(self.stored.dtype))
        if change.dtype.kind != "i":
            return change
        largest = max(-int(change.min()), int(change.max()))
        return change.astype(next(kind for kind in INTEGERS if largest <= np.iinfo(kind).max), copy=False)

    @property
    def anomaly(self) -> NDArray[np.float32]:
        """Input − pseudo-healthy in scan units, float32: what the disease added."""
        anomaly = self.stored_anomaly.astype(np.float32)
        anomaly *= np.float32(self.scan.slope)
        return anomaly


class Translator:
    """Applies a trained network to whole scans by residual transfer.

    The network works on axial slices, on its own grid and intensity range. Only its residual, output − input, is
    brought back: resampled to the scan's pixels, rescaled to the scan's units, and added inside the edited region.
    The scan itself is never resampled.

    Args:
        network: pathological images (B, 1, H, W) in [0, 1] to pseudo-healthy ones.
        grid: the network's grid.
        window: how its intensity window is chosen.
        slab: the middle slices that the network was trained on; it has not seen others, and leaves them as they are.
            None edits the whole volume.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: slices at once.
    """

    def __init__(
        self,
        network: nn.Module,
        grid: Grid,
        window: WindowRule,
        slab: Slab | None = None,
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 4,
    ) -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.grid = grid
        self.window = window
        self.slab = slab or WHOLE
        self.inferer = inferer or SimpleInferer()
        self.batch_size = batch_size

    @torch.inference_mode()
    def residual(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float]) -> NDArray[np.float32]:
        """Network output − network input, on the slices' own pixels.

        Args:
            windowed: axial slices in [0, 1], shape (slices, right, anterior).
            spacing_mm: pixel size along (right, anterior).

        Returns:
            Same shape, values in [−1, 1].

        Raises:
            ScanError: if the network gives NaN or infinite values.
        """
        residual = np.empty(windowed.shape, dtype=np.float32)
        height, width = windowed.shape[1:]
        for first in range(0, len(windowed), self.batch_size):
            batch = slice(first, first + self.batch_size)
            slices = torch.from_numpy(np.ascontiguousarray(windowed[batch, None])).to(self.device)
            images = self.grid.images(slices, spacing_mm)
            change = self.inferer(images, self.network) - images
            if not change.isfinite().all():
                raise ScanError("the network gave NaN or infinite values, expected an image; train it anew")
            back = self.grid.residuals_back(change, (height, width), spacing_mm)
            residual[batch] = back[:, 0].clamp(-1, 1).cpu().numpy()
        return residual

    def augmented_deviation(
        self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float]
    ) -> NDArray[np.float32]:
        """Standard deviation of `residual` over mirrored, darker and brighter versions of the slices, brought back.

        Args:
            windowed: axial slices in [0, 1], shape (slices, right, anterior).
            spacing_mm: pixel size along (right, anterior).

        Returns:
            Same shape, in [0, 1].
        """
        residuals = []
        for factor in BRIGHTNESS:
            seen = np.minimum(windowed * np.float32(factor), np.float32(1))
            residuals.append(self.residual(seen, spacing_mm) / np.float32(factor))
            mirrored = self.residual(np.ascontiguousarray(seen[:, ::-1]), spacing_mm)
            residuals.append(mirrored[:, ::-1] / np.float32(factor))
        deviation: NDArray[np.float32] = np.std(residuals, axis=0, dtype=np.float32)
        return deviation

    def __call__(
        self,
        scan: Scan,
        lesion: Scan | None = None,
        steps: Steps | None = None,
        uncertainty: bool = False,
        check: Callable[[Scan, NDArray[np.float32]], list[str]] | None = None,
    ) -> Twin:
        """Make the twin of a scan.

        Args:
            scan: the input.
            lesion: a lesion mask on the same grid; edits are then confined to it and a margin of `MARGIN_MM`, over
                which they fade out, in whatever slice they lie. Without one, head or body is edited in the slab.
            steps: what is done to the scan before the network sees it.
            uncertainty: measure it too, by test-time augmentation.
            check: called with what the network will see, and with its windowed axial slices, shape (slices, right,
                anterior), before it does; its sentences become notes of the twin, and it may refuse the scan.

        Raises:
            ScanError: if the scan holds nothing brighter than air, its slices are too small for the network, the mask
                lies on another grid or is empty, a step fails, or the network gives no numbers.
        """
        view, notes, record = (steps or Steps()).view(scan)
        seen = view.scan
        intensities = seen.intensities()
        window = self.window.window(intensities, scan.origin)
        axial = seen.axial(intensities)
        windowed = window.apply(axial)
        _, height_mm, width_mm = seen.axial_spacing_mm
        if check is not None:
            notes += check(seen, windowed)
        weight, left_out, more = self._edit_weight(seen, windowed, lesion if lesion is None else view.mask(lesion))
        notes += more if view.pose is None else [f"on the grid that it was registered to, {note}" for note in more]
        places = np.flatnonzero(weight.any(axis=(1, 2)))
        if not len(places):
            raise ScanError(
                f"{scan.origin}: found nothing brighter than air in any slice, expected a head or body; check "
                "the window"
            )
        pixels = self.grid.resampled(axial.shape[1:], (height_mm, width_mm))
        if min(pixels) < MIN_PIXELS:
            raise ScanError(
                f"{scan.origin}: found slices of {pixels[0]}×{pixels[1]} pixels of {self.grid.spacing_mm:g} mm, "
                f"expected at least {MIN_PIXELS}×{MIN_PIXELS}; give a larger field of view"
            )
        span = slice(int(places[0]), int(places[-1]) + 1)
        residual = self.residual(windowed[span], (height_mm, width_mm))
        where = weight[span] > 0
        change = np.zeros(seen.shape, dtype=np.float32)
        seen.axial(change)[span][where] = window.residual(axial[span][where], residual[where] * weight[span][where])
        edited = np.zeros(seen.shape, dtype=bool)
        seen.axial(edited)[span] = where
        deviation = None
        if uncertainty:
            deviation = np.zeros(seen.shape, dtype=np.float32)
            spread = self.augmented_deviation(windowed[span], (height_mm, width_mm))
            seen.axial(deviation)[span] = spread * weight[span] * np.float32(window.width)
            deviation = view.back(deviation)
        change = view.back(change)
        if view.pose is not None:
            edited = view.back(edited.astype(np.float32), in_units=False) > 0

        stored, more = add_intensity(scan.stored.copy(order="K"), edited, change[edited], scan.slope)
        return Twin(scan, stored, edited, window, notes + more, deviation, record, left_out)

    def _edit_weight(
        self, scan: Scan, windowed: NDArray[np.float32], lesion: Scan | None
    ) -> tuple[NDArray[np.float32] | NDArray[np.bool_], int, list[str]]:
        notes = []
        if scan.header["qform_code"] == 0 == scan.header["sform_code"]:
            notes.append("the header does not say how the scan lies in space; its axes were taken as NIfTI's default")
        region = foreground(windowed)
        if lesion is None:
            first, end = self.slab.range(len(region), scan.axial_spacing_mm[0])
            outside = int(region[:first].any(axis=(1, 2)).sum() + region[end:].any(axis=(1, 2)).sum())
            region[:first] = region[end:] = False
            if outside:
                seen = f"{end - first} middle slices"
                notes.append(
                    f"{outside} slices outside the {seen}, which are like those of the training, were left alone"
                )
            return region, outside, notes
        check_same_grid(scan, lesion, "mask")
        check_labels(lesion)
        inside = scan.axial(lesion.intensities()) > 0
        if not inside.any():
            raise ScanError(
                f"{lesion.origin}: the mask is empty, expected a lesion; leave --mask out to edit the whole head"
            )
        distance_mm = ndimage.distance_transform_edt(~inside, sampling=scan.axial_spacing_mm)
        fading = np.clip(1 - distance_mm / MARGIN_MM, 0, 1).astype(np.float32)
        fading[~region & ~inside] = 0
        return fading, 0, notes


def add_intensity(
    stored: NDArray[np.generic], where: NDArray[np.bool_], change: NDArray[np.float32], slope: float
) -> tuple[NDArray[np.generic], list[str]]:
    """Add intensities to some stored voxels, in their data type or, if it does not hold the sums, in a wider one.

    Integers are rounded. The 0 of unsigned integers is taken for the floor of the scanner's own scale: no signal, or
    air; what would lie below it is held there.

    Args:
        stored: voxels in stored units; changed in place where their type is kept.
        where: voxels to touch, same shape; all others keep their exact value.
        change: what to add to these, in scan units, shape (number of them,).
        slope: scan units a stored unit.

    Returns:
        The voxels, and notes for the user if some were held or the type is another.
    """
    step = change / np.float32(slope)
    if not np.issubdtype(stored.dtype, np.integer):
        stored[where] = stored[where] + step.astype(stored.dtype)
        return stored, []
    notes = []
    sums = stored[where].astype(_difference_type(stored.dtype))
    sums += np.rint(step).astype(sums.dtype)
    if stored.dtype.kind == "u" and slope > 0 and (below := sums < 0).any():
        sums[below] = 0
        notes.append(f"{below.sum()} voxels reached 0, below which {stored.dtype} has no values, and were held there")
    dtype = stored.dtype
    if sums.size:
        dtype = _holding(float(sums.min()), float(sums.max()), dtype)
    if dtype != stored.dtype:
        notes.append(f"values beyond the limits of {stored.dtype} are kept in {dtype}")
        stored = stored.astype(dtype)
    stored[where] = sums.astype(dtype)
    return stored, notes


def _holding(low: float, high: float, dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """An integer type, or the next wider one that holds these values and that programs for NIfTI read."""
    while dtype.kind != "f":
        limits = np.iinfo(dtype)  # type: ignore[type-var]
        if limits.min <= low and high <= limits.max:
            break
        dtype = np.dtype(WIDER.get(dtype.name, "float64"))
    return dtype


def _difference_type(dtype: np.dtype[np.generic]) -> type[np.generic]:
    """A type that holds the difference of two values of `dtype`."""
    if np.issubdtype(dtype, np.floating):
        return np.float64 if dtype.itemsize > 4 else np.float32
    return np.int32 if dtype.itemsize <= 2 else np.int64
