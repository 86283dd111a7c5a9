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
