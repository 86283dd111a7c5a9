"""`phs-pipeline preprocess`: from a folder of scans to a cohort ready for training."""

import contextlib
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import num_parts_option, part_id_option, part_of
from pipeline.cli.say import complain, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.cohorts import Problem
    from pipeline.preprocessing.cohort import Settings
    from pipeline.preprocessing.cohort_format import Cohort

logger = logging.getLogger(__name__)
LAYOUTS = (
    "bids",
    "atlas",
    "brats",
    "isles",
    "lits",
    "nnunet",
    "msd",
    "wmh",
    "msseg2016",
    "isbi2015",
    "ct-ich",
    "healthy",
    "head-neck-pet-ct",
    "datalist",
)


@click.command()
@click.argument("cohort", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--layout", type=click.Choice(LAYOUTS), help="How the cohort lies on disk; found out if not given.")
@click.option("--modality", help="Which scan of each subject, in the layout's own words (FLAIR, t1ce, …).")
@click.option(
    "--channels",
    multiple=True,
    metavar="NAME",
    help="Several scans of each subject on one grid instead (--channels FLAIR,T1w); columns of a datalist.",
)
@click.option("--lesion-labels", metavar="N,N", help="Mask values that mean lesion.  [default: as the layout has it]")
@click.option("--healthy", is_flag=True, help="Scans without a mask, or with an empty one, are of healthy people.")
@click.option(
    "--target",
    metavar="COLUMN",
    help="What scorers learn: a column of the datalist or participants.tsv; or lesion_area, of each slice in cm².",
)
@click.option("--slices", type=click.IntRange(min=1), help="Keep this many middle slices, instead of a thickness.")
@click.option(
    "--slab-mm",
    type=click.FloatRange(min=0, min_open=True),
    help="Keep the middle slices of this thickness.  [default: 60]",
)
@click.option("--whole", is_flag=True, help="Keep all slices.")
@click.option(
    "--percentile",
    default=99.5,
    show_default=True,
    type=click.FloatRange(0, 100, min_open=True),
    help="Upper end of the intensity window [0, V], a percentile of the volume.",
)
@click.option("--foreground-only", is_flag=True, help="Take the percentile over voxels above zero only.")
@click.option("--window", nargs=2, type=float, metavar="LOW HIGH", help="Fixed window instead, e.g. -200 250 for CT.")
@click.option(
    "--min-lesion-mm2",
    default=0.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Slices with a smaller lesion are neither healthy nor pathological.",
)
@click.option(
    "--split",
    nargs=3,
    type=float,
    metavar="TRAIN VAL TEST",
    help="Shares of the patients.  [default: 0.7 0.15 0.15, or as the cohort says]",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the split.")
@click.option("--synthetic", is_flag=True, help="Take images that `sample` or another command made, too.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: all cores]")
@click.option("--overwrite", is_flag=True, help="Replace a cohort made with other settings.")
@num_parts_option
@part_id_option
@click.option("--dry-run", is_flag=True, help="Read names and headers only, say what would be done, and write nothing.")
def preprocess(
    cohort: Path,
    output: Path,
    layout: str | None,
    modality: str | None,
    channels: tuple[str, ...],
    lesion_labels: str | None,
    healthy: bool,
    target: str | None,
    slices: int | None,
    slab_mm: float | None,
    whole: bool,
    percentile: float,
    foreground_only: bool,
    window: tuple[float, float] | None,
    min_lesion_mm2: float,
    split: tuple[float, float, float] | None,
    seed: int,
    synthetic: bool,
    workers: int | None,
    overwrite: bool,
    num_parts: int,
    part_id: int,
    dry_run: bool,
) -> None:
    """Clip, cut, label and split COHORT for training.

    COHORT is a folder in one of the layouts, or a datalist (MONAI's JSON, or CSV with the columns image, mask, subject,
    patient, split, target). Started again after an interruption, it continues.

    With --num-parts each run does its share of the scans; when all have ended, the same command without it finds them
    done, and makes the cohort of them.
    """
    from pipeline.preprocessing import cohort as preprocessing
    from pipeline.preprocessing.cohort_format import read_cohort
    from pipeline.preprocessing.slab import Slab
    from pipeline.preprocessing.window import WindowRule
    from pipeline.reports.cohort_summary import cohort_summary

    if sum((slices is not None, slab_mm is not None, whole)) > 1:
        raise click.UsageError("give one of --slices, --slab-mm and --whole")
    if modality and channels:
        raise click.UsageError("give one of --modality and --channels")
    if window and window[0] >= window[1]:
        raise click.UsageError(f"--window needs LOW below HIGH, found {window[0]:g} {window[1]:g}")
    if not all(map(math.isfinite, (percentile, min_lesion_mm2, slab_mm or 0, *(window or ()), *(split or ())))):
        raise click.UsageError("give finite numbers, found nan or inf among the options")
    slab = Slab(slices=slices, thickness_mm=None) if slices or whole else Slab(thickness_mm=slab_mm or 60.0)
    settings = preprocessing.Settings(
        modality=modality,
        channels=tuple(name.strip() for each in channels for name in each.split(",") if name.strip()),
        lesion_labels=_labels(lesion_labels),
        healthy=healthy,
        target=target,
        slab=slab,
        window=WindowRule(percentile, foreground_only, window or None),
        min_lesion_mm2=min_lesion_mm2,
        split=split,
        seed=seed,
        synthetic=synthetic,
    )
    if dry_run:
        _say_plan(cohort, output, settings, layout, overwrite)
        return
    part = part_of(num_parts, part_id)
    with _shown_progress() as tell:
        if num_parts == 1:
            result = preprocessing.preprocess(cohort, output, settings, layout, workers, overwrite, tell)
        else:
            share = preprocessing.preprocess_share(cohort, output, settings, part, layout, workers, overwrite, tell)
    if num_parts > 1:
        _conclude_share(cohort, output, *share)
        return
    cohort_summary(output, result.subjects)
    _tell_skipped(result.problems)
    say_counts(read_cohort(output))
    say(f"{output}: {len(result.subjects)} subjects ({result.layout}); look at {output / 'summary.png'}")
    _refuse_skipped(cohort, result.problems)


@contextlib.contextmanager
def _shown_progress() -> "Iterator[Callable[[int, int], None]]":
    """Show how many scans are done, in a bar or in tenths."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    shown = console.is_terminal and logger.isEnabledFor(logging.INFO)
    with Progress(console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task("preprocessing")

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)
            if not shown and 10 * done // total > 10 * (done - 1) // total:
                logger.info("preprocessed %d of %d scans", done, total)

        yield tell


def _conclude_share(cohort: Path, output: Path, done: int, problems: "list[Problem]") -> None:
    _tell_skipped(problems)
    say(f"{output}: {done} scan(s) of this share are done")
    say("next, when all shares are: the same command without --num-parts makes the cohort")
    _refuse_skipped(cohort, problems)


def _tell_skipped(problems: "list[Problem]") -> None:
    for problem in problems:
        complain(f"skipped {problem.subject}: {problem.reason}")


def _refuse_skipped(cohort: Path, problems: "list[Problem]") -> None:
    """Exit with 1 if scans were left out.

    Raises:
        ScanError: see above.
    """
    from pipeline.errors import ScanError

    if problems:
        raise ScanError(f"{cohort}: {len(problems)} scan(s) could not be used, for the reasons above")


def _say_plan(cohort: Path, output: Path, settings: "Settings", layout: str | None, overwrite: bool) -> None:
    """Print what would be done.

    Raises:
        ScanError: if scans would be left out.
    """
    from pipeline.preprocessing.plan import plan
    from pipeline.preprocessing.splits import SPLITS

    planned = plan(cohort, output, settings, layout, overwrite)
    for note in planned.notes:
        logger.warning("%s", note)
    for problem in planned.problems:
        complain(f"would skip {problem.subject}: {problem.reason}")
    patients = ", ".join(f"{planned.patients[split]} {split}" for split in SPLITS)
    say(f"{cohort}: {planned.scans} scan(s) ({planned.layout}), {planned.masks} of them with a lesion mask")
    say(f"patients: {patients}")
    unread = f", and those of {planned.unread} folder(s) of DICOM files" if planned.unread else ""
    say(f"{planned.slices} slices{unread}; at most {planned.mib:.0f} MiB in {output}, less when compressed")
    say("nothing was written; start without --dry-run")
    _refuse_skipped(cohort, planned.problems)


def _labels(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not all(part.strip().isdecimal() and int(part) > 0 for part in text.split(",")):
        raise click.UsageError(f"--lesion-labels needs whole numbers above 0 such as 2 or 1,3, found {text!r}")
    return tuple(int(part) for part in text.split(","))


def say_counts(content: "Cohort") -> None:
    """Print how many patients and slices a cohort has in each split."""
    from pipeline.preprocessing.splits import SPLITS

    for name in SPLITS:
        counts = {label: content.slices(name, label) for label in ("patients", "pathological", "healthy", "unknown")}
        unknown = f", {counts['unknown']} unknown" if counts["unknown"] else ""
        say(
            f"{name}: {counts['patients']} patient(s), {counts['pathological']} pathological and {counts['healthy']} "
            f"healthy slices{unknown}"
        )
