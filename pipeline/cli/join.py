"""`phs-pipeline join`: cohorts of one modality each, of different people, made into one."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pipeline.cli.options import split_by_option
from pipeline.cli.preprocess import say_counts
from pipeline.cli.say import say

if TYPE_CHECKING:
    from pipeline.preprocessing.join import Modality


@click.command()
@click.argument("target", metavar="TARGET")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--split",
    nargs=3,
    type=float,
    default=(0.77, 0.11, 0.12),
    show_default=True,
    metavar="TRAIN VAL TEST",
    help="Shares of TARGET's patients.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the split.")
@split_by_option
def join(
    target: str,
    sources: tuple[str, ...],
    output: Path,
    split: tuple[float, float, float],
    seed: int,
    by: Literal["patient", "image"],
) -> None:
    """Join preprocessed cohorts of one modality each into one, to train `duiit` on.

    TARGET is the modality that is predicted from; its patients are split. All scans of each SOURCE are for training.
    Each is a folder made by `preprocess --modality NAME`, or NAME=FOLDER. A patient who is in several stays in the one
    with the fewest patients.
    """
    from pipeline.preprocessing import join as joining
    from pipeline.preprocessing.cohort_format import read_cohort

    modalities = [modality(text) for text in (target, *sources)]
    notes = joining.join(output, modalities[0], modalities[1:], split, seed, by)
    for note in notes:
        say(note)
    say_counts(read_cohort(output))
    say(f"{output}: scans of {len(modalities)} modalities")


def modality(text: str) -> "Modality":
    """FOLDER or NAME=FOLDER."""
    from pipeline.preprocessing.join import Modality

    name, found, folder = text.partition("=")
    return Modality(Path(folder), name) if found and not Path(text).exists() else Modality(Path(text))
