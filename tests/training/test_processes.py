"""Processes of one command: each knows its number, and none waits for one that is gone."""

import sys
import time

import pytest

from pipeline.errors import UsageError
from pipeline.training.processes import run_processes

WAIT = "import time; time.sleep(60)"


def command(*, first: str = WAIT, second: str = WAIT) -> list[str]:
    return [
        sys.executable,
        "-c",
        f"import os, signal, sys\nif os.environ['RANK'] == '0':\n    {first}\nelse:\n    {second}",
    ]


def test_each_process_has_its_number_as_torch_reads_it(tmp_path):
    script = f"import os; open(os.path.join({str(tmp_path)!r}, os.environ['RANK']), 'w').write(repr(os.environ))"
    run_processes([sys.executable, "-c", script], 3)
    for rank in range(3):
        text = (tmp_path / str(rank)).read_text()
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 3), ("LOCAL_WORLD_SIZE", 3)):
            assert f"'{name}': '{value}'" in text
    ports = {(tmp_path / str(rank)).read_text().partition("'MASTER_PORT': ")[2].split("'")[1] for rank in range(3)}
    assert len(ports) == 1


@pytest.mark.parametrize(
    ("dying", "said"),
    [
        ({"second": "os.kill(os.getpid(), signal.SIGKILL)"}, r"process 2 of 2 was killed \(SIGKILL\)"),
        ({"second": "sys.exit('Error: out of luck')"}, r"process 2 of 2 ended \(out of luck\)"),
    ],
)
def test_a_process_that_dies_ends_all_with_a_message_instead_of_a_hang(dying, said):
    began = time.monotonic()
    with pytest.raises(UsageError, match=said + ", and the others were stopped; give --resume"):
        run_processes(command(**dying), 2)
    assert time.monotonic() - began < 30


def test_what_the_first_process_says_stands_alone(capfd):
    began = time.monotonic()
    assert run_processes(command(first="sys.exit('Error: no such cohort')"), 2) == 1
    assert time.monotonic() - began < 30
    assert capfd.readouterr().err == "Error: no such cohort\n"


def test_who_was_killed_is_named_before_who_lost_it():
    lost = "import time; time.sleep(0.5); sys.exit('Error: another process is gone')"
    with pytest.raises(UsageError, match=r"process 1 of 2 was killed \(SIGTERM\)"):
        run_processes(command(first="os.kill(os.getpid(), signal.SIGTERM)", second=lost), 2)
