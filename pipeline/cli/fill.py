"""`phs-pipeline fill`: healthy tissue inside a lesion mask."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.scans import FILE, ScanOptions, precision_option, run_over_scans, scan_options


@click.command()
@scan_options("fill", "filled")
@click.option(
    "--mask",
    "drawn",
    multiple=True,
    metavar="FILE",
    type=FILE,
    help="Lesion mask on a scan's grid. For several scans of one person: one on the grid of one of them, or one for "
    "each in their order; all are filled in the union.",
)
@click.option(
    "--masks",
    metavar="DIR",
    type=FILE,
    help="Folder of masks named after the scans, or a BIDS derivative.  [default: those of the scans' BIDS dataset]",
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
@precision_option
@click.option("--viewer", is_flag=True, help="Put an interactive viewer into the page.")
def fill(
    drawn: tuple[Path, ...],
    masks: Path | None,
    moved: bool,
    uncertainty: bool,
    samples: int | None,
    seed: int,
    **options: Any,
) -> None:
    """Fill a lesion mask with healthy tissue; every voxel of SCAN outside the mask keeps its exact value.

    In a BIDS dataset the mask of each scan is found beside it or in any derivative (label-lesion_mask, label-lesion_roi
    and the like, of the scan's subject, session and further entities); a scan without one is told and left out. The
    result is a BIDS derivative.

    It is what other software (segmentation, cortical surfaces) is given instead of the lesion. Beside the filled scan:
    the difference, the mask that was filled, a JSON sidecar, a picture and a page. Several contrasts or visits of one
    person are filled in the same tissue.
    """
    if drawn and masks is not None:
        raise click.UsageError("give one of --mask and --masks")
    plausible = (samples or 0) if uncertainty or samples is not None else None
    given = ScanOptions(drawn=drawn, masks=masks, moved=moved, samples=plausible, seed=seed, **options)
    run_over_scans("filler", given)
