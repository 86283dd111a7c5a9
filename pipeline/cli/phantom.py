"""`phs-pipeline phantom`: a synthetic cohort to try everything on."""

from pathlib import Path

import click

from pipeline.cli.say import say


@click.command()
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="New folder for the cohort, or one to which subjects are added.",
)
@click.option("--subjects", default=12, show_default=True, type=click.IntRange(min=1), help="Number of subjects.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Another seed gives other brains; the same seed gives the same files.",
)
def phantom(output: Path, subjects: int, seed: int) -> None:
    """Write a cohort of synthetic brains with lesions and known healthy truth.

    The cohort is a BIDS dataset of skull-stripped scans in FLAIR contrast. Lesion masks lie under
    derivatives/manual, the same scans without lesions under derivatives/truth. It holds no person's data.
    """
    from pipeline.phantoms.cohort import write_phantom_cohort

    labels = write_phantom_cohort(output, subjects, seed)
    say(f"{output}: {labels[0]} to {labels[-1]}, synthetic scans with lesion masks and healthy truth")
