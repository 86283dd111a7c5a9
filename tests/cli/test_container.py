"""Messages in a container of docker-compose.yml: commands as its caller gives them, and what is mounted where."""

import errno
import os
from pathlib import Path

import pytest

from pipeline.cli import container
from pipeline.cli.container import in_its_form, remark
from pipeline.cli.main import main
from pipeline.errors import OutputError, UsageError


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container that sees `data/`, which is /home/me/scans outside, and `out/`; below a folder, not the root."""
    for name, outside in (("DATA", "/home/me/scans"), ("COHORTS", "./cohorts"), ("RUNS", "./runs"), ("OUT", "./out")):
        monkeypatch.setenv(f"PHS_MOUNTED_{name}", outside)
    for name in ("data", "out"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(container, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("run `phs-pipeline preprocess` again", "run `docker compose run --rm preprocess` again"),
        (
            "next: phs-pipeline evaluate -b runs/run --data cohorts/cohort -o REPORT",
            "next: docker compose run --rm evaluate -b runs/run --data cohorts/cohort -o out/REPORT",
        ),
        (
            "`phs-pipeline train gvs --data COHORT -o RUN`, and give the run with -b RUN",
            "`docker compose run --rm train gvs --data cohorts/COHORT -o runs/RUN`, and give the run with -b runs/RUN",
        ),
        ("no bundle of phs-pipeline has it", "no bundle of phs-pipeline has it"),
        ("out/RUN.nii.gz: 1 written", "out/RUN.nii.gz: 1 written"),
    ],
)
@pytest.mark.usefixtures("compose")
def test_hints_have_the_form_of_compose(said: str, told: str) -> None:
    assert in_its_form(said) == told


def test_elsewhere_nothing_is_changed_or_added(tmp_path: Path) -> None:
    hint = "next: phs-pipeline evaluate -o REPORT"
    assert in_its_form(hint) == hint
    assert remark(UsageError(f"{tmp_path / 'scan.nii.gz'}: no such file; check the path")) == ""


@pytest.mark.parametrize("path", ["/home/me/other/scan.nii.gz", "../scan.nii.gz", "scan.nii.gz", "runs/run"])
@pytest.mark.usefixtures("compose")
def test_of_a_file_outside_of_the_mounts_it_is_told_what_is_mounted_where(path: str) -> None:
    assert remark(UsageError(f"{path}: no such file; check the path")) == (
        "; the container sees data/ (your /home/me/scans), out/ (your ./out) alone: put it there, or name its folder "
        "in .env (DATA, OUT)"
    )


@pytest.mark.usefixtures("compose")
def test_of_a_file_that_is_missing_in_a_mount_it_is_told_which_folder_that_is() -> None:
    assert remark(UsageError("data/x.nii.gz: no such file; check the path")) == "; data/ is your /home/me/scans"
    assert remark(UsageError("--report data/a/x.json: cannot be written")) == "; data/ is your /home/me/scans"


@pytest.mark.parametrize("said", ["vagan: no bundle of that name", "out: holds no NIfTI", "--mask and --whole: no"])
@pytest.mark.usefixtures("compose")
def test_of_what_is_no_missing_file_nothing_is_added(said: str) -> None:
    assert remark(UsageError(said)) == ""


def denied(path: Path, number: int) -> OutputError:
    error = OutputError(f"{path}: cannot be written ({os.strerror(number).lower()})")
    error.__cause__ = PermissionError(number, os.strerror(number), str(path))
    return error


def test_a_folder_of_another_user_is_told_with_both_and_the_settings(
    compose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = (compose / "out").stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert remark(denied(Path("out/new/x"), errno.EACCES)) == (
        f"; out belongs to user {owner}, and the container runs as user {owner + 1}: set UID and GID in .env to what "
        "`id -u` and `id -g` say, or take a folder of yours"
    )
    monkeypatch.setattr(os, "getuid", lambda: owner)
    assert remark(denied(Path("out/new/x"), errno.EACCES)) == ""


@pytest.mark.usefixtures("compose")
def test_a_sentence_below_its_own_cause_is_told_as_any_other() -> None:
    error, wrapped = UsageError("data/x: is no scan"), RuntimeError("failed to build")
    wrapped.__cause__, error.__cause__ = error, wrapped
    assert remark(error) == "; data/ is your /home/me/scans"


@pytest.mark.usefixtures("compose")
def test_a_folder_that_is_mounted_read_only_is_told_with_the_others() -> None:
    assert remark(denied(Path("data/x"), errno.EROFS)) == (
        "; data/ is mounted read-only for this command, of data/ (your /home/me/scans), out/ (your ./out): take another"
    )
    # The image itself cannot be written to either.
    assert "the container sees data/" in remark(denied(Path("results"), errno.EACCES))


@pytest.mark.usefixtures("compose")
def test_a_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["synthesize", "/home/me/other/scan.nii.gz"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "scan.nii.gz: no such file; check the path; the container sees data/ (your /home/me/scans)" in said
    with pytest.raises(SystemExit):
        main(["synthesize"])
    said = capsys.readouterr().err
    assert "Usage: docker compose run --rm synthesize" in said
    assert "Try 'docker compose run --rm synthesize --help'" in said
