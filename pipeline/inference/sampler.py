"""Samplers: nothing in, images out."""

from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer, SimpleInferer
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference.network import MOST_SLICES_AT_ONCE, check_whole
from pipeline.inference.products import ProductKind
from pipeline.scans.scan import SPACING_LIMITS_MM

LARGEST_LATENT = 4096
# Four digits in the names of files.
MOST_IMAGES = 9999
LARGEST_SEED = 2**63 - 1


class Sampler:
    """Draws images from a trained generator: slices of no person.

    It takes no scan, and so is no predictor of `predict_scans`.

    Args:
        network: latents (B, latent) of N(0, I) to images (B, 1, right, anterior); what lies outside [0, 1] is clipped.
        latent: length of a latent, from 1 to 4096.
        spacing_mm: side of a pixel of the images.
        device: where to compute.
        inferer: runs the network on a batch; MONAI's `SimpleInferer` if None.
        batch_size: images at once.

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
    ) -> None:
        check_whole("latent", latent, 1, LARGEST_LATENT)
        check_whole("batch_size", batch_size, 1, MOST_SLICES_AT_ONCE)
        low, high = SPACING_LIMITS_MM
        if not isinstance(spacing_mm, int | float) or isinstance(spacing_mm, bool) or not low <= spacing_mm <= high:
            raise UsageError(f"spacing_mm: found {spacing_mm!r}, expected millimetres from {low:g} to {high:g}")
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.latent = latent
        self.spacing_mm = float(spacing_mm)
        self.inferer = inferer or SimpleInferer()
        self.batch_size = batch_size

    @property
    def networks(self) -> dict[str, nn.Module]:
        """By the id in the configs, whose weights they take."""
        return {"network_def": self.network}

    @property
    def settings(self) -> dict[str, Any]:
        """What its images depend on beside the weights, as records keep it."""
        return {"Latent": self.latent, "SpacingMm": self.spacing_mm}

    @torch.inference_mode()
    def sample(self, count: int, seed: int) -> NDArray[np.float32]:
        """Draw images.

        Args:
            count: how many, from 1 to 9999.
            seed: of the latents. They are drawn at once and on the CPU: neither batch size nor device changes them, and
                a larger count with the same seed begins with the same images.

        Returns:
            In [0, 1], shape (count, right, anterior).

        Raises:
            UsageError: if a value is out of range, or the network puts out anything but one channel of slices.
            ScanError: if it puts out NaN or infinite values.
        """
        check_whole("count", count, 1, MOST_IMAGES)
        check_whole("seed", seed, 0, LARGEST_SEED)
        latents = torch.randn(count, self.latent, generator=torch.Generator().manual_seed(seed))
        batches = []
        for batch in latents.split(self.batch_size):
            output = self.inferer(batch.to(self.device), self.network)
            if output.ndim != 4 or output.shape[:2] != (len(batch), 1):
                raise UsageError(
                    f"the network put out {tuple(output.shape)} for {len(batch)} latents, expected images "
                    f"({len(batch)}, 1, H, W); correct network_def in the bundle's inference.json"
                )
            if not output.isfinite().all():
                raise ScanError("the network gave NaN or infinite values, expected numbers; train it anew")
            batches.append(output[:, 0].float().clamp(0, 1).cpu().numpy())
        images: NDArray[np.float32] = np.concatenate(batches)
        return images
