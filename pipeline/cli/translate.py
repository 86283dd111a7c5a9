"""`phs-pipeline translate`: scans of one modality as another shows the same anatomy."""

from typing import Any

import click

from pipeline.cli.scans import ScanOptions, run_over_scans, scan_options, slab_options


@click.command()
@scan_options(None, "translated")
@slab_options
@click.option("--source", metavar="NAME", help="Modality of the scans, for a bundle that translates several.")
@click.option("--viewer", is_flag=True, help="Put an interactive viewer into the page.")
def translate(**options: Any) -> None:
    """Write each SCAN in the modality that a bundle such as `duiit` translates into, on the scan's own grid.

    The image is synthetic: it shows what a network takes that modality to look like, in the window of the scan and not
    in the units of that modality. A scan's pseudo-healthy twin is made by `synthesize`.
    """
    run_over_scans("modality translator", ScanOptions(**options))
