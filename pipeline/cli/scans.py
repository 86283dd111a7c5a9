"""What the commands that take scans and a bundle share: options, and the run over the scans."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pipeline.cli.options import num_parts_option, part_id_option, part_of
from pipeline.cli.say import complain, say

if TYPE_CHECKING:
    from pipeline.cohorts.masks import FoundMasks
    from pipeline.inference.run import Finish
    from pipeline.inference.shared_mask import SharedMask
    from pipeline.scans.sources import Source

FILE = click.Path(path_type=Path)
STATUSES = ("written", "skipped", "failed")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class ScanOptions:
    """What `scan_options` ask for; see their help texts."""

    scans: tuple[Path, ...]
    bundle: str
    output: Path
    series: str | None = None
    modality: str | None = None
    channel: tuple[str, ...] = ()
    brain_mask: Path | None = None
    n4: bool = False
    register_to: Path | None = None
    force: bool = False
    output_type: str | None = None
    keep_names: bool = False
    num_parts: int = 1
    part_id: int = 0
    executor: str = "local"
    slurm: tuple[str, ...] = ()
    report: Path | None = None
    device: str = "auto"
    precision: str = "float32"
    overwrite: bool = False
    trust_bundle: bool = False
    no_page: bool = False
    mask: Path | None = None
    masks: Path | None = None
    whole: bool = False
    slab_mm: float | None = None
    flip_average: bool | None = None
    uncertainty: bool = False
    viewer: bool = False
    grow: float = 0.0
    drawn: tuple[Path, ...] = ()
    moved: bool = False
    samples: int | None = None
    seed: int = 0
    source: str | None = None


def _all(*options: Decorator) -> Decorator:
    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def scan_options(bundle: str | None, output: str) -> Decorator:
    """The options of a command that takes scans and a bundle.

    Args:
        bundle: that is taken without -b; None asks for one.
        output: the folder that is written without -o.
    """
    named: dict[str, Any] = {"required": True} if bundle is None else {"default": bundle, "show_default": True}
    return _all(
        click.argument("scans", nargs=-1, required=True, metavar="SCAN…", type=FILE),
        click.option("-b", "--bundle", help="A bundle's name or a run's folder.", **named),
        click.option("-o", "--output", default=Path(output), show_default=True, metavar="DIR", type=FILE,
                     help="Folder to write."),
        click.option("--series", metavar="NUMBER", help="Which DICOM series, by its number or UID."),
        click.option("--modality", help="DICOM of this modality (MR), or BIDS scans of this suffix (FLAIR), only."),
        click.option("--channel", multiple=True, metavar="NAME=FILE",
                     help="A further sequence on the scan's grid, for a bundle that takes several; found in BIDS."),
        click.option("--brain-mask", metavar="FILE", type=FILE,
                     help="Brain mask on the scan's grid, for a network trained on skull-stripped scans."),
        click.option("--n4", is_flag=True, help="Correct the bias field before inference (N4)."),
        click.option("--register-to", metavar="FILE", type=FILE,
                     help="Register rigidly to this scan or template before inference."),
        click.option("--force", is_flag=True, help="Go on with a scan unlike those of the training."),
        click.option("--output-type", type=click.Choice(["nifti", "dicom", "both"]),
                     help="DICOM needs a DICOM source.  [default: as the source]"),
        click.option("--keep-names", is_flag=True,
                     help="Name results of DICOM after its folder, which may be the patient's name, not by its hash."),
        num_parts_option,
        part_id_option,
        click.option("--executor", default="local", show_default=True, type=click.Choice(["local", "slurm"]),
                     help="slurm submits --num-parts shares to a cluster as an array of jobs, and waits for them."),
        click.option("--slurm", multiple=True, metavar="OPTION=VALUE",
                     help="An option of sbatch by its long name, for --executor slurm: partition=gpu, time=2:00:00."),
        click.option("--report", metavar="FILE", type=FILE,
                     help="Write a JSON record: versions, device, time and memory of each scan, outputs."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
        click.option("--overwrite", is_flag=True, help="Make results again that are there."),
        click.option("--trust-bundle", is_flag=True, help="Execute the code in an untrusted config."),
        click.option("--no-page", is_flag=True, help="Write no HTML page."),
    )  # fmt: skip


mask_option = click.option(
    *("--mask", "mask"),
    metavar="FILE",
    type=FILE,
    help="Lesion mask on the scan's grid; only it and a margin of 5 mm are edited.",
)
slab_options = _all(
    click.option("--whole", is_flag=True, help="Take all slices.  [default: as the bundle]"),
    click.option(
        "--slab-mm",
        type=click.FloatRange(min=0, min_open=True),
        metavar="MM",
        help="Take the middle slices of this thickness, like those of a training on a slab.",
    ),
)
flip_option = click.option(
    "--flip-average/--no-flip-average",
    default=None,
    help="Average over the scan and its left-right mirror image: twice the network's work.  [default: as the bundle]",
)


precision_option = click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16"]),
    help="Of the networks. bfloat16 takes half the time where the processor or GPU has it, is refused elsewhere, and "
    "changes the result slightly.",
)


def run_over_scans(kind: str | None, options: ScanOptions, finish: "Finish | None" = None) -> None:
    """Load the predictor once, work through the scans, and say what became of them.

    Args:
        kind: of predictor that the command is for; None takes any.
        options: as the user gave them.
        finish: what the command makes of the results.

    Raises:
        UsageError: if nothing could be started.
        ScanError: if some scans failed.
    """
    _check(options)
    part = part_of(options.num_parts, options.part_id)

    from pipeline.allocator import kept_objects

    # Where jobs are submitted, there may be no GPU.
    as_jobs = options.executor == "slurm"
    device, precision = ("cpu", "float32") if as_jobs else (options.device, options.precision)
    with kept_objects():
        from pipeline.bundles import find_parts
        from pipeline.inference import Request, load_parts, predict_scans
        from pipeline.inference.outputs import Form
        from pipeline.reports import ScanPage
        from pipeline.reports.folder import write_folder_pages, write_run_report
        from pipeline.scans.sources import in_dataset, open_sources

        channels = _channels(options.channel)
        loaded = load_parts(find_parts(options.bundle), kind, device, options.trust_bundle, precision)
    predictor, provenance = loaded.predictor, loaded.provenance
    _settle(predictor, options)
    if as_jobs:
        from pipeline.cli.cluster import run_as_jobs

        run_as_jobs(options, loaded.metadata["references"][0])
        return
    modality = options.modality
    if modality is None and len(predictor.channels) > 1 and not channels and any(map(in_dataset, options.scans)):
        # Of several sequences of one person, the first is the scan, and the others go with it.
        modality = predictor.channels[0]
    with open_sources(options.scans, options.series, modality) as named:
        found_masks, shared_mask = _masks(
            kind or predictor.kind, named, options, options.brain_mask or next(iter(channels.values()), None)
        )
        sources = found_masks.sources
        request = Request(
            form=Form(options.output_type, None if options.no_page else ScanPage(options.viewer)),
            finish=finish,
            channels=channels,
            masks=found_masks.masks,
            shared_mask=shared_mask,
            brain=options.brain_mask,
            bias_correction=options.n4,
            template=options.register_to,
            force=options.force,
            keep_names=options.keep_names,
            overwrite=options.overwrite,
            part=part,
        )
        outcome = predict_scans(sources, predictor, provenance, options.output, _report, request, loaded.metadata)
    if options.report is not None:
        write_run_report(options.report, outcome, predictor, provenance, options.keep_names)
    index = write_folder_pages(options.output, outcome, len(sources))
    counts = {status: len(outcome.of(status)) for status in STATUSES}
    without = len(found_masks.without)
    left_out = f", {without} without a lesion mask left out" if without else ""
    conclude(options.output, counts, index, loaded.metadata["references"][0], left_out)


def conclude(output: Path, counts: Mapping[str, int], index: Path | None, reference: str, left_out: str = "") -> None:
    """Say what became of the scans.

    Args:
        output: folder of the results.
        counts: how many of each of `STATUSES`.
        index: page of all of them; None if there is none.
        reference: what to cite.
        left_out: what to say of scans that were not tried.

    Raises:
        ScanError: if some failed.
    """
    from pipeline.errors import ScanError

    written, skipped, failed = (counts[status] for status in STATUSES)
    say(f"{output}: {written} written, {skipped} done before, {failed} failed{left_out}")
    if index is not None:
        say(f"look at {index}")
    say(f"Results are synthetic, for research, not for diagnosis. Please cite: {reference}")
    if failed:
        raise ScanError(f"{failed} of {sum(counts.values())} scan(s) failed, for the reasons above")


def _settle(predictor: Any, options: ScanOptions) -> None:
    """Give a predictor what the user wants of it.

    Raises:
        UsageError: if it cannot tell how uncertain it is, or which modality the scans are of.
    """
    from pipeline.preprocessing.slab import Slab

    if options.whole or options.slab_mm is not None:
        predictor.slab = Slab(thickness_mm=options.slab_mm)
    if options.flip_average is not None:
        predictor.flip_average = options.flip_average
    if options.grow:
        predictor.grow_mm = options.grow
    if options.uncertainty:
        predictor.uncertainty = True
    if (choose := getattr(predictor, "choose", None)) is not None:
        choose(options.source)
    if options.samples is not None:
        predictor.draw(options.samples, options.seed)


def _masks(
    kind: str, sources: "list[Source]", options: ScanOptions, of_one: Path | None
) -> "tuple[FoundMasks, SharedMask | None]":
    """The lesion mask of each scan, or one for all of a person; a filler's are looked for where none is named.

    Raises:
        UsageError: if there are several scans, and a mask, or another file, `of_one`, that belongs to one.
    """
    from pipeline.cohorts.masks import FoundMasks, find_masks
    from pipeline.errors import UsageError
    from pipeline.inference.shared_mask import SharedMask

    shared = bool(options.drawn) and len(sources) == len(options.scans) > 1
    mask = None if shared else options.mask or next(iter(options.drawn), None)
    if (mask or of_one) and len(sources) > 1:
        raise UsageError(f"{mask or of_one}: belongs to one scan, found {len(sources)}; run them one by one")
    if shared:
        return FoundMasks(sources, {}, []), SharedMask.of(options.drawn, sources, options.moved)
    if mask is not None or kind != "filler":
        return FoundMasks(sources, {} if mask is None else dict.fromkeys(sources, mask), []), None
    found = find_masks(sources, options.masks)
    for source in found.without:
        say(f"{source.path}: no lesion mask of it was found, left out")
    return found, None


def _source(name: str) -> ParameterSource | None:
    return click.get_current_context().get_parameter_source(name)


def _channels(given: Iterable[str]) -> dict[str, Path]:
    from pipeline.errors import UsageError

    channels: dict[str, Path] = {}
    for each in given:
        name, found, path = each.partition("=")
        if not (name and found and path) or name in channels:
            raise UsageError(
                f"--channel {each}: expected NAME=FILE, each name once, for example --channel T1w=t1.nii.gz"
            )
        if not Path(path).is_file():
            raise UsageError(f"{path}: found no file, expected a scan (.nii or .nii.gz); check the path")
        channels[name] = Path(path)
    return channels


def _check(options: ScanOptions) -> None:
    from pipeline.errors import UsageError

    for scan in options.scans:
        if not (scan.exists() or scan.is_symlink()):  # of a link, what it lacks is told later
            raise UsageError(f"{scan}: no such file; check the path")
    if options.output.exists() and not options.output.is_dir():
        raise UsageError(f"{options.output}: is a file, expected a folder for the results; name another with -o")
    masks = (options.mask, *options.drawn)
    files = (
        *((mask, "a lesion mask") for mask in masks),
        (options.brain_mask, "a brain mask"),
        (options.register_to, "a scan"),
    )
    for path, what in files:
        if path is not None and not path.is_file():
            raise UsageError(f"{path}: found no file, expected {what} (.nii or .nii.gz); check the path")
    _check_slab(options)
    if len(options.drawn) > 1 and len(options.drawn) != len(options.scans):
        raise UsageError(
            f"--mask: found {len(options.drawn)} for {len(options.scans)} scans, expected one for all or one for each, "
            "in their order"
        )
    _check_executor(options)
    if options.report is not None:
        _check_report(options.report)


def _check_executor(options: ScanOptions) -> None:
    from pipeline.errors import UsageError

    if options.executor == "slurm" and _source("part_id") is ParameterSource.COMMANDLINE:
        raise UsageError("--part-id: --executor slurm submits all shares, expected no --part-id; leave it out")
    if options.executor == "local" and _source("slurm") is ParameterSource.COMMANDLINE:
        raise UsageError("--slurm is for --executor slurm; give both or none")


def _check_slab(options: ScanOptions) -> None:
    from pipeline.errors import UsageError

    if options.slab_mm is not None and not math.isfinite(options.slab_mm):
        raise UsageError(f"--slab-mm {options.slab_mm:g}: expected a thickness in millimetres")
    slab = ["--whole"] * options.whole + ["--slab-mm"] * (options.slab_mm is not None)
    if len(slab) > 1:
        raise UsageError("give one of --whole and --slab-mm")
    if options.mask is not None and slab:
        raise UsageError(f"{slab[0]} changes nothing with --mask, whose slices are all edited; give one of the two")


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
        complain(f"{name}: {what}")
    else:
        say(f"{name}: {what}")
