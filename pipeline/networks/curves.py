"""Generator and critic of curves, sequences of points (Wolterink et al. 2018; survey, Section 5.1)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.networks.blocks import LEAK

START = 8  # points that a curve begins as


def _doublings(points: int) -> int:
    doublings = (points // START).bit_length() - 1
    if doublings < 1 or points != START << doublings:
        raise ValueError(f"points is {points}, expected {START} doubled some times, for example 32")
    return doublings


class CurveGenerator(nn.Module):
    """Latent to curve: from 8 points, doubled by linear interpolation and convolved along the curve, to all.

    Neighbouring points come of the same features, so a curve has no holes.

    Args:
        latent: length of the latent.
        points: along the curve; 8 doubled some times.
        channels: numbers of each point.
        filters: of each convolution.
    """

    def __init__(self, latent: int = 16, points: int = 32, channels: int = 4, filters: int = 32) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for _ in range(_doublings(points)):
            stages += [
                nn.Upsample(scale_factor=2, mode="linear", align_corners=False),
                nn.Conv1d(filters, filters, 5, padding=2, padding_mode="replicate"), nn.LeakyReLU(LEAK),
            ]  # fmt: skip
        self.layers = nn.Sequential(
            nn.Linear(latent, START * filters), nn.Unflatten(1, (filters, START)), nn.LeakyReLU(LEAK), *stages,
            nn.Conv1d(filters, channels, 5, padding=2, padding_mode="replicate"),
        )  # fmt: skip

    def forward(self, latent: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channel points"]:
        """Curves (B, channels, points), unbounded, of latents (B, latent) ~ N(0, I)."""
        curves: Tensor = self.layers(latent)
        return curves


class CurveCritic(nn.Module):
    """Curve to score: strided convolutions along the curve, without normalisation, as the gradient penalty needs.

    It sees the steps from point to point beside the points: how a curve winds is there, not where it lies.

    Args:
        points: along the curve.
        channels: numbers of each point.
        filters: of each convolution.
    """

    def __init__(self, points: int = 32, channels: int = 4, filters: int = 32) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before = 2 * channels
        for _ in range(_doublings(points)):
            stages += [nn.Conv1d(before, filters, 5, stride=2, padding=2), nn.LeakyReLU(LEAK)]
            before = filters
        self.layers = nn.Sequential(*stages, nn.Flatten(), nn.Linear(START * filters, 1))

    def forward(self, curve: Float[Tensor, "batch channel points"]) -> Float[Tensor, "batch 1"]:
        """One score a curve, shape (B, 1)."""
        steps = nn.functional.pad(curve.diff(dim=2), (0, 1), mode="replicate")
        # A step is a fraction of a curve: brought to about the size of the points.
        scores: Tensor = self.layers(torch.cat((curve, 10 * steps), dim=1))
        return scores
