"""Options that several commands share."""

import click

from pipeline import JUDGE_ITERATIONS

judge_iterations_option = click.option(
    "--judge-iterations",
    default=JUDGE_ITERATIONS,
    show_default=True,
    type=click.IntRange(min=1),
    help="Training iterations of the independent segmentor.",
)
judge_option = click.option(
    "--judge",
    default="default",
    show_default=True,
    type=click.Choice(["default", "paper"]),
    help="Its size: 16 filters, pixels of 2 mm; or PHS-GAN's: 64 filters, full resolution, hours on a CPU.",
)
