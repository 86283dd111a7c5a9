"""`phs-pipeline enhance`: lesion contrast enhancement."""

from typing import Any

import click

from pipeline.cli.scans import run_over_scans, scan_options


@click.command()
@scan_options
@click.option("--alpha", default=0.7, show_default=True, type=float, help="Degree of enhancement; 0 changes nothing.")
def enhance(alpha: float, **options: Any) -> None:
    """Write each SCAN with its pathological residual added once more, times ALPHA, so that lesions stand out."""
    run_over_scans(**options, alpha=alpha)
