"""`phs-pipeline fill`: healthy tissue inside a lesion mask."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.scans import FILE, ScanOptions, run_over_scans, scan_options


@click.command()
@scan_options("fill", "filled")
@click.option("--mask", required=True, metavar="MASK", type=FILE, help="Lesion mask on the scan's grid.")
@click.option(
    "--grow",
    default=0.0,
    metavar="MM",
    type=click.FloatRange(0, 20),
    help="Grow the mask by so much, within head or body, before it is filled.",
)
@click.option("--viewer", is_flag=True, help="Put an interactive viewer into the page.")
def fill(mask: Path, **options: Any) -> None:
    """Fill the lesion in MASK with healthy tissue; every voxel of SCAN outside the mask keeps its exact value.

    It is what other software (segmentation, cortical surfaces) is given instead of the lesion. Beside the filled scan:
    the difference, the mask that was filled, a JSON sidecar, a picture and a page.
    """
    run_over_scans("filler", ScanOptions(mask=mask, **options))
