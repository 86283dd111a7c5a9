"""`phs-pipeline fill`: healthy tissue inside a lesion mask."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.scans import FILE, ScanOptions, run_over_scans, scan_options


@click.command()
@scan_options("fill", "filled")
@click.option(
    "--mask",
    "masks",
    required=True,
    multiple=True,
    metavar="MASK",
    type=FILE,
    help="Lesion mask on a scan's grid. For several scans of one person: one on the grid of one of them, or one for each "
    "in their order; all are filled in the union.",
)
@click.option(
    "--moved",
    is_flag=True,
    help="The head lies differently in the scans, as in several visits: carry the mask over by rigid registration.",
)
@click.option(
    "--grow",
    default=0.0,
    metavar="MM",
    type=click.FloatRange(0, 20),
    help="Grow the mask by so much, within head or body, before it is filled.",
)
@click.option("--uncertainty", is_flag=True, help="Write a map of how far the fill may be from the truth, too.")
@click.option(
    "--samples",
    metavar="K",
    type=click.IntRange(0, 20),
    help="Write K plausible fills, too, and their spread as the map of uncertainty.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the plausible fills.")
@click.option("--viewer", is_flag=True, help="Put an interactive viewer into the page.")
def fill(
    masks: tuple[Path, ...], moved: bool, uncertainty: bool, samples: int | None, seed: int, **options: Any
) -> None:
    """Fill the lesion in MASK with healthy tissue; every voxel of SCAN outside the mask keeps its exact value.

    It is what other software (segmentation, cortical surfaces) is given instead of the lesion. Beside the filled scan:
    the difference, the mask that was filled, a JSON sidecar, a picture and a page. Several contrasts or visits of one
    person are filled in the same tissue.
    """
    drawn = (samples or 0) if uncertainty or samples is not None else None
    run_over_scans("filler", ScanOptions(drawn=masks, moved=moved, samples=drawn, seed=seed, **options))
