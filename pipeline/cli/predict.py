"""`phs-pipeline predict`: a number or class by a trained network."""

from typing import Any

import click

from pipeline.cli.scans import ScanOptions, run_over_scans, scan_options, slab_options


@click.command()
@scan_options(None, "predicted")
@slab_options
def predict(**options: Any) -> None:
    """Estimate a number or a class, such as age, from each SCAN; of several scans, scores.csv has them all."""
    run_over_scans("scorer", ScanOptions(**options))
