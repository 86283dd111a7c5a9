"""Two probes of a translation method that its other numbers do not show (Wolterink et al. 2018, discussion).

Hallucination: a translator can invent structures, or take away what is there. Lesions are in one of its domains only,
so in the other, and outside the lesions, whatever appears or vanishes was made up.

Steganography: a translator that must be undone can hide what it took away in faint patterns of its output (Chu et al.
2017). Then the way back works only as long as those patterns are whole.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.evaluation.volumes import Volume
from pipeline.inference import Translator
from pipeline.inference.change import CHANGE
from pipeline.inference.translator import MARGIN_MM
from pipeline.preprocessing.grid import Grid

AREA_MM2 = 20.0  # smaller specks are noise
BITS = (8, 6, 5, 4)  # grey levels of the intermediate image: 256, 64, 32, 16


class Hallucination:
    """Counts, slice by slice, what appears and vanishes where nothing should change."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, float]] = {
            where: dict.fromkeys(("slices", "appeared", "vanished", "pixels", "changed_pixels"), 0)
            for where in ("healthy_slices", "outside_lesion")
        }

    def add(self, where: str, volume: Volume, pseudo_healthy: Tensor) -> None:
        """Count over the slices of a volume.

        Args:
            where: `healthy_slices`, or `outside_lesion` for pathological ones.
            volume: the slices, and where they may change: the lesion and a margin of `MARGIN_MM` do not count.
            pseudo_healthy: shape (N, 1, H, W) in [0, 1].
        """
        counts = self.counts[where]
        pixel_mm2 = volume.spacing_mm[0] * volume.spacing_mm[1]
        change = (pseudo_healthy.cpu() - volume.image)[:, 0].numpy()
        normal = volume.foreground[:, 0].numpy() & ~_grown(volume.lesion[:, 0].numpy(), volume.spacing_mm)
        for difference, inside in zip(change, normal, strict=True):
            counts["slices"] += 1
            counts["pixels"] += int(inside.sum())
            counts["changed_pixels"] += int((inside & (np.abs(difference) > CHANGE)).sum())
            counts["appeared"] += regions(inside & (difference > CHANGE), pixel_mm2)
            counts["vanished"] += regions(inside & (difference < -CHANGE), pixel_mm2)

    def join(self, counts: Mapping[str, Mapping[str, float]]) -> None:
        """Add the `counts` of other slices."""
        for where, own in self.counts.items():
            for name in own:
                own[name] += counts[where][name]

    def summary(self) -> dict[str, Any]:
        """Per slice: regions that appeared (brighter) and vanished (darker), and the share of tissue that changed.

        None in place of a domain that has no slice.
        """
        found: dict[str, Any] = {"change": CHANGE, "area_mm2": AREA_MM2, "margin_mm": MARGIN_MM}
        for where, counts in self.counts.items():
            slices, pixels = counts["slices"], counts["pixels"]
            found[where] = (
                {
                    "slices": int(slices),
                    "appeared_per_slice": counts["appeared"] / slices,
                    "vanished_per_slice": counts["vanished"] / slices,
                    "changed_share": counts["changed_pixels"] / max(1, pixels),
                }
                if slices
                else None
            )
        return found


class Steganography:
    """Measures how the way back suffers when the intermediate image is quantised.

    Args:
        synthesizer: its network and grid make the intermediate image.
        cycle: from (pseudo-healthy, pathological) images to the reconstruction.
    """

    def __init__(self, synthesizer: Translator, cycle: nn.Module) -> None:
        grid = synthesizer.runner.grid
        if not isinstance(grid, Grid):
            raise UsageError("the way back is probed slice by slice, found a network that takes volumes")
        self.synthesizer, self.grid = synthesizer, grid
        self.cycle = cycle.to(synthesizer.device).eval()
        self.pixels = 0
        self.errors = dict.fromkeys(("exact", *BITS), 0.0)
        self.noise = dict.fromkeys(BITS, 0.0)

    @torch.inference_mode()
    def add(self, volume: Volume) -> None:
        """Go there and back with the slices of a volume, on the network's grid."""
        runner = self.synthesizer.runner
        for image, foreground in zip(
            volume.image.split(runner.batch_size), volume.foreground.split(runner.batch_size), strict=True
        ):
            x_p = self.grid.images(image.to(runner.device), volume.spacing_mm)
            inside = self.grid.masks(foreground.to(x_p), volume.spacing_mm) > 0
            x_s = runner.inferer(x_p, runner.network)
            self.pixels += int(inside.sum())
            self.errors["exact"] += self._error(x_s, x_p, inside)
            for bits in BITS:
                levels = 2**bits - 1
                quantised = (x_s * levels).round() / levels
                self.errors[bits] += self._error(quantised, x_p, inside)
                self.noise[bits] += float((quantised - x_s)[inside].abs().sum())

    def reconstruction(self, volume: Volume) -> Tensor:
        """x̂_p, there and back, on the scan's own pixels: its residual is carried there as that of the twin is.

        Returns:
            Shape (N, 1, H, W), in [0, 1].
        """
        runner = self.synthesizer.runner

        def residual(images: Tensor, x_s: Tensor) -> Tensor:
            x_p = runner.main_channel(images)
            back: Tensor = self.cycle(x_s, x_p) - x_p
            return back

        parts = [torch.from_numpy(p) for _, p in runner.on_pixels(volume.image.numpy(), volume.voxel_mm, residual)]
        return (volume.image + torch.cat(parts) * volume.foreground).clamp(0, 1)

    def sums(self) -> dict[str, Any]:
        """What was summed up, for `join`."""
        by_bits = {name: {str(bits): value for bits, value in sums.items()} for name, sums in self._by_bits()}
        return {"pixels": self.pixels, **by_bits}

    def join(self, sums: Mapping[str, Any]) -> None:
        """Add the `sums` of other slices."""
        self.pixels += sums["pixels"]
        for name, own in self._by_bits():
            for bits in own:
                own[bits] += sums[name][str(bits)]

    def _by_bits(self) -> tuple[tuple[str, dict[Any, float]], ...]:
        return ("errors", self.errors), ("noise", self.noise)

    def _error(self, x_s: Tensor, x_p: Tensor, inside: Tensor) -> float:
        return float((self.cycle(x_s, x_p) - x_p)[inside].abs().sum())

    def summary(self) -> dict[str, Any]:
        """Mean absolute cycle error over the foreground, exact and for each number of bits.

        `amplification` is the error that quantisation adds, divided by the quantisation noise itself: about 1 or less
        where the way back works with what is to be seen, far above where it reads what is hidden.
        """
        exact = self.errors["exact"] / self.pixels
        return {
            "cycle_error": exact,
            "quantised": [
                {
                    "bits": bits,
                    "cycle_error": self.errors[bits] / self.pixels,
                    "noise": self.noise[bits] / self.pixels,
                    "amplification": (self.errors[bits] / self.pixels - exact) / (self.noise[bits] / self.pixels),
                }
                for bits in BITS
            ],
        }


def _grown(lesion: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """The lesion of each slice and a margin around it."""
    return np.stack(
        [
            ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= MARGIN_MM if mask.any() else mask
            for mask in lesion
        ]
    )


def regions(mask: np.ndarray, pixel_mm2: float) -> int:
    """Connected regions of a slice's mask, shape (H, W), that have an area of `AREA_MM2` or more."""
    labels, _ = ndimage.label(mask)
    areas = np.bincount(labels.ravel())[1:] * pixel_mm2
    return int((areas >= AREA_MM2).sum())
