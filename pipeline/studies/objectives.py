"""The objectives of the survey's Table 1 (Section 2.1, Fig. 2): which saturate, and which collapse.

On a mixture of Gaussians and on digits, a GAN plays for each objective, and for GAN-MA also with minibatch
discrimination and against an unrolled discriminator. All have the same networks, noise and steps of the generator;
critics of a Wasserstein distance take five steps for each of these, with the generator's rate. Saturation is measured
apart: against one untrained generator, each objective's discriminator learns until it is perfect, and the gradient that
it leaves the generator is followed.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Adam

from pipeline.devices import pick_device
from pipeline.files import sha256, written_aside
from pipeline.methods import GAN
from pipeline.mosaic import grey, mosaic, save_png
from pipeline.networks import DCGANDiscriminator, DCGANGenerator
from pipeline.objectives import objective
from pipeline.reports.markdown import table
from pipeline.studies import digits as of_digits
from pipeline.studies import mixture
from pipeline.studies.study import file_name, mean_sd, once, open_study, over_seeds, write_study
from pipeline.studies.training import trained_exports
from pipeline.training.single import Schedule

logger = logging.getLogger(__name__)

POINTS, DIGITS = "mixture", "digits"
DRAWN = 2000
SHOWN = 8  # digits of each arm in the picture
# As Metz et al. play the mixture: a generator that is faster than its discriminator finds one mode after the other.
SCHEDULES = {
    POINTS: Schedule(batch_size=128, rate=1e-3, betas=(0.5, 0.999), rates={"discriminator": 1e-4}),
    DIGITS: Schedule(batch_size=64, rate=5e-4, betas=(0.5, 0.999)),
}
# Of the gradient descent that an unrolled discriminator does: that of digits runs away at the perceptron's rate.
UNROLL_RATES = {POINTS: 0.1, DIGITS: 0.01}
DIGIT_LATENT, DIGIT_FILTERS = 32, 16
MIXTURE_POINTS = 20_000
# When the gradient is looked at, in steps of a discriminator with the rate below.
LOOKS = (0, 10, 20, 50, 100, 200, 500)
SATURATION_RATE = 1e-3


@dataclass(frozen=True)
class Arm:
    """One way to play.

    Attributes:
        objective: by name.
        critic_steps: of the discriminator for each step of the generator.
        minibatch_kernels: of minibatch discrimination.
        unroll: steps that the generator looks ahead.
    """

    objective: str
    critic_steps: int = 1
    minibatch_kernels: int = 0
    unroll: int = 0


ARMS = {
    "GAN": Arm("gan"),
    "GAN-MA": Arm("non_saturating"),
    "LSGAN": Arm("least_squares"),
    "hinge": Arm("hinge"),
    "WGAN": Arm("wasserstein", critic_steps=5),
    "WGAN-GP": Arm("wasserstein_gp", critic_steps=5),
    "GAN-MA, minibatch": Arm("non_saturating", minibatch_kernels=16),
    "GAN-MA, unrolled": Arm("non_saturating", unroll=5),
}
# The arms that have an objective of their own.
PLAIN = {name: arm for name, arm in ARMS.items() if not arm.minibatch_kernels and not arm.unroll}
REAL = "real, held out"
METRICS = {
    "modes": ("modes of 8 ↑", 1),
    "on_modes": ("points on a mode ↑", 2),
    "digits": ("digits of 10 ↑", 1),
    "sure": ("surely a digit ↑", 2),
    "fid": ("FID ↓", 2),
    "start": ("gradient at the start", 3),
    "perfect": ("at a perfect discriminator", 3),
    "auroc": ("its AUROC", 3),
}


def objectives(
    folder: Path,
    steps: int = 1500,
    digit_steps: int = 300,
    seeds: int = 3,
    digits: Path | None = None,
    device: str = "auto",
) -> str:
    """Train each arm on the mixture and on digits with each seed, and follow each objective's gradient.

    Beside the table, `mixture.png` and `digits.png` show what seed 0 draws. Started again, it skips what is finished
    and goes on with a training that was stopped; seeds may be added then.

    Args:
        folder: of the study.
        steps: of the generator on the mixture; 0 leaves it out.
        digit_steps: of the generator on digits; 0 leaves them out.
        seeds: trainings of each arm, with the seeds 0, 1, ….
        digits: a file as `read_digits` takes it; None takes those of scikit-learn.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if the file holds no digits, or the folder holds another study.
    """
    open_study(
        folder,
        {
            "study": "objectives",
            "steps": steps,
            "digit_steps": digit_steps,
            "digits_sha256": digits and sha256(digits),
        },
    )
    target = pick_device(device)
    games: list[_Points | _Digits] = [_Points(steps)] if steps else []
    games += [_Digits(digit_steps, *of_digits.digit_sets(digits), folder / "classifier", target)] if digit_steps else []

    def result(name: str, seed: int, game: "_Points | _Digits") -> dict[str, Any]:
        run = folder / "runs" / f"{game.name}_{file_name(name)}_seed={seed}"

        def train_and_measure() -> dict[str, Any]:
            logger.info("%s on %s, seed %d", name, game.name, seed)
            drawn = _drawn(run, game, ARMS[name], seed, target)
            return {"arm": name, "seed": seed, **game.measure(drawn)}

        return once(folder / "results" / f"{run.name}.json", train_and_measure)

    def gradients(name: str, seed: int) -> dict[str, Any]:
        return once(
            folder / "results" / f"saturation_{file_name(name)}_seed={seed}.json",
            lambda: {"arm": name, "seed": seed, **saturation(ARMS[name].objective, seed)},
        )

    results = [result(name, seed, game) for seed in range(seeds) for game in games for name in ARMS]
    results += [{"arm": REAL, "seed": 0, **game.real()} for game in games]
    curves = [gradients(name, seed) for seed in range(seeds) for name in PLAIN]
    for game in games:
        runs = {name: folder / "runs" / f"{game.name}_{file_name(name)}_seed=0" for name in ARMS}
        drawings = {name: _drawn(run, game, ARMS[name], 0, target) for name, run in runs.items()}
        with written_aside(folder / f"{game.name}.png") as aside:
            game.draw(aside, drawings)
    frame = over_seeds([*results, *curves], ["arm"], list(METRICS))
    page = _page(frame, steps, digit_steps, seeds)
    write_study(folder, page, frame, [*results, *curves], lambda path: _figure(curves).savefig(path, dpi=150))
    return page


class _Points:
    """The mixture: a game of perceptrons."""

    name = POINTS
    latent = mixture.LATENT

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.data = mixture.MixtureDataset(MIXTURE_POINTS, seed=0)

    def networks(self, arm: Arm) -> tuple[nn.Module, nn.Module]:
        return mixture.generator(), mixture.discriminator(arm.minibatch_kernels)

    def measure(self, points: Tensor) -> dict[str, float]:
        return mixture.coverage(points)

    def real(self) -> dict[str, float]:
        return self.measure(mixture.MixtureDataset(DRAWN, seed=1).points)

    def draw(self, path: Path, drawings: dict[str, Tensor]) -> None:
        from matplotlib.figure import Figure

        columns = (len(drawings) + 1) // 2
        figure = Figure(figsize=(2.2 * columns, 4.8), layout="constrained")
        for axes, (name, points) in zip(figure.subplots(2, columns).flat, drawings.items(), strict=False):
            axes.scatter(*mixture.centres().T, s=60, facecolors="none", edgecolors="tab:orange", linewidths=1)
            axes.scatter(*points.T, s=1, alpha=0.3)
            axes.set(xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[], aspect="equal")
            axes.set_title(name.replace(", ", ",\n"), fontsize="small")
        figure.savefig(path, dpi=100, format="png")


class _Digits:
    """Digits: a game of DCGANs, with instance norm in the discriminator: a gradient penalty allows no batch norm."""

    name = DIGITS
    latent = DIGIT_LATENT

    def __init__(
        self,
        steps: int,
        training: of_digits.DigitDataset,
        held_out: of_digits.DigitDataset,
        classifier: Path,
        device: torch.device,
    ) -> None:
        self.steps = steps
        self.data = training
        self.training, self.held_out = training.images, held_out.images
        self.network = of_digits.digit_network(classifier, training, device)

    def networks(self, arm: Arm) -> tuple[nn.Module, nn.Module]:
        kernels = arm.minibatch_kernels
        return (
            DCGANGenerator(DIGIT_LATENT, of_digits.SIZE, DIGIT_FILTERS),
            DCGANDiscriminator(of_digits.SIZE, DIGIT_FILTERS, norm="instance", minibatch_kernels=kernels),
        )

    def measure(self, images: Tensor) -> dict[str, float]:
        return of_digits.digit_coverage(self.network, images, self.held_out)

    def real(self) -> dict[str, float]:
        # The classifier knows its training digits: what can be reached is what half of the others reach by the rest.
        half = len(self.held_out) // 2
        return of_digits.digit_coverage(self.network, self.held_out[:half], self.held_out[half:])

    def draw(self, path: Path, drawings: dict[str, Tensor]) -> None:
        # Radiologists' view turns an axial slice; a digit is turned beforehand, and so seen as it was written.
        columns = list(drawings)
        rows = [[grey(drawings[name][row, 0].flip(0).T.numpy()) for name in columns] for row in range(SHOWN)]
        save_png(path, mosaic(columns, rows, "SYNTHETIC digits"))


def saturation(name: str, seed: int) -> dict[str, Any]:
    """What gradient an objective leaves the generator while its discriminator learns (survey, Fig. 2).

    The generator of the mixture keeps its first weights; its discriminator learns by Adam.

    Args:
        name: of the objective.
        seed: of weights and noise.

    Returns:
        `curve`: at each of `LOOKS`, `steps`, the discriminator's `auroc` of real against fake points, and `gradient`:
        the norm of the gradient of a point's loss with respect to that point, mean over points; `start` and `perfect`,
        the first gradient and the last, and the last `auroc`.
    """
    torch.manual_seed(seed)
    G, D = mixture.generator(), mixture.discriminator()
    gan = GAN(G, D, mixture.LATENT, objective(name))
    points = mixture.MixtureDataset(MIXTURE_POINTS, seed).points
    adam = Adam(D.parameters(), lr=SATURATION_RATE, betas=(0.5, 0.999))
    curve = []
    for step in range(LOOKS[-1] + 1):
        batch = {"image": points[torch.randint(len(points), (SCHEDULES[POINTS].batch_size,))]}
        with torch.no_grad():
            shared = gan.forward(batch)
        if step in LOOKS:
            curve.append({"steps": step, **_seen(gan, batch["image"], shared["x_s"])})
        adam.zero_grad()
        torch.stack(list(gan.discriminate(batch, shared).values())).sum().backward()
        adam.step()
        gan.objective.constrain(D)
    last = curve[-1]
    return {"curve": curve, "start": curve[0]["gradient"], "perfect": last["gradient"], "auroc": last["auroc"]}


def _seen(gan: GAN, real: Tensor, fake: Tensor) -> dict[str, float]:
    D = gan.networks["discriminator"]
    x_s = fake.clone().requires_grad_()
    scores = D(x_s)
    # The loss is the mean over points.
    (gradient,) = torch.autograd.grad(len(x_s) * gan.objective.generator(scores), x_s)
    ranked = (D(real) > scores.T).float().mean()
    return {"auroc": float(ranked.detach()), "gradient": float(gradient.norm(dim=1).mean())}


def _drawn(run: Path, game: "_Points | _Digits", arm: Arm, seed: int, device: torch.device) -> Tensor:
    """What an arm's generator makes of the same noise, on the CPU; trained first if it is not."""

    def build() -> GAN:
        G, D = game.networks(arm)
        rate = UNROLL_RATES[game.name]
        return GAN(G, D, game.latent, arm.objective, arm.critic_steps, unroll=arm.unroll, unroll_rate=rate)

    iterations, schedule = game.steps * arm.critic_steps, SCHEDULES[game.name]
    if arm.critic_steps > 1:  # a critic that has to be near its best is not the slower player
        schedule = replace(schedule, rates={})
    exports = trained_exports(run, build, lambda: game.data, iterations, seed, device, schedule=schedule)
    G = next(iter(exports.values()))
    noise = torch.randn(DRAWN, game.latent, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return torch.cat([G(part.to(device)).cpu() for part in noise.split(500)])


def _page(frame: pd.DataFrame, steps: int, digit_steps: int, seeds: int) -> str:
    shown = {name: about for name, about in METRICS.items() if frame[name].notna().any()}
    rows = [
        [row["arm"], *(mean_sd(row, name, about[1]) for name, about in shown.items())] for _, row in frame.iterrows()
    ]
    taken = [f"{of:,} steps on {what}" for of, what in ((steps, "the mixture"), (digit_steps, "digits")) if of]
    over = (
        f"Mean ± standard deviation over {seeds} trainings. Generators take {' and '.join(taken) or 'no steps'}, "
        "critics of a Wasserstein distance five for each of these, all other discriminators one."
    )
    notes = [over]
    if steps:
        notes.append(
            f"A point is on a mode within {mixture.REACH:g} deviations of its centre, and a mode is covered by a tenth "
            f"of its fair share of {DRAWN:,} points."
        )
    if digit_steps:
        notes.append(
            f"A digit is sure from a probability of {of_digits.SURE:g}, and covered by a tenth of its fair share of "
            f"{DRAWN:,} images; FID is of the features of the same classifier, which makes it no FID of others."
        )
    notes.append(
        f"The gradient is that of a point's loss of the generator with respect to the point, of an untrained generator "
        f"of the mixture; perfect is a discriminator after {LOOKS[-1]} steps."
    )
    return "\n\n".join([table(["", *(about[0] for about in shown.values())], rows), *notes])


def _figure(curves: Sequence[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(found["arm"] for found in curves):
        points = pd.DataFrame([point for found in curves if found["arm"] == name for point in found["curve"]])
        mean = points.groupby("steps")["gradient"].mean()
        axes.plot(mean.index, mean.clip(lower=1e-8), marker=".", label=name)
    axes.set(xscale="symlog", yscale="log", xlabel="steps of the discriminator", ylabel="gradient of a point's loss")
    axes.legend(fontsize="small")
    return figure
