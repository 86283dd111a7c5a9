"""`phs-pipeline synthesize`: the pseudo-healthy twin of each scan."""

from typing import Any

import click

from pipeline.cli.scans import (
    ScanOptions,
    flip_option,
    mask_option,
    precision_option,
    run_over_scans,
    scan_options,
    slab_options,
)


@click.command()
@scan_options("lesion+fill", "pseudohealthy")
@mask_option
@slab_options
@flip_option
@click.option(
    "--uncertainty",
    is_flag=True,
    help="Write a map of uncertainty, too: of two bundles, how far the fill may be from the truth; of a translator, "
    "how its network varies, which is seven times the work.",
)
@precision_option
@click.option("--viewer", is_flag=True, help="Put an interactive viewer into the page.")
def synthesize(**options: Any) -> None:
    """Write the pseudo-healthy twin of each SCAN on the scan's own grid.

    SCAN is a NIfTI file, a folder or zip of DICOM, another format that SimpleITK reads (NRRD, MHA, …), or a folder of
    such scans.

    By default the lesions that `lesion` finds are filled by `fill`, in the whole scan, and all other voxels keep their
    exact values; any segmenter and filler are joined by a + so. A translator such as `gvs` makes the twin itself.

    Beside the twin: the anomaly map (input − pseudo-healthy, in the scan's units), a mask of what was changed, a JSON
    sidecar, a picture and a page to look at; for many scans an index of the pages. DICOM comes out as DICOM. Scans that
    are done are skipped.
    """
    run_over_scans("translator", ScanOptions(**options))
