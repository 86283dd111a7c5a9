"""What `synthesize` and `enhance` share: options, and the run over the scans."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.cli.say import say

ALPHA_LIMIT = 1000.0


def scan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that takes scans and a model."""
    options = (
        click.argument("scans", nargs=-1, required=True, metavar="SCAN…", type=click.Path(path_type=Path)),
        click.option("-b", "--bundle", default="gvs", show_default=True, help="A bundle's name or a run's folder."),
        click.option("-o", "--output", default=Path("pseudohealthy"), show_default=True, metavar="DIR",
                     type=click.Path(path_type=Path), help="Folder to write."),
        click.option("--mask", metavar="FILE", type=click.Path(path_type=Path),
                     help="Lesion mask on the scan's grid; only it and a margin of 5 mm are edited."),
        click.option("--whole", is_flag=True, help="Also edit slices outside the slab of the training cohort."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
        click.option("--overwrite", is_flag=True, help="Make results again that are there."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def run_over_scans(
    scans: tuple[Path, ...],
    bundle: str,
    output: Path,
    mask: Path | None,
    whole: bool,
    device: str,
    overwrite: bool,
    alpha: float | None = None,
) -> None:
    """Load the model once, work through the scans, and say what became of them.

    Raises:
        UsageError: if nothing could be started.
        ScanError: if some scans failed.
    """
    from pipeline.bundles import find_bundle, load_synthesizer
    from pipeline.errors import ScanError, UsageError
    from pipeline.preprocessing.slab import WHOLE
    from pipeline.synthesis import synthesize_scans

    for scan in scans:
        if not scan.exists():
            raise UsageError(f"{scan}: no such file; check the path")
        if scan.is_dir():
            raise UsageError(f"{scan}: found a folder, expected a NIfTI file (.nii or .nii.gz); name the files in it")
    if mask is not None and not mask.is_file():
        raise UsageError(f"{mask}: found no file, expected a lesion mask (.nii or .nii.gz); check the path")
    if alpha is not None and not abs(alpha) < ALPHA_LIMIT:
        raise UsageError(f"--alpha {alpha:g}: expected a number between -{ALPHA_LIMIT:g} and {ALPHA_LIMIT:g}")
    if mask is not None and whole:
        raise UsageError("--whole changes nothing with --mask, whose slices are all edited; give one of the two")
    if mask is not None and len(scans) > 1:
        raise UsageError(f"--mask belongs to one scan, found {len(scans)}; run them one by one")
    found = find_bundle(bundle)
    synthesizer, provenance = load_synthesizer(found, device)
    if whole:
        synthesizer.slab = WHOLE
    outcome = synthesize_scans(scans, synthesizer, provenance, output, _report, mask, alpha, overwrite)
    say(f"{output}: {len(outcome.written)} written, {len(outcome.skipped)} done before, {len(outcome.failed)} failed")
    say(f"Synthetic images for research, not for diagnosis. Please cite: {found.metadata['references'][0]}")
    if outcome.failed:
        raise ScanError(f"{len(outcome.failed)} of {len(scans)} scan(s) failed, for the reasons above")


def _report(scan: Path, what: str) -> None:
    if what.startswith("failed"):
        click.echo(f"{scan.name}: {what}", err=True)
    else:
        say(f"{scan.name}: {what}")
