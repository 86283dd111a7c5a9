"""`phs-pipeline fill`: healthy tissue inside a lesion mask."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.scans import FILE, ScanOptions, run_over_scans, scan_options


@click.command()
@scan_options("fill", "filled")
@click.option("--mask", metavar="FILE", type=FILE, help="Lesion mask on the scan's grid, of one scan.")
@click.option(
    "--masks",
    metavar="DIR",
    type=FILE,
    help="Folder of masks named after the scans, or a BIDS derivative.  [default: those of the scans' BIDS dataset]",
)
@click.option(
    "--grow",
    default=0.0,
    metavar="MM",
    type=click.FloatRange(0, 20),
    help="Grow the mask by so much, within head or body, before it is filled.",
)
@click.option("--viewer", is_flag=True, help="Put an interactive viewer into the page.")
def fill(mask: Path | None, masks: Path | None, **options: Any) -> None:
    """Fill a lesion mask with healthy tissue; every voxel of SCAN outside the mask keeps its exact value.

    In a BIDS dataset the mask of each scan is found beside it or in any derivative (label-lesion_mask, label-lesion_roi
    and the like, of the scan's subject, session and further entities); a scan without one is told and left out. The
    result is a BIDS derivative.

    It is what other software (segmentation, cortical surfaces) is given instead of the lesion. Beside the filled scan:
    the difference, the mask that was filled, a JSON sidecar, a picture and a page.
    """
    if mask is not None and masks is not None:
        raise click.UsageError("give one of --mask and --masks")
    run_over_scans("filler", ScanOptions(mask=mask, masks=masks, **options))
