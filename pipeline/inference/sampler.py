"""Samplers: nothing in, images out; or a class or lesion masks in, on which the images are conditioned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer, SimpleInferer
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference.network import MOST_SLICES_AT_ONCE, check_whole
from pipeline.inference.products import ProductKind
from pipeline.networks.dcgan import CLASSES, CONDITIONS, Condition, with_class
from pipeline.preprocessing.grid import Grid
from pipeline.scans import read_nifti
from pipeline.scans.scan import SPACING_LIMITS_MM, check_labels

LARGEST_LATENT = 4096
# Four digits in the names of files.
MOST_IMAGES = 9999
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Samples:
    """Images of no person.

    Attributes:
        images: in [0, 1], shape (count, right, anterior).
        masks: of the lesion, shape (count, right, anterior), in {0, 1}: made with the images, or given to them; None
            where there are none.
        labels: the class of each where images are conditioned on one, else None.
    """

    images: NDArray[np.float32]
    masks: NDArray[np.uint8] | None = None
    labels: tuple[str, ...] | None = None


class Sampler:
    """Draws images from a trained generator: slices of no person.

    It takes no scan, and so is no predictor of `predict_scans`.

    Args:
        network: latents (B, latent) of N(0, I) to images (B, 1, right, anterior), with the mask as a second channel in
            joint synthesis; what lies outside [0, 1] is clipped.
        latent: length of a latent, from 1 to 4096.
        spacing_mm: side of a pixel of the images.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: images at once.
        condition: what the network takes beside a latent: `none`; `class`: behind it, as `with_class` has it; `mask`: a
            lesion mask (B, 1, right, anterior) as a second argument.
        joint: the network makes image and lesion mask.
        grid: of masks that are given, for the condition `mask`.

    Raises:
        UsageError: if a value is out of range.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 12), nn.Sigmoid(), nn.Unflatten(1, (1, 3, 4)))
        >>> Sampler(network, latent=2, spacing_mm=1.0).sample(count=5, seed=0).shape
        (5, 3, 4)
    """

    kind = "sampler"
    main: tuple[str, ProductKind] = ("sample", "image")
    output_types = frozenset({"image"})

    def __init__(
        self,
        network: nn.Module,
        latent: int,
        spacing_mm: float,
        device: torch.device | str = "cpu",
        inferer: Inferer | None = None,
        batch_size: int = 16,
        condition: Condition = "none",
        joint: bool = False,
        grid: Grid | None = None,
    ) -> None:
        check_whole("latent", latent, 1, LARGEST_LATENT)
        check_whole("batch_size", batch_size, 1, MOST_SLICES_AT_ONCE)
        low, high = SPACING_LIMITS_MM
        if not isinstance(spacing_mm, int | float) or isinstance(spacing_mm, bool) or not low <= spacing_mm <= high:
            raise UsageError(f"spacing_mm: found {spacing_mm!r}, expected millimetres from {low:g} to {high:g}")
        if condition not in CONDITIONS:
            raise UsageError(f"condition: found {condition!r}, expected one of {', '.join(CONDITIONS)}")
        if condition == "mask" and grid is None:
            raise UsageError("grid: found none, expected that of the masks on which images are conditioned; name it")
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.latent = latent
        self.spacing_mm = float(spacing_mm)
        self.inferer = inferer or SimpleInferer()
        self.batch_size = batch_size
        self.condition, self.joint, self.grid = condition, joint, grid

    @property
    def networks(self) -> dict[str, nn.Module]:
        """By the id in the configs, whose weights they take."""
        return {"network_def": self.network}

    @property
    def settings(self) -> dict[str, Any]:
        """What its images depend on beside the weights, as records keep it."""
        conditioned = {} if self.condition == "none" else {"Condition": self.condition}
        return {"Latent": self.latent, "SpacingMm": self.spacing_mm, **conditioned}

    def sample(self, count: int, seed: int) -> NDArray[np.float32]:
        """The images alone of `draw`, shape (count, right, anterior)."""
        return self.draw(count, seed).images

    @torch.inference_mode()
    def draw(self, count: int, seed: int, label: str | None = None, masks: NDArray[np.uint8] | None = None) -> Samples:
        """Draw images.

        Args:
            count: how many, from 1 to 9999.
            seed: of the latents. They are drawn at once and on the CPU: neither batch size nor device changes them, and
                a larger count with the same seed begins with the same images.
            label: one of `CLASSES`, where images are conditioned on a class; None takes all in turn.
            masks: on the sampler's grid, shape (N, right, anterior), N at least 1; taken in turn. For the condition
                `mask`, and for no other.

        Raises:
            UsageError: if a value is out of range, images are not conditioned on what is given or lack what they are
                conditioned on, or the network puts out anything but slices.
            ScanError: if it puts out NaN or infinite values.
        """
        check_whole("count", count, 1, MOST_IMAGES)
        check_whole("seed", seed, 0, LARGEST_SEED)
        self._check_condition(label, masks)
        latents = torch.randn(count, self.latent, generator=torch.Generator().manual_seed(seed))
        labels = given = None
        if self.condition == "class":
            indices = (
                torch.arange(count) % len(CLASSES) if label is None else torch.full((count,), CLASSES.index(label))
            )
            latents, labels = with_class(latents, indices), tuple(CLASSES[index] for index in indices)
        if masks is not None:
            given = torch.from_numpy(masks[np.arange(count) % len(masks)]).float()[:, None]
        made = torch.cat(
            [
                self._made(latents[each], None if given is None else given[each])
                for each in torch.arange(count).split(self.batch_size)
            ]
        )
        images: NDArray[np.float32] = made[:, 0].numpy()
        if self.joint:
            given = (made[:, 1:] >= 0.5).float()
        return Samples(images, None if given is None else given[:, 0].numpy().astype(np.uint8), labels)

    def _check_condition(self, label: str | None, masks: NDArray[np.uint8] | None) -> None:
        if label is not None and self.condition != "class":
            raise UsageError(
                f"class {label}: found a sampler whose images are of no class, expected one of a training with the "
                "condition class; leave it out"
            )
        if label not in (None, *CLASSES):
            raise UsageError(f"class: found {label!r}, expected one of {', '.join(CLASSES)}")
        if (masks is not None) != (self.condition == "mask"):
            found, remedy = ("none", "give some") if masks is None else ("some", "leave them out")
            raise UsageError(
                f"masks: found {found}, expected {'some' if masks is None else 'none'} for a sampler of the condition "
                f"{self.condition}; {remedy}"
            )

    def _made(self, latents: Tensor, masks: Tensor | None) -> Tensor:
        """What the network makes of a batch, shape (B, C, right, anterior), on the CPU."""
        channels = 1 + self.joint
        given = () if masks is None else (masks.to(self.device),)
        output: Tensor = self.inferer(latents.to(self.device), self.network, *given)
        if output.ndim != 4 or output.shape[:2] != (len(latents), channels):
            raise UsageError(
                f"the network put out {tuple(output.shape)} for {len(latents)} latents, expected images "
                f"({len(latents)}, {channels}, H, W); correct network_def in the bundle's inference.json"
            )
        if not output.isfinite().all():
            raise ScanError("the network gave NaN or infinite values, expected numbers; train it anew")
        return output.float().clamp(0, 1).cpu()


def masks_on(grid: Grid, files: Sequence[Path]) -> NDArray[np.uint8]:
    """The axial slices of lesion masks that have a lesion, on a sampler's grid, shape (N, right, anterior).

    Raises:
        ScanError: if a file is no mask, or no slice has a lesion that is seen on the grid.
    """
    slices = []
    for path in files:
        mask = read_nifti(path, constant_ok=True)
        check_labels(mask)
        axial = torch.from_numpy((mask.axial(mask.intensities()) > 0).astype(np.float32))[:, None]
        _, right_mm, anterior_mm = mask.axial_spacing_mm
        slices.append(grid.masks(axial[axial.flatten(1).any(dim=1)], (right_mm, anterior_mm))[:, 0])
    found = torch.cat(slices)
    found = found[found.flatten(1).any(dim=1)]
    if not len(found):
        raise ScanError(
            f"{', '.join(map(str, files))}: found no lesion that is seen on the grid of {grid.spacing_mm:g} mm, "
            "expected one; give another mask"
        )
    voxels: NDArray[np.uint8] = found.numpy().astype(np.uint8)
    return voxels
