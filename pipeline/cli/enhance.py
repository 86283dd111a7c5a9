"""`phs-pipeline enhance`: lesion contrast enhancement."""

from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.scans import ScanOptions, flip_option, mask_option, run_over_scans, scan_options, slab_options

if TYPE_CHECKING:
    from pipeline.inference.run import Finish

ALPHA_LIMIT = 1000.0


@click.command()
@scan_options("gvs", "pseudohealthy")
@mask_option
@slab_options
@flip_option
@click.option("--alpha", default=0.7, show_default=True, type=float, help="Degree of enhancement; 0 changes nothing.")
def enhance(alpha: float, **options: Any) -> None:
    """Write each SCAN with its pathological residual added once more, times ALPHA, so that lesions stand out."""
    from pipeline.errors import UsageError

    if not abs(alpha) < ALPHA_LIMIT:
        raise UsageError(f"--alpha {alpha:g}: expected a number between -{ALPHA_LIMIT:g} and {ALPHA_LIMIT:g}")
    run_over_scans("translator", ScanOptions(**options), enhancement(alpha))


def enhancement(alpha: float) -> "Finish":
    """What `enhance` makes of a translator's results."""
    from functools import partial

    from pipeline.inference.enhance import enhance as enhanced
    from pipeline.inference.run import Finish

    return Finish(("enhanced", "image"), {"Alpha": alpha}, partial(enhanced, alpha=alpha))
