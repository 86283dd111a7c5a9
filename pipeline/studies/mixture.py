"""A mixture of eight Gaussians on a circle, on which collapse can be counted (Metz et al. 2017, Section 3.1)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.networks.dcgan import MinibatchDiscrimination

MODES = 8
RADIUS = 2.0
DEVIATION = 0.05
# A point further than so many deviations from all centres is on no mode; of a Gaussian's own points, 1.1 % are.
REACH = 3.0
# A mode is covered if it has this part of its fair share of the points.
LEAST_SHARE = 0.1
LATENT = 16
WIDTH = 128


def centres() -> Float[Tensor, "8 2"]:
    """Of the Gaussians, on a circle."""
    angles = torch.arange(MODES) * (2 * math.pi / MODES)
    return RADIUS * torch.stack((angles.cos(), angles.sin()), dim=1)


class MixtureDataset(Dataset[dict[str, Tensor]]):
    """Points of the mixture.

    Args:
        count: of points.
        seed: by which they are drawn.
    """

    def __init__(self, count: int, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        mode = torch.randint(MODES, (count,), generator=random)
        self.points = centres()[mode] + DEVIATION * torch.randn(count, 2, generator=random)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`image` (2,), the point: what a method calls its real sample."""
        return {"image": self.points[index]}


def generator() -> nn.Module:
    """Noise (B, 16) to points (B, 2)."""
    return nn.Sequential(nn.Linear(LATENT, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2))


def discriminator(minibatch_kernels: int = 0) -> nn.Module:
    """Points (B, 2) to linear scores (B, 1)."""
    layers: list[nn.Module] = [nn.Linear(2, WIDTH), nn.LeakyReLU(0.2), nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(0.2)]
    if minibatch_kernels:
        layers.append(MinibatchDiscrimination(WIDTH, minibatch_kernels))
    return nn.Sequential(*layers, nn.Linear(WIDTH + minibatch_kernels, 1))


def coverage(points: Float[Tensor, "points 2"]) -> dict[str, float]:
    """How many modes points cover, and how many points lie on one.

    Returns:
        `modes`, 0 to 8; `on_modes`, the share of points within `REACH` deviations of a centre.
    """
    distances, nearest = torch.cdist(points, centres()).min(dim=1)
    on_mode = distances <= REACH * DEVIATION
    counts = torch.bincount(nearest[on_mode], minlength=MODES)
    return {
        "modes": float((counts >= LEAST_SHARE * len(points) / MODES).sum()),
        "on_modes": float(on_mode.float().mean()),
    }
