"""`phs-pipeline doctor`, as a user calls it."""

import pytest
from click.testing import CliRunner

import pipeline.doctor
from pipeline.cli.doctor import doctor
from pipeline.doctor import Check

FINE = Check("disk", "ok", "61.3 GiB free")
SO_SO = Check("user", "warning", "root in a container", "docker run --user 1000")
BAD = Check("memory", "problem", "0.1 GiB free", "close other programs")


@pytest.mark.parametrize(
    ("found", "code", "last"),
    [
        ([FINE, SO_SO], 0, "no problem found"),
        ([BAD, FINE], 1, "ok       disk: 61.3 GiB free"),
    ],
)
def test_it_prints_a_line_a_check_and_ends_with_1_if_there_is_a_problem(monkeypatch, found, code, last):
    monkeypatch.setattr(pipeline.doctor, "examine", lambda: iter(found))
    result = CliRunner().invoke(doctor)
    assert result.exit_code == code
    lines = result.output.splitlines()
    assert lines[: len(found)] == [str(check) for check in found]
    assert lines[-1] == last


def test_the_real_machine_gets_an_answer_without_a_traceback(monkeypatch):
    monkeypatch.setattr(pipeline.doctor, "list_bundles", list)
    result = CliRunner().invoke(doctor)
    assert result.exit_code in (0, 1)
    assert result.output.count("\n") > 10
    assert all(line.split()[0] in ("ok", "warning", "problem", "no") for line in result.output.splitlines())
