"""`phs-pipeline segment`: masks by a trained network."""

from typing import Any

import click

from pipeline.cli.scans import ScanOptions, precision_option, run_over_scans, scan_options, slab_options


@click.command()
@scan_options(None, "segmented")
@slab_options
@precision_option
@click.option("--viewer", is_flag=True, help="Put an interactive viewer into the page.")
def segment(**options: Any) -> None:
    """Write a mask of what the network finds in each SCAN, and a map of its probability, on the scan's own grid.

    DICOM comes out as DICOM Segmentation and Parametric Map.
    """
    run_over_scans("segmenter", ScanOptions(**options))
