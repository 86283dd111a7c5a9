"""What `synthesize` and `enhance` share: options, and the run over the scans."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pipeline.cli.say import say

ALPHA_LIMIT = 1000.0
FILE = click.Path(path_type=Path)


def scan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that takes scans and a model."""
    options = (
        click.argument("scans", nargs=-1, required=True, metavar="SCAN…", type=FILE),
        click.option("-b", "--bundle", default="gvs", show_default=True, help="A bundle's name or a run's folder."),
        click.option("-o", "--output", default=Path("pseudohealthy"), show_default=True, metavar="DIR", type=FILE,
                     help="Folder to write."),
        click.option("--mask", metavar="FILE", type=FILE,
                     help="Lesion mask on the scan's grid; only it and a margin of 5 mm are edited."),
        click.option("--whole", is_flag=True, help="Also edit slices outside the slab of the training cohort."),
        click.option("--series", metavar="NUMBER", help="Which DICOM series, by its number or UID."),
        click.option("--modality", help="DICOM of this modality (MR), or BIDS scans of this suffix (FLAIR), only."),
        click.option("--brain-mask", metavar="FILE", type=FILE,
                     help="Brain mask on the scan's grid, for a network trained on skull-stripped scans."),
        click.option("--n4", is_flag=True, help="Correct the bias field for the network's eyes (N4)."),
        click.option("--register-to", metavar="FILE", type=FILE,
                     help="Register rigidly to this scan or template for the network's eyes."),
        click.option("--force", is_flag=True, help="Go on with a scan unlike those of the training."),
        click.option("--output-type", type=click.Choice(["nifti", "dicom"]),
                     help="DICOM needs a DICOM source.  [default: as the source]"),
        click.option("--keep-names", is_flag=True,
                     help="Name results of DICOM after its folder, which may be the patient's name, not by its hash."),
        click.option("--num-parts", default=1, show_default=True, type=click.IntRange(min=1),
                     help="Share the scans among so many runs."),
        click.option("--part-id", envvar="SLURM_ARRAY_TASK_ID", default=0, show_default=True,
                     type=click.IntRange(min=0), help="Which share, from 0.  [env: SLURM_ARRAY_TASK_ID]"),
        click.option("--report", metavar="FILE", type=FILE,
                     help="Write a JSON record: versions, device, time and memory of each scan, outputs."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
        click.option("--overwrite", is_flag=True, help="Make results again that are there."),
        click.option("--trust-bundle", is_flag=True, help="Execute the code in a stranger's config."),
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
    series: str | None,
    modality: str | None,
    brain_mask: Path | None,
    n4: bool,
    register_to: Path | None,
    force: bool,
    output_type: str | None,
    keep_names: bool,
    num_parts: int,
    part_id: int,
    report: Path | None,
    device: str,
    overwrite: bool,
    trust_bundle: bool,
    alpha: float | None = None,
    uncertainty: bool = False,
    viewer: bool = False,
    page: bool = False,
) -> None:
    """Load the model once, work through the scans, and say what became of them.

    Raises:
        UsageError: if nothing could be started.
        ScanError: if some scans failed.
    """
    if num_parts == 1 and _from_environment("part_id"):
        part_id = 0  # a job array that shares something else
    _check(scans, mask, brain_mask, register_to, whole, num_parts, part_id, alpha)
    if report is not None:
        _check_report(report)

    from pipeline.bundles import find_bundle, load_synthesizer
    from pipeline.errors import ScanError, UsageError
    from pipeline.inference import Products, Request, synthesize_scans, write_folder_pages, write_run_report
    from pipeline.preprocessing.slab import WHOLE
    from pipeline.scans.sources import open_sources

    with open_sources(scans, series, modality) as sources:
        confined = mask or brain_mask
        if confined and len(sources) > 1:
            raise UsageError(f"{confined}: a mask belongs to one scan, found {len(sources)}; run them one by one")
        found = find_bundle(bundle)
        synthesizer, provenance = load_synthesizer(found, device, trust=trust_bundle)
        if whole:
            synthesizer.slab = WHOLE
        request = Request(
            products=Products(alpha, output_type, page=page, viewer=viewer),
            mask=mask,
            brain=brain_mask,
            bias_correction=n4,
            template=register_to,
            uncertainty=uncertainty,
            force=force,
            keep_names=keep_names,
            overwrite=overwrite,
            part=(part_id, num_parts),
        )
        outcome = synthesize_scans(sources, synthesizer, provenance, output, _report, request, found.metadata)
    if report is not None:
        write_run_report(report, outcome, synthesizer, provenance, keep_names)
    index = write_folder_pages(output, outcome, len(sources)) if alpha is None else None
    written, skipped, failed = (outcome.of(status) for status in ("written", "skipped", "failed"))
    say(f"{output}: {len(written)} written, {len(skipped)} done before, {len(failed)} failed")
    if index is not None:
        say(f"look at {index}")
    say(f"Synthetic images for research, not for diagnosis. Please cite: {found.metadata['references'][0]}")
    if failed:
        raise ScanError(f"{len(failed)} of {len(outcome.records)} scan(s) failed, for the reasons above")


def _from_environment(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.ENVIRONMENT


def _check(
    scans: tuple[Path, ...],
    mask: Path | None,
    brain_mask: Path | None,
    register_to: Path | None,
    whole: bool,
    num_parts: int,
    part_id: int,
    alpha: float | None,
) -> None:
    from pipeline.errors import UsageError

    for scan in scans:
        if not scan.exists():
            raise UsageError(f"{scan}: no such file; check the path")
    for path, what in ((mask, "a lesion mask"), (brain_mask, "a brain mask"), (register_to, "a scan")):
        if path is not None and not path.is_file():
            raise UsageError(f"{path}: found no file, expected {what} (.nii or .nii.gz); check the path")
    if alpha is not None and not abs(alpha) < ALPHA_LIMIT:
        raise UsageError(f"--alpha {alpha:g}: expected a number between -{ALPHA_LIMIT:g} and {ALPHA_LIMIT:g}")
    if mask is not None and whole:
        raise UsageError("--whole changes nothing with --mask, whose slices are all edited; give one of the two")
    if part_id >= num_parts:
        raise UsageError(
            f"--part-id {part_id}: expected a number from 0 to {num_parts - 1}, with --num-parts {num_parts}"
        )


def _check_report(report: Path) -> None:
    """Refuse what would be found out, or harm, after all the work."""
    from pipeline.errors import UsageError

    if report.suffix.lower() != ".json":
        raise UsageError(f"--report {report}: expected a name that ends with .json; choose another")
    above = next(folder for folder in report.absolute().parents if folder.exists())
    if report.is_dir() or not above.is_dir() or not os.access(above, os.W_OK):
        raise UsageError(f"--report {report}: cannot be written, expected a file in a writable folder; choose another")


def _report(name: str, what: str) -> None:
    if what.startswith("failed"):
        click.echo(f"{name}: {what}", err=True)
    else:
        say(f"{name}: {what}")
