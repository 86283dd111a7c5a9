"""Scans on a Slurm cluster: each share is a job that runs the same command, and one index tells of all."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.again import command_again
from pipeline.cli.say import complain, say
from pipeline.cli.scans import conclude

if TYPE_CHECKING:
    from pipeline.cli.scans import ScanOptions
    from pipeline.slurm import Command, Counts, Jobs

FOLDER = "slurm"
# What a share is told otherwise than the command that submits it.
OWN = ("executor", "slurm", "num_parts", "part_id", "report")


def run_as_jobs(options: "ScanOptions", reference: str) -> None:
    """Submit the shares, or find those of an earlier call; wait for them; gather what they made.

    Args:
        options: as the user gave them.
        reference: what to cite.

    Raises:
        UsageError: if nothing could be submitted, or no share came through.
        ScanError: if some shares or scans failed.
    """
    from pipeline.errors import ScanError, UsageError
    from pipeline.files import write_json
    from pipeline.inference import Outcome
    from pipeline.reports.folder import joined_run_reports, write_folder_pages
    from pipeline.slurm import start

    folder = options.output.absolute() / FOLDER
    jobs = start(_shares(options, folder), folder, dict(map(_option, options.slurm)))
    submitted = "was submitted before" if jobs.found else "is submitted"
    say(f"job {jobs.array} {submitted}: {options.num_parts} share(s) of the scans; logs in {folder}")
    failed = _wait(jobs)
    for index in failed:
        complain(f"share {index} failed (job {jobs.ids[index]}): {jobs.reason(index)}; log: {jobs.log(index)}")
    joined = joined_run_reports([each.record for index, each in enumerate(jobs.commands) if index not in failed])
    if joined is not None and options.report is not None:
        lost = [{"Share": index, "Job": jobs.ids[index], "Log": str(jobs.log(index))} for index in failed]
        write_json(options.report, {**joined, "FailedShares": lost})
    jobs.forget()
    if joined is None:
        raise UsageError("no share came through, for the reasons above; mend them and start the command again")
    for scan in joined["Scans"]:
        if scan["Status"] == "failed":
            complain(f"{scan['Name']}: failed: {scan['Error']}")
    index_page = write_folder_pages(options.output, Outcome(), len(joined["Scans"]))
    lacking = f", {len(failed)} share(s) failed" if failed else ""
    conclude(options.output, joined["Counts"], index_page, reference, lacking)
    if failed:
        raise ScanError(
            f"{len(failed)} of {options.num_parts} share(s) failed, for the reasons above; start the command again to "
            "make what is missing"
        )


def _shares(options: "ScanOptions", folder: Path) -> "list[Command]":
    from pipeline.slurm import Command

    words = [*command_again(without=OWN), "--executor", "local", "--num-parts", str(options.num_parts)]
    records = [folder / f"share_{index}.json" for index in range(options.num_parts)]
    return [
        Command((*words, "--part-id", str(index), "--report", str(record)), record)
        for index, record in enumerate(records)
    ]


def _option(text: str) -> tuple[str, str | bool]:
    """An option of sbatch, with or without dashes in front, and with or without a value."""
    name, found, value = text.removeprefix("--").partition("=")
    return name, value if found else True


def _wait(jobs: "Jobs") -> list[int]:
    """Wait for jobs, and show how far they are; they go on when the waiting is stopped."""
    shown = sys.stderr.isatty()

    def tell(counts: "Counts") -> None:
        if shown:
            click.echo(f"\r\033[Kshares: {counts}", err=True, nl=counts.ended)
        else:
            say(f"shares: {counts}")

    try:
        return jobs.wait(tell)
    except KeyboardInterrupt:
        complain(
            f"\njob {jobs.array} goes on: squeue -j {jobs.array} shows it, scancel {jobs.array} stops it, and the same "
            "command again waits for it"
        )
        raise
