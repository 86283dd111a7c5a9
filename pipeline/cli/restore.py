"""`phs-pipeline restore`: scans with less noise, fewer artefacts of undersampling, or the detail of thinner slices."""

from typing import Any

import click

from pipeline.cli.scans import ScanOptions, flip_option, run_over_scans, scan_options, slab_options


@click.command()
@scan_options(None, "restored")
@slab_options
@flip_option
@click.option("--viewer", is_flag=True, help="Put an interactive viewer into the page.")
def restore(**options: Any) -> None:
    """Write each SCAN as a network takes it to have been before noise, undersampling or thick slices.

    The bundle `restoration` is trained for one of them, by one of three losses. Beside the restored scan is what was
    removed (input − restored). Both are synthetic: a network adds detail that it finds likely, and may lose small
    lesions or make others up (`study quality` measures it).
    """
    run_over_scans("restorer", ScanOptions(**options))
