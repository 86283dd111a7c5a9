"""What a predictor is given of one person, and the same as a network is shown it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.inference.preparation import Preparation, View
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.labels import empty, lesion_voxels
from pipeline.preprocessing.slab import WHOLE, Slab
from pipeline.preprocessing.window import Window, WindowRule
from pipeline.scans import Scan, check_same_grid, on_grid_of

# Called with what the network will see and its windowed axial slices; it gives notes, and may refuse the scan.
Check = Callable[[Scan, NDArray[np.float32]], list[str]]


@dataclass(frozen=True)
class Inputs:
    """One person's scans.

    Args:
        scan: the scan whose grid the results lie on.
        channels: further sequences by name, on the same grid.
        mask: a lesion mask on the same grid, for predictors that take one.
        steps: what is done to the scan before inference.
        check: called with the scan as the network will see it, before it does.
    """

    scan: Scan
    channels: Mapping[str, Scan] = field(default_factory=dict)
    mask: Scan | None = None
    steps: Preparation = field(default_factory=Preparation)
    check: Check | None = None


@dataclass(frozen=True)
class Seen:
    """The inputs as a network is shown them, as axial slices.

    Args:
        view: the scan after the steps, and the way back.
        window: what stands for [0, 1], of the first sequence.
        axial: its intensities, float32, shape (slices, right, anterior).
        windowed: all sequences in [0, 1], float32, shape (slices, C, right, anterior).
        foreground: head or body, bool, shape (slices, right, anterior).
        notes: for the user.
        steps: as a sidecar records them.
    """

    view: View
    window: Window
    axial: NDArray[np.float32]
    windowed: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    notes: list[str]
    steps: list[dict[str, Any]]

    @property
    def scan(self) -> Scan:
        """The scan as the network sees it, on the view's grid."""
        return self.view.scan

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along (slices, right, anterior)."""
        return self.view.scan.axial_spacing_mm

    def on_scan(self, axial: NDArray[np.float32], in_units: bool = True) -> NDArray[np.float32]:
        """Axial values of the view on the scan's own grid, float32, shape (X, Y, Z)."""
        volume = np.zeros(self.scan.shape, dtype=np.float32)
        self.scan.axial(volume)[...] = axial
        return self.view.back(volume, in_units)

    def region_on_scan(self, axial: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """An axial region of the view on the scan's own grid, bool, shape (X, Y, Z)."""
        if self.view.pose is not None:
            return self.on_scan(axial.astype(np.float32), in_units=False) > 0
        volume = np.zeros(self.scan.shape, dtype=bool)
        self.scan.axial(volume)[...] = axial
        return volume

    def points_mm(self, axial: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Where the voxels of an axial region lie in the view's space, shape (N, 3), in the order of `array[axial]`."""
        voxel = self.scan.axial(np.arange(self.scan.stored.size).reshape(self.scan.shape))[axial]
        points: NDArray[np.float64] = apply_affine(
            self.scan.affine, np.stack(np.unravel_index(voxel, self.scan.shape), axis=1)
        )
        return points

    def slab(self, slab: Slab | None) -> tuple[NDArray[np.bool_], int, list[str]]:
        """The foreground inside a slab (None keeps all), how many slices of it lie outside, and a note if some do."""
        first, end = (slab or WHOLE).range(len(self.foreground), self.spacing_mm[0])
        outside = int(self.foreground[:first].any(axis=(1, 2)).sum() + self.foreground[end:].any(axis=(1, 2)).sum())
        region = self.foreground.copy()
        region[:first] = region[end:] = False
        if not outside:
            return region, 0, []
        seen = f"{end - first} middle slices"
        return (
            region,
            outside,
            [f"{outside} slices outside the {seen}, which are like those of the training, were left alone"],
        )

    def span(self, region: NDArray[np.bool_] | NDArray[np.float32]) -> slice:
        """From the first to the last axial slice of a region.

        Raises:
            ScanError: if it is empty.
        """
        indices = np.flatnonzero(region.any(axis=(1, 2)))
        if not len(indices):
            raise ScanError(
                f"{self.view.source.origin}: found nothing brighter than air in any slice, expected a head or body; "
                "check the window"
            )
        return slice(int(indices[0]), int(indices[-1]) + 1)

    def mask(self, mask: Scan) -> tuple[NDArray[np.bool_], list[str]]:
        """A mask on the scan's grid as an axial region of the view, and notes on what was assumed of it.

        Raises:
            ScanError: if it lies on another grid, is empty, or is no lesion mask.
        """
        mask = on_grid_of(self.view.source, mask)
        check_same_grid(self.view.source, mask, "mask")
        lesion, notes = lesion_voxels(mask, self.view.source)
        if not lesion.any():
            raise ScanError(f"{mask.origin}: the mask {empty(mask)}, expected a lesion; give another mask")
        binary = replace(mask, stored=lesion.astype(np.uint8), slope=1.0, intercept=0.0)
        inside = self.scan.axial(self.view.mask(binary).intensities()) > 0
        if not inside.any():
            raise ScanError(f"{mask.origin}: the mask lies outside the template, expected it inside; leave it out")
        return inside, notes

    def told(self, notes: list[str]) -> list[str]:
        """Notes on what was done on the view's grid."""
        if self.view.pose is None:
            return notes
        return [f"on the grid that it was registered to, {note}" for note in notes]


def see(inputs: Inputs, window: WindowRule, channels: Sequence[str] = ("image",)) -> Seen:
    """Take the steps, window the intensities, and stack the sequences.

    Args:
        inputs: of one person.
        window: how each sequence's intensity window is chosen.
        channels: the sequences that the network takes, the scan's own first.

    Raises:
        ScanError: if a sequence is missing or lies on another grid, a step fails, or the check refuses the scan.
    """
    view, notes, steps = inputs.steps.view(inputs.scan)
    scan = view.scan
    intensities = scan.intensities()
    notes += inputs.scan.notes
    chosen = window.window(intensities, inputs.scan.origin)
    if window.fixed is None and chosen.low > 0:
        notes.append(f"air was taken to have an intensity of {chosen.low:g}, and left as it is")
    axial = scan.axial(intensities)
    windowed = chosen.apply(axial)
    if inputs.check is not None:
        notes += inputs.check(scan, windowed)
    if scan.header["qform_code"] == 0 == scan.header["sform_code"]:
        note = "the header does not say how the scan lies in space; its axes were taken as NIfTI's default"
        notes += [note] if view.pose is None else [f"on the grid that it was registered to, {note}"]
    others = []
    for name in channels[1:]:
        other = _channel(inputs, name, channels)
        values = inputs.steps.like(view, other).intensities()
        others.append(scan.axial(window.window(values, other.origin).apply(values)))
    return Seen(
        view=view,
        window=chosen,
        axial=axial,
        windowed=np.stack([windowed, *others], axis=1) if others else windowed[:, None],
        foreground=foreground(windowed),
        notes=notes,
        steps=steps,
    )


def _channel(inputs: Inputs, name: str, channels: Sequence[str]) -> Scan:
    if name not in inputs.channels:
        raise ScanError(
            f"{inputs.scan.origin}: found {', '.join(inputs.channels) or 'no other sequence'} beside it, expected "
            f"{', '.join(channels[1:])}, which the bundle takes with {channels[0]}; give --channel {name}=FILE"
        )
    other = on_grid_of(inputs.scan, inputs.channels[name])
    check_same_grid(inputs.scan, other, f"channel {name}")
    return other
