"""`phs-pipeline bids`: the BIDS App."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.cli.say import say
from pipeline.cli.scans import ScanOptions, run_over_scans

FOLDER = click.Path(path_type=Path)
VALIDATORS = ("bids-validator-deno", "bids-validator")
# Options that take all words up to the next option, as BIDS Apps have them.
LISTS = {"--participant-label", "--participant_label", "--session-id", "--session-label"}


class Lists(click.Command):
    """A command whose options of `LISTS` take several values: `--participant-label 01 02`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Name the option before each further value."""
        named: list[str] = []
        option, values = None, 0
        for arg in args:
            if arg.startswith("-"):
                option, values = (arg if arg in LISTS else None), 0
            elif option is not None:
                named += [option] * (values > 0)
                values += 1
            named.append(arg)
        return super().parse_args(ctx, named)


@click.command(cls=Lists)
@click.argument("bids_dir", metavar="BIDS_DIR", type=FOLDER)
@click.argument("output_dir", metavar="OUTPUT_DIR", type=FOLDER)
@click.argument("analysis_level", metavar="LEVEL", type=click.Choice(["participant", "group"]))
@click.option(
    *("--participant-label", "--participant_label", "participants"),
    multiple=True,
    metavar="LABEL…",
    help="Participants, with or without sub-.  [default: all]",
)
@click.option(
    *("--session-id", "--session-label", "sessions"),
    multiple=True,
    metavar="LABEL…",
    help="Sessions, with or without ses-.  [default: all]",
)
@click.option(
    "--bids-filter-file",
    metavar="FILE",
    type=FOLDER,
    help='JSON of entities that scans must have, such as {"flair": {"suffix": "FLAIR", "run": 1}}.',
)
@click.option("-b", "--bundle", default="lesion+fill", show_default=True, help="A bundle's name or a run's folder.")
@click.option("--modality", default="FLAIR", show_default=True, help="Suffix of the scans, where no filter names one.")
@click.option("--masks", metavar="DIR", type=FOLDER, help="Where a filler finds lesion masks, besides the dataset.")
@click.option("--work-dir", "-w", metavar="DIR", type=FOLDER, help="Folder for temporary files.")
@click.option("--n-procs", "--nprocs", type=click.IntRange(min=1), help="Processors to use.  [default: all]")
@click.option("--mem-mb", type=click.IntRange(min=1024), help="Memory to use at most; a scan that needs more fails.")
@click.option("--skip-bids-validation", is_flag=True, help="Do not check the dataset first.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--force", is_flag=True, help="Go on with a scan unlike those of the training.")
def bids(
    bids_dir: Path,
    output_dir: Path,
    analysis_level: str,
    participants: tuple[str, ...],
    sessions: tuple[str, ...],
    bids_filter_file: Path | None,
    bundle: str,
    modality: str,
    masks: Path | None,
    work_dir: Path | None,
    n_procs: int | None,
    mem_mb: int | None,
    skip_bids_validation: bool,
    device: str,
    force: bool,
) -> None:
    """Run a bundle over the BIDS dataset BIDS_DIR as a BIDS App; OUTPUT_DIR becomes a BIDS derivative.

    LEVEL `participant` makes the results of each scan, as `synthesize`, `fill`, `segment` or `predict` would, whichever
    the bundle is for; `group` writes the index page and the table of all participants' results.
    """
    if not (bids_dir / "dataset_description.json").is_file():
        from pipeline.errors import UsageError

        raise UsageError(f"{bids_dir}: has no dataset_description.json, expected a BIDS dataset; check the path")
    if analysis_level == "group":
        _index(output_dir)
        return
    _bound(work_dir, n_procs, mem_mb)
    if not skip_bids_validation:
        _validate(bids_dir)
    scans = _scans(bids_dir, participants, sessions, bids_filter_file, modality)
    run_over_scans(None, ScanOptions(tuple(scans), bundle, output_dir, masks=masks, device=device, force=force))


def _scans(
    dataset: Path, participants: Sequence[str], sessions: Sequence[str], filter_file: Path | None, modality: str
) -> list[Path]:
    from pipeline.errors import UsageError
    from pipeline.scans.bids_filter import BidsFilter
    from pipeline.scans.sources import open_sources

    wanted = BidsFilter.of(participants, sessions, filter_file)
    by_suffix = any("suffix" in query for query in wanted.queries)
    with open_sources([dataset], modality=None if by_suffix else modality) as sources:
        files = [source.path for source in sources]
    missing = wanted.unknown(files)
    if missing:
        raise UsageError(
            f"{dataset}: found no scan of {', '.join(missing)}; check --participant-label and --session-id"
        )
    kept = [file for file in files if wanted.keeps(file)]
    if not kept:
        raise UsageError(f"{dataset}: found no scan that the filters keep, of {len(files)}; correct {filter_file}")
    return kept


def _bound(work_dir: Path | None, n_procs: int | None, mem_mb: int | None) -> None:
    """Keep to a folder, to processors, and to memory."""
    if work_dir is not None:
        work_dir.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(work_dir.absolute())
    if n_procs is not None:
        import SimpleITK
        import torch

        torch.set_num_threads(n_procs)
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(n_procs)
    if mem_mb is not None:
        from pipeline.errors import UsageError

        try:
            import resource
        except ImportError as error:
            raise UsageError("--mem-mb: this system knows no such bound; leave it out") from error
        resource.setrlimit(resource.RLIMIT_DATA, (mem_mb * 2**20, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _validate(dataset: Path) -> None:
    """Refuse a dataset in which the BIDS validator, where there is one, finds errors."""
    from pipeline.errors import UsageError

    # That of our environment first, which need not be on the path.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = next(filter(None, (shutil.which(name, path=path) for name in VALIDATORS)), None)
    if program is None:
        say(f"{dataset}: not validated, found no BIDS validator; `pip install bids-validator-deno` brings one")
        return
    command = [program, str(dataset.absolute()), "--format", "json"]  # absolute, so that no name is an option
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError):
        say(f"{dataset}: not validated, {Path(program).name} gave no report (exit code {done.returncode})")
        return
    errors = [issue for issue in issues if issue.get("severity") == "error"]
    if errors:
        first = f"{errors[0].get('code')} at {errors[0].get('location')}"
        raise UsageError(
            f"{dataset}: is no valid BIDS, found {len(errors)} errors, the first {first}; mend it, or give "
            "--skip-bids-validation"
        )


def _index(output_dir: Path) -> None:
    """The index page and the table of what lies in a folder."""
    from pipeline.errors import UsageError
    from pipeline.reports.folder import write_index

    # Of a single one too: more participants may follow.
    count = write_index(output_dir) if output_dir.is_dir() else 0
    if not count:
        raise UsageError(f"{output_dir}: found no results, expected those of the level participant; run it first")
    say(f"{output_dir}: {count} results; look at {output_dir / 'index.html'}")
