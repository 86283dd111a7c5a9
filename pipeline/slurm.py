"""Commands as an array of jobs on a Slurm cluster, submitted by submitit.

What became of a job is read from the queue and from a file that its command writes when it has come through. Clusters
without accounting tell no more, and results that submitit pickles are not opened: others may write where they lie.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError, first_line
from pipeline.files import read_json, write_json

SUBMITTED = "submitted.json"
# The first looks come sooner; controllers of large clusters ask for no more than a few a minute.
FIRST_POLL_S, POLL_S = 1.0, 15.0
# A file may be seen some seconds after the job that wrote it, where folders are shared over a network.
GRACE_S = 20.0
OPTION = re.compile(r"[a-z][a-z0-9-]*")
OURS = ("array", "error", "output", "open-mode", "wrap")
JOB = re.compile(r"\d+(_\d+)?")


@dataclass(frozen=True)
class Command:
    """What one job runs.

    Args:
        words: program and arguments.
        record: the file that the command writes when it has come through.
    """

    words: tuple[str, ...]
    record: Path


@dataclass(frozen=True)
class Counts:
    """How many jobs are in which state; `failed` have left the queue without a record."""

    done: int = 0
    running: int = 0
    waiting: int = 0
    failed: int = 0

    def __str__(self) -> str:
        return f"{self.done} done, {self.running} running, {self.waiting} waiting, {self.failed} failed"

    @property
    def ended(self) -> bool:
        """Whether no job is left."""
        return not (self.running or self.waiting)


@dataclass(frozen=True)
class Jobs:
    """Commands that were submitted.

    Args:
        folder: of their logs.
        commands: one a job.
        ids: of the jobs, as Slurm shows them: `12_0`, `12_1`, …
        found: they had been submitted before.
    """

    folder: Path
    commands: tuple[Command, ...]
    ids: tuple[str, ...]
    found: bool = False

    @property
    def array(self) -> str:
        """The job as a whole, as `squeue` and `scancel` take it."""
        return self.ids[0].partition("_")[0]

    def log(self, index: int) -> Path:
        """What a job has written."""
        return self.folder / f"{self.ids[index]}_0_log.out"

    def wait(self, tell: Callable[[Counts], None]) -> list[int]:
        """Wait until all have left the queue.

        Args:
            tell: called with the counts whenever they have changed.

        Returns:
            The indices of those that failed.
        """
        began, told = time.monotonic(), None
        while True:
            counts = self.counts()
            if counts is not None and counts != told:
                tell(counts)
                told = counts
            if counts is not None and counts.ended:
                break
            time.sleep(min(POLL_S, FIRST_POLL_S + (time.monotonic() - began) / 10))
        until = time.monotonic() + GRACE_S
        while (failed := self.without_record()) and time.monotonic() < until:
            time.sleep(FIRST_POLL_S)
        if len(failed) < counts.failed:
            tell(Counts(done=len(self.ids) - len(failed), failed=len(failed)))
        return failed

    def without_record(self) -> list[int]:
        """The indices of those whose command has not come through, or not yet."""
        return [index for index, command in enumerate(self.commands) if not command.record.is_file()]

    def counts(self) -> Counts | None:
        """How many are in which state now; None where the controller does not answer, which passes."""
        states = _queue(self.array)
        if states is None:
            return None
        lacking = {self.ids[index] for index in self.without_record()}
        queued = Counter("waiting" if states[job] == "PENDING" else "running" for job in self.ids if job in states)
        failed = len(lacking - states.keys())
        return Counts(len(self.ids) - queued.total() - failed, queued["running"], queued["waiting"], failed)

    def reason(self, index: int) -> str:
        """Why a job failed: the sentence of ours in its log, or what else it may be."""
        log = self.log(index)
        if not log.is_file():
            return "it was cancelled before it started, or cannot write its log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        return said[-1] if said else "it was stopped, or memory or time ran out"

    def forget(self) -> None:
        """Remove what lies in the folder, except for logs: the next call submits again."""
        left = [command.record for command in self.commands]
        for path in (self.folder / SUBMITTED, *left, *self.folder.glob("*.pkl"), *self.folder.glob("*.sh")):
            path.unlink(missing_ok=True)


def start(commands: Sequence[Command], folder: Path, options: Mapping[str, str | bool]) -> Jobs:
    """Submit commands as one array, unless the same ones were submitted before and nobody has waited for them yet.

    Args:
        commands: to run, each from the present folder and in this environment.
        folder: of logs, seen by all nodes.
        options: of `sbatch`, by their long names without dashes; True stands for an option without a value.

    Raises:
        UsageError: if submitit or Slurm is missing or refuses, or jobs of another command are still at work here.
    """
    folder = folder.absolute()
    if (before := _before(folder, commands)) is not None:
        return before
    _check(folder, options)
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands:
        command.record.unlink(missing_ok=True)
    ids = _submitted(commands, folder, options)
    content = {"Jobs": ids, "Commands": [list(command.words) for command in commands]}
    write_json(folder / SUBMITTED, content)
    return Jobs(folder, tuple(commands), tuple(ids))


def _before(folder: Path, commands: Sequence[Command]) -> Jobs | None:
    """The same commands, if they were submitted and nobody has waited for them."""
    content = read_json(folder / SUBMITTED)
    ids = content.get("Jobs")
    if not (isinstance(ids, list) and ids and all(isinstance(job, str) and JOB.fullmatch(job) for job in ids)):
        return None
    if content.get("Commands") == [list(command.words) for command in commands]:
        return Jobs(folder, tuple(commands), tuple(ids), found=True)
    array = ids[0].partition("_")[0]
    if _queue(array) == {}:
        return None
    raise UsageError(
        f"{folder}: job {array} of another command is still at work here, expected none; wait for it with the command "
        f"that submitted it, or stop it (scancel {array})"
    )


def _check(folder: Path, options: Mapping[str, str | bool]) -> None:
    if importlib.util.find_spec("submitit") is None:
        raise UsageError("Slurm: submitit is not installed; pip install 'phs-pipeline[slurm]'")
    for program in ("sbatch", "squeue", "srun"):
        if shutil.which(program) is None:
            raise UsageError(f"Slurm: found no {program} on this machine, expected it; log in where jobs are submitted")
    if "%" in str(folder):  # Slurm and submitit fill in numbers of jobs there
        raise UsageError(f"{folder}: has a % in its path, expected none where Slurm writes logs; choose another folder")
    for name in options:
        if not OPTION.fullmatch(name):
            raise UsageError(f"--slurm {name}: expected a long option of sbatch, such as --slurm partition=gpu")
        if name in OURS:
            raise UsageError(f"--slurm {name}: is set by phs-pipeline itself; leave it out")


def _submitted(commands: Sequence[Command], folder: Path, options: Mapping[str, str | bool]) -> list[str]:
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.helpers import CommandFunction, clean_env, environment_variables

    executor = submitit.SlurmExecutor(folder)
    settings: dict[str, Any] = {
        "job_name": "phs-pipeline",
        # submitit's own defaults are five minutes, and a key that clusters may not know.
        "time": None,
        "wckey": None,
        "stderr_to_stdout": True,
        # The batch script has all processors of the job; a step that srun starts in it has not, since Slurm 22.05.
        "use_srun": False,
        "additional_parameters": dict(options),
    }
    executor.update_parameters(**settings)
    # Of a job that submits others, they inherit nothing; which cluster it is, and its user's defaults, they do.
    kept = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    try:
        with clean_env(), environment_variables(**kept), executor.batch():
            jobs = [executor.submit(CommandFunction(list(command.words))) for command in commands]
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        reason = first_line(error).removeprefix("sbatch: error: ")
        raise UsageError(f"sbatch took no job ({reason}); give what your cluster asks for with --slurm") from error
    return [job.job_id for job in jobs]


def _queue(array: str) -> dict[str, str] | None:
    """The state of each job of an array that waits or runs; None where the controller does not answer."""
    command = ["squeue", "--noheader", "--array", "--jobs", array, "--format", "%i %T"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # digits
    if asked.returncode:
        # Of a job that ended long ago, it knows no more.
        return {} if "Invalid job id" in asked.stderr else None
    rows = (line.split() for line in asked.stdout.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}
