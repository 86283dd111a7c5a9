"""A generator's latent space, looked at: walks, arithmetic with a sign, and codes (survey, Section 2.2)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.metrics.nearest import within

AT_ONCE = 64
# Latents that a direction is found from, and that it is tried on.
FOUND_FROM, TRIED_ON = 1024, 256
# Of the latents, those at either end of what is measured in their images.
END = 0.2

# Images (B, 1, H, W) to one number each.
Measure = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Generator:
    """What makes images of latents.

    Args:
        network: latents (B, latent) of N(0, I) to images (B, 1, H, W) or other samples.
        latent: length of a latent.
        device: where it computes.
    """

    network: nn.Module
    latent: int
    device: torch.device

    def draw(self, count: int, seed: int) -> Tensor:
        """Latents (count, latent), on the CPU."""
        return torch.randn(count, self.latent, generator=torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def __call__(self, latents: Tensor) -> Tensor:
        """Samples of latents, on the CPU."""
        return torch.cat([self.network(part.to(self.device)).float().cpu() for part in latents.split(AT_ONCE)])


def walk(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Latents on the way from some to others, along great circles: as long as those it was trained on (White 2016).

    Args:
        one: latents (B, latent).
        other: latents, same shape.
        share: of the way, from 0 to 1.
    """
    cosine = nn.functional.cosine_similarity(one, other, dim=1).clamp(-1 + 1e-6, 1 - 1e-6)
    angle = cosine.acos()[:, None]
    return (((1 - share) * angle).sin() * one + (share * angle).sin() * other) / angle.sin()


def halfway(generator: Generator, features: Measure, real: Tensor, seed: int) -> dict[str, float]:
    """How many images halfway between two are images at all, on a walk and cross-faded.

    Args:
        generator: what is looked at.
        features: images (B, 1, H, W) to features (B, F).
        real: features (M, F) of real images, whose manifold is asked for.
        seed: of the latents.

    Returns:
        `walk` and `cross_fade`: shares that lie in the manifold of real images; `ends`, of the images they are between.
    """
    one, other = generator.draw(2 * TRIED_ON, seed).chunk(2)
    ends = generator(one), generator(other)
    between = {
        "walk": generator(walk(one, other, 0.5)),
        "cross_fade": (ends[0] + ends[1]) / 2,
        "ends": torch.cat(ends),
    }
    return {name: within(features(images), real) for name, images in between.items()}


def direction(generator: Generator, measure: Measure, seed: int) -> Tensor | None:
    """Mean latent of the images that show the most of something, less that of those that show the least.

    So "present" − "absent" is had without naming images one by one (Radford et al. 2016, Section 6.3.2). The fifth of
    the latents at either end is taken.

    Args:
        generator: what is looked at.
        measure: how much each image shows.
        seed: of the latents.

    Returns:
        Shape (latent,); None where no image shows more than the others.
    """
    latents = generator.draw(FOUND_FROM, seed)
    shown = measure(generator(latents))
    low, high = shown.quantile(END), shown.quantile(1 - END)
    # Where so few show any that the upper end shows none either, those that do.
    more = shown >= high if high > low else shown > low
    return latents[more].mean(dim=0) - latents[shown <= low].mean(dim=0) if more.any() else None


def moved(latents: Tensor, by: Tensor, sign: float) -> Tensor:
    """Latents with a direction added or taken away, brought back to their own lengths.

    Args:
        latents: shape (B, latent).
        by: shape (latent,), or one for each, (B, latent); it is made as long as the mean latent.
        sign: 1 or −1.
    """
    length = latents.norm(dim=1, keepdim=True)
    shifted: Tensor = latents + sign * length.mean() * by / by.norm(dim=-1, keepdim=True)
    back: Tensor = shifted * (length / shifted.norm(dim=1, keepdim=True))
    return back


def signed(generator: Generator, measure: Measure, by: Tensor, seed: int) -> dict[str, Tensor]:
    """What new images show as they are, with a direction added, taken away, and with a random one added to each.

    Args:
        generator: what is looked at.
        measure: how much each image shows.
        by: see `direction`.
        seed: of the latents.

    Returns:
        `drawn`, `added`, `taken away` and `random`: numbers of shape (256,).
    """
    latents = generator.draw(TRIED_ON, seed)
    ways = {"drawn": latents, "added": moved(latents, by, 1), "taken away": moved(latents, by, -1)}
    ways["random"] = moved(latents, generator.draw(TRIED_ON, seed + 1), 1)
    return {name: measure(generator(each)) for name, each in ways.items()}


def told(codes: Tensor, probabilities: Tensor) -> float:
    """Mutual information, in bits, of a code and the class that a classifier gives the code's images.

    Args:
        codes: index of each image's code, shape (N,).
        probabilities: of each image's class, shape (N, K).

    Returns:
        0 where the class says nothing of the code, at most the logarithm of the number of codes or classes. A few
        images always seem to say something: compare with codes that nothing was trained to show.

    Example:
        >>> told(torch.tensor([0, 1, 0, 1]), torch.eye(2)[[1, 0, 1, 0]])
        1.0
    """
    together = torch.zeros(int(codes.max()) + 1, probabilities.shape[1], dtype=torch.float64)
    together.index_put_((codes, probabilities.argmax(dim=1)), torch.tensor(1.0, dtype=torch.float64), accumulate=True)
    share = together / together.sum()
    apart = share.sum(dim=1, keepdim=True) * share.sum(dim=0, keepdim=True)
    seen = share > 0
    return round(float((share[seen] * (share[seen] / apart[seen]).log2()).sum()), 6)


def explained(latents: Tensor, values: Tensor, squares: bool = False) -> float:
    """Share of the variance of a number that a function of the latents tells, on latents it was not fitted to.

    Ridge regression, fitted to the first half.

    Args:
        latents: shape (N, latent).
        values: shape (N,).
        squares: of squares and products of two numbers of a latent too, not of the numbers alone.

    Returns:
        R², at most 1; 0 or below where the latents tell nothing.
    """
    half = len(latents) // 2
    if squares:
        upper = torch.triu_indices(latents.shape[1], latents.shape[1])
        latents = torch.cat((latents, latents[:, upper[0]] * latents[:, upper[1]]), dim=1)
    centre, mean = latents[:half].mean(dim=0), values[:half].mean()
    x, y = (latents - centre).double(), (values - mean).double()
    penalty = torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(x[:half].T @ x[:half] + penalty, x[:half].T @ y[:half])
    rest, found = y[half:], x[half:] @ weights
    return float(1 - (rest - found).square().sum() / (rest - rest.mean()).square().sum())
