"""Several processes of one command on this machine, as torchrun starts them; if one ends early, all do."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO

from pipeline.errors import UsageError

POLL_S = 0.2
# For the others to notice that one is gone: the one that went first has no message of its own.
GRACE_S = 2.0
STOP_S = 10.0


def run_processes(command: Sequence[str], count: int) -> int:
    """Run a command so many times at once, each with its number in torch's environment variables.

    The first one writes to this terminal; of another only the last line is told, and only if it fails.

    Args:
        command: program and arguments.
        count: of processes.

    Returns:
        0, or the exit code of the first one, which has said by itself why.

    Raises:
        UsageError: if another one fails, or one is killed; the others are stopped, none is left waiting for it.
    """
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, count)]
        port = _free_port()
        processes = [
            stack.enter_context(_stopped_at_the_end(_start(command, rank, count, port, said))) for rank in range(count)
        ]
        while all(process.poll() in (None, 0) for process in processes):
            if all(process.poll() == 0 for process in processes):
                return 0
            time.sleep(POLL_S)
        time.sleep(GRACE_S)
        failed = {rank: code for rank, process in enumerate(processes) if (code := process.poll()) not in (None, 0)}
        # A signal is a cause; an exit code may be that of one who lost another.
        rank = min(failed, key=lambda rank: (failed[rank] > 0, rank))
        if rank == 0 and failed[rank] > 0:
            return failed[rank]
        how = f"was killed ({signal.Signals(-failed[rank]).name})" if failed[rank] < 0 else _last(said[rank - 1])
        raise UsageError(
            f"process {rank + 1} of {count} {how}, and the others were stopped; give --resume to go on from the last "
            "whole epoch"
        )


def _start(
    command: Sequence[str], rank: int, count: int, port: int, said: Sequence[IO[bytes]]
) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    if rank == 0:
        return subprocess.Popen(command, env=environment)  # noqa: S603  # this program again
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=said[rank - 1])  # noqa: S603


@contextlib.contextmanager
def _stopped_at_the_end(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _last(said: IO[bytes]) -> str:
    """How a process ended, by the last line that it wrote."""
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return f"ended ({lines[-1].removeprefix('Error: ')})" if lines else "ended without a word"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
