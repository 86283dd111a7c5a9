"""A Wasserstein GAN of curves whose parameters are known, and its latent space (Wolterink et al. 2018; survey, 5.1).

Centrelines of vessels are simulated, so that what a latent should tell is known: which side, how long, how winding, how
wide. The control is a point distribution model, a Gaussian of principal components, which has latents too.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from pipeline.devices import pick_device
from pipeline.methods.gan import GAN
from pipeline.metrics.nearest import copying, precision_recall
from pipeline.networks.curves import CurveCritic, CurveGenerator
from pipeline.phantoms.centrelines import NAMES, CentrelineDataset, as_curves, largest_gap, off_surface_mm, parameters
from pipeline.studies.latent_space import FOUND_FROM, Generator, direction, explained, signed, walk
from pipeline.studies.study import by_row, once, open_study, over_seeds, rows_of, write_study
from pipeline.studies.training import trained
from pipeline.training.single import Schedule

logger = logging.getLogger(__name__)

OTHERS, TRAINING = "other simulated curves", "the training curves themselves"
MODEL, ADVERSARIAL = "point distribution model", "Wasserstein GAN, gradient penalty"
LATENT, CRITIC_STEPS = 16, 5
FIRST_HELD_OUT = 1_000_000  # a seed that no training curve has

LABELS = dict(zip(NAMES, ("side", "length", "winding", "radius"), strict=True))
DISTANCES = {f"off_{name}": (f"{label} ↓", 3) for name, label in LABELS.items()}
QUALITY = {
    **DISTANCES,
    "surface": ("mm off the surface ↓", 1),
    "gap": ("largest gap, in steps ↓", 2),
    "precision": ("precision ↑", 3),
    "recall": ("recall ↑", 3),
    "copying": ("copying (0.5 is new)", 3),
}
TOLD, SQUARES = ({f"{kind}_{name}": (label, 3) for name, label in LABELS.items()} for kind in ("told", "squares"))
FLIPPED = {
    "drawn": ("right as drawn", 3),
    "added": ("right, direction added ↑", 3),
    "taken away": ("right, taken away ↓", 3),
    "random": ("right, random direction", 3),
}


class PointDistribution(nn.Module):
    """Curves as mean and principal components, whose coordinates are N(0, I) (Cootes et al. 1995).

    Args:
        curves: training curves, shape (N, channels, points).
        latent: components.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, curves: Tensor, latent: int = LATENT) -> None:
        super().__init__()
        mean = curves.mean(dim=0)
        _, deviations, directions = torch.linalg.svd((curves - mean).flatten(1), full_matrices=False)
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions[:latent] * deviations[:latent, None] / (len(curves) - 1) ** 0.5)

    def forward(self, latent: Tensor) -> Tensor:
        """Latents (B, latent) to curves (B, channels, points)."""
        curves: Tensor = self.mean + (latent @ self.directions).unflatten(1, self.mean.shape)
        return curves


def curves(
    folder: Path,
    count: int = 1024,
    points: int = 32,
    iterations: int = 10_000,
    seeds: int = 3,
    device: str = "auto",
) -> str:
    """Train on simulated centrelines with each seed, and measure the curves and what their latents tell.

    Started again, it skips what is finished and goes on with a training that was stopped; seeds may be added then.

    Args:
        folder: of the study.
        count: training curves, and as many held out.
        points: along each.
        iterations: of the critic; the generator takes a step in every fifth.
        seeds: trainings, with the seeds 0, 1, ….
        device: where to compute.

    Returns:
        The tables, in Markdown.

    Raises:
        UsageError: if the folder holds another study.
    """
    open_study(folder, {"study": "curves", "count": count, "points": points, "iterations": iterations})
    where = pick_device(device)
    training, held_out, others = (
        CentrelineDataset(range(first, first + count), points) for first in (0, FIRST_HELD_OUT, FIRST_HELD_OUT + count)
    )

    def generator(name: str, seed: int) -> Generator:
        if name == MODEL:
            return Generator(PointDistribution(training.curves).to(where), LATENT, where)
        network = trained(
            folder / "runs" / f"curves_seed={seed}",
            lambda: GAN(CurveGenerator(LATENT, points), CurveCritic(points), LATENT, "wasserstein_gp", CRITIC_STEPS),
            lambda: training,
            iterations,
            seed,
            where,
            schedule=Schedule(batch_size=32, rate=1e-3, betas=(0.0, 0.9), decay="late linear"),
        )
        return Generator(network, LATENT, where)

    def row(name: str, seed: int) -> dict[str, Any]:
        known = {TRAINING: training.curves, OTHERS: others.curves}
        if name in known:
            return _quality(name, seed, known[name], training.curves, held_out.curves)
        logger.info("%s with seed %d", name, seed)
        made = generator(name, seed)
        drawn = made(made.draw(count, seed))
        return {**_quality(name, seed, drawn, training.curves, held_out.curves), **_latent(made, seed)}

    results = [
        once(
            folder / "results" / f"{name.replace(' ', '_').replace(',', '')}_seed={seed}.json", partial(row, name, seed)
        )
        for seed in range(seeds)
        for name in (OTHERS, TRAINING, MODEL, ADVERSARIAL)
    ]
    frame = over_seeds(results, ["row"], [*QUALITY, *TOLD, *SQUARES, *FLIPPED])
    shown = {name: generator(name, 0) for name in (MODEL, ADVERSARIAL)}
    page = _page(frame, count, points, iterations, seeds)
    write_study(folder, page, frame, results, lambda path: _figure(held_out.curves, shown).savefig(path, dpi=150))
    return page


def values(samples: Tensor, name: str) -> Tensor:
    """A parameter of each curve (B, 4, points), as measured on it; a key of `NAMES`."""
    return torch.from_numpy(parameters(as_curves(samples))[name]).float()


def _quality(name: str, seed: int, samples: Tensor, training: Tensor, real: Tensor) -> dict[str, Any]:
    """How far the parameters of curves are distributed from those of real ones, and how like those they lie."""
    off = {}
    for each in NAMES:
        ours, theirs = values(samples, each).numpy(), values(real, each).numpy()
        off[f"off_{each}"] = float(wasserstein_distance(ours, theirs) / theirs.std())
    features, of_training, of_real = (curves.flatten(1) for curves in (samples, training, real))
    precision, recall = precision_recall(features, of_real)
    return {
        "row": name,
        "seed": seed,
        "curves": len(samples),
        **off,
        "surface": float(off_surface_mm(as_curves(samples)).mean()),
        "gap": float(np.mean([largest_gap(curve) for curve in as_curves(samples)])),
        "precision": precision,
        "recall": recall,
        "copying": copying(features, of_training, of_real),
    }


def _latent(generator: Generator, seed: int) -> dict[str, float]:
    """What latents tell of each parameter, linearly, and whether a direction changes the side."""
    latents = generator.draw(2 * FOUND_FROM, seed + 1)
    made = generator(latents)
    told = {f"told_{name}": explained(latents, values(made, name)) for name in NAMES}
    told |= {f"squares_{name}": explained(latents, values(made, name), squares=True) for name in NAMES}
    right = partial(values, name=NAMES[0])
    by = direction(generator, right, seed)
    if by is None:
        return told
    sides = signed(generator, right, by, seed + 1000)
    return {**told, **{name: float(each.double().mean()) for name, each in sides.items()}}


def _page(frame: pd.DataFrame, count: int, points: int, iterations: int, seeds: int) -> str:
    over = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "**One seed, so without deviation**"
    about = (
        f"{over}. {count} curves of {points} points to learn from, as many drawn and as many held out; {iterations} "
        f"steps of the critic; latents of {LATENT} numbers. The first columns are Wasserstein distances of a "
        "parameter's distribution from that of the held-out curves, in deviations of theirs. Precision, recall and "
        "copying are of the points themselves; all simulated curves lie on the surface of the heart. "
        f"*{OTHERS}*: what no generator can be expected to be better than."
    )
    columns = (OTHERS, TRAINING, MODEL, ADVERSARIAL)
    off = by_row(frame, "surface")
    better = sum(each[ADVERSARIAL] < each[MODEL] for each in (by_row(frame, name) for name in DISTANCES))
    verdict = (
        f"Of the {len(DISTANCES)} parameters the GAN's distribution is nearer in {better}, the model's in "
        f"{len(DISTANCES) - better}; the GAN's curves lie {off[ADVERSARIAL]:.1f} mm off the heart's surface, the "
        f"model's {off[MODEL]:.1f} mm."
    )
    latent = (
        "### The latent space\n\nShare of each parameter's variance that a linear function of the latent tells (R², on "
        "latents it was not fitted to):"
    )
    return "\n\n".join(
        [
            rows_of(frame, columns, QUALITY),
            about,
            verdict,
            latent,
            rows_of(frame, (MODEL, ADVERSARIAL), TOLD),
            "The same of a function with squares and products of two numbers:",
            rows_of(frame, (MODEL, ADVERSARIAL), SQUARES),
            "Share of curves on the right as the direction right − left is added to the latent or taken away:",
            rows_of(frame, (MODEL, ADVERSARIAL), FLIPPED),
        ]
    )


def _figure(real: Tensor, made: dict[str, Generator]) -> Any:
    """Curves from the front; a walk from left to right; the latent space along the directions of side and length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    upper, lower = figure.subplots(2, 3)
    drawn = {name: as_curves(generator(generator.draw(len(real), 0))) for name, generator in made.items()}
    for axes, (name, curves_mm) in zip(upper, {"simulated": as_curves(real), **drawn}.items(), strict=True):
        for curve, right in zip(curves_mm[:40], parameters(curves_mm)["right"], strict=False):
            _draw(axes, curve, "C0" if right else "C1")
        axes.set_title(name)
    generator = made[ADVERSARIAL]
    latents = generator.draw(FOUND_FROM, 5)
    samples = generator(latents)
    right, length = values(samples, "right"), values(samples, "length_mm")
    one, other = latents[right == 0][:1], latents[right == 1][:1]
    if len(one) and len(other):
        for step, share in enumerate(np.linspace(0, 1, 9)):
            _draw(lower[0], as_curves(generator(walk(one, other, share)))[0], (share, 0.2, 1 - share), f"{step}")
    lower[0].set_title("a walk from left to right")
    for axes, name, colour in ((lower[1], "side", right), (lower[2], "length, mm", length)):
        x, y = (_along(generator, latents, each) for each in ("right", "length_mm"))
        points = axes.scatter(x, y, c=colour, s=6, cmap="viridis")
        axes.set_xlabel("latent along right − left")
        axes.set_ylabel("along long − short")
        axes.set_title(f"latent space: {name}")
        figure.colorbar(points, ax=axes)
    return figure


def _along(generator: Generator, latents: Tensor, name: str) -> NDArray[np.float32]:
    by = direction(generator, partial(values, name=name), 0)
    along: NDArray[np.float32] = (latents @ (by / by.norm()) if by is not None else torch.zeros(len(latents))).numpy()
    return along


def _draw(axes: Any, curve: NDArray[np.floating], colour: Any, label: str | None = None) -> None:
    axes.plot(curve[0], curve[2], color=colour, linewidth=0.8, label=label)
    axes.set_aspect("equal")
    axes.set_xlabel("right, mm")
    axes.set_ylabel("up, mm")
