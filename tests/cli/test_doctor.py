"""`phs-pipeline doctor`, as a user calls it."""

import json

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


@pytest.mark.parametrize(("found", "code"), [([FINE, SO_SO], 0), ([BAD, FINE], 1)])
def test_a_program_reads_each_check(monkeypatch, found, code):
    monkeypatch.setattr(pipeline.doctor, "examine", lambda: iter(found))
    result = CliRunner().invoke(doctor, ["--json"])
    assert result.exit_code == code
    told = json.loads(result.output)
    assert told["problems"] == code
    assert [Check(**check) for check in told["checks"]] == found


def test_the_real_machine_gets_an_answer_without_a_traceback(monkeypatch):
    monkeypatch.setattr(pipeline.doctor, "list_bundles", list)
    result = CliRunner().invoke(doctor)
    assert result.exit_code in (0, 1)
    assert result.output.count("\n") > 10
    assert all(line.split()[0] in ("ok", "warning", "problem", "no") for line in result.output.splitlines())
