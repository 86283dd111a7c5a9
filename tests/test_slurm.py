"""Commands as jobs of a cluster: what is submitted, what becomes of it, and what a later call finds."""

import os
import sys
from pathlib import Path

import pytest
import stand_in_slurm

from pipeline import slurm
from pipeline.errors import UsageError
from pipeline.slurm import Command, Counts, start


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that shows what is queued and was submitted."""
    stand_in_slurm.install(tmp_path / "cluster")
    monkeypatch.setenv("PATH", f"{tmp_path / 'cluster'}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "FIRST_POLL_S", 0.1)
    monkeypatch.setattr(slurm, "GRACE_S", 0.0)
    return tmp_path / "cluster"


def shell(folder: Path, *texts: str) -> list[Command]:
    """A job for each text; {} in it stands for its record."""
    records = [folder / f"record_{index}" for index in range(len(texts))]
    return [
        Command(("sh", "-c", text.replace("{}", str(record))), record)
        for text, record in zip(texts, records, strict=True)
    ]


def test_each_command_is_a_job_of_one_array_with_its_own_log(cluster: Path, tmp_path: Path) -> None:
    told: list[Counts] = []
    commands = shell(tmp_path / "logs", *["echo share $SLURM_ARRAY_TASK_ID; touch {}"] * 3)
    jobs = start(commands, tmp_path / "logs", {})
    assert jobs.ids == ("1_0", "1_1", "1_2")
    assert jobs.wait(told.append) == []
    assert told[-1] == Counts(done=3)
    for index in range(3):
        assert f"\nshare {index}\n" in jobs.log(index).read_text()


def test_one_command_is_a_job_without_array(cluster: Path, tmp_path: Path) -> None:
    jobs = start(shell(tmp_path / "logs", "echo alone; touch {}"), tmp_path / "logs", {})
    assert jobs.ids == ("1",)
    assert jobs.wait(lambda _: None) == []
    assert "\nalone\n" in jobs.log(0).read_text()


def test_a_job_that_submits_others_hands_on_nothing_of_itself_but_the_cluster_and_defaults_of_its_user(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"SLURM_CONF": "conf", "SLURM_ARRAY_TASK_ID": "7", "SLURM_MEM_PER_NODE": "1", "SBATCH_ACCOUNT": "lab"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    jobs = start(shell(tmp_path / "logs", f"env > {tmp_path / 'seen'}; touch {{}}"), tmp_path / "logs", {})
    jobs.wait(lambda _: None)
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines() if "=" in line)
    assert {name: seen.get(name) for name in given} == {
        **given,
        "SLURM_ARRAY_TASK_ID": None,
        "SLURM_MEM_PER_NODE": None,
    }
    assert all(os.environ[name] == value for name, value in given.items())


def test_options_are_those_of_sbatch_and_nothing_is_asked_for_that_nobody_gave(cluster: Path, tmp_path: Path) -> None:
    start(shell(tmp_path / "a", "touch {}"), tmp_path / "a", {"time": "2:00:00", "gpus-per-task": "1"})
    start(shell(tmp_path / "b", "touch {}"), tmp_path / "b", {"exclusive": True})
    with_options, without = (eval((cluster / f"submitted-{number}").read_text()) for number in (1, 2))
    assert with_options["time"] == "2:00:00"
    assert with_options["gpus-per-task"] == "1"
    assert not without.keys() & {"time", "mem", "partition", "wckey"}
    assert "#SBATCH --exclusive\n" in next((tmp_path / "b").glob("*.sh")).read_text()


def test_a_job_that_leaves_no_record_failed_and_its_sentence_is_found_in_its_log(cluster: Path, tmp_path: Path) -> None:
    texts = ("touch {}", "echo 'Error: a.nii: no such file; check the path' >&2; exit 2", "kill -9 $$")
    told: list[Counts] = []
    jobs = start(shell(tmp_path / "logs", *texts), tmp_path / "logs", {})
    assert jobs.wait(told.append) == [1, 2]
    assert told[-1] == Counts(done=1, failed=2)
    assert jobs.reason(1) == "a.nii: no such file; check the path"
    assert jobs.reason(2) == "it was stopped, or memory or time ran out"
    jobs.log(2).unlink()
    assert jobs.reason(2).startswith("it was cancelled before it started")


def test_a_controller_that_does_not_answer_for_a_while_ends_no_job(cluster: Path, tmp_path: Path) -> None:
    (cluster / "silent").touch()
    jobs = start(shell(tmp_path / "logs", f"rm {cluster / 'silent'}; sleep 0.5; touch {{}}"), tmp_path / "logs", {})
    assert jobs.wait(lambda _: None) == []


def test_a_later_call_waits_for_the_same_jobs_and_submits_again_when_they_are_done_with(
    cluster: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    commands = shell(folder, f"until [ -e {tmp_path / 'go'} ]; do sleep 0.1; done; touch {{}}")
    first = start(commands, folder, {})
    again = start(commands, folder, {})
    assert (again.ids, again.found) == (first.ids, True)
    with pytest.raises(UsageError, match=r"job 1 of another command is still at work .*scancel 1"):
        start(shell(folder, "touch {}"), folder, {})
    (tmp_path / "go").touch()
    assert again.wait(lambda _: None) == []
    again.forget()
    assert [path.name for path in folder.iterdir()] == [again.log(0).name]
    assert start(commands, folder, {}).ids == ("2",)


def test_what_another_command_left_when_all_its_jobs_have_ended_is_in_no_way(cluster: Path, tmp_path: Path) -> None:
    start(shell(tmp_path / "logs", "true"), tmp_path / "logs", {}).wait(lambda _: None)
    assert not start(shell(tmp_path / "logs", "touch {}"), tmp_path / "logs", {}).found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"array": "0-3"}, "--slurm array: is set by phs-pipeline itself"),
        ({"Time": "5"}, "--slurm Time: expected a long option of sbatch"),
        ({"partition": "nowhere"}, r"sbatch took no job \(invalid partition specified: nowhere\)"),
    ],
)
def test_options_that_cannot_be_are_refused(
    cluster: Path, tmp_path: Path, options: dict[str, str | bool], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        start(shell(tmp_path / "logs", "touch {}"), tmp_path / "logs", options)


def test_where_there_is_no_slurm_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(UsageError, match="found no sbatch on this machine"):
        start(shell(tmp_path / "logs", "touch {}"), tmp_path / "logs", {})
    assert not (tmp_path / "logs").exists()
