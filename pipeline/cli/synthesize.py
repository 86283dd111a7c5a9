"""`phs-pipeline synthesize`: the pseudo-healthy twin of each scan."""

from typing import Any

import click

from pipeline.cli.scans import run_over_scans, scan_options


@click.command()
@scan_options
def synthesize(**options: Any) -> None:
    """Write the pseudo-healthy twin of each SCAN (NIfTI) on the scan's own grid.

    Beside it: the anomaly map (input − pseudo-healthy, in the scan's units), a JSON sidecar and a picture.
    """
    run_over_scans(**options)
