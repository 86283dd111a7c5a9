"""`phs-pipeline train` and `phs-pipeline bundles`, as a user meets them."""

import csv
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from pipeline.bundles import COMMANDS, bundles_folder, kind_of, list_bundles
from pipeline.cli.main import cli, main
from pipeline.files import sha256

ROOT = Path(__file__).parents[2]


def arguments(cohort: Path, run: Path, settings: dict[str, Any]) -> list[str]:
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return ["train", "gvs", "--data", str(cohort), "-o", str(run), "--device", "cpu", *given]


def process(*command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *command], env=environment, stderr=subprocess.PIPE, text=True
    )


def tensors(content: Any, path: str = "") -> dict[str, torch.Tensor]:
    """All tensors in nested dicts and lists."""
    if isinstance(content, torch.Tensor):
        return {path: content}
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return {key: value for name, item in items for key, value in tensors(item, f"{path}/{name}").items()}


@pytest.mark.slow
def test_a_killed_training_resumes_and_ends_bit_by_bit_where_an_uninterrupted_one_ends(
    phantom_cohort, laptop_run, tiny, tmp_path, caplog
):
    run = tmp_path / "run"
    killed = process(*arguments(phantom_cohort, run, tiny), "--preset", "laptop", "--epochs", "3")
    while not (run / "models" / "checkpoint.pt").is_file():
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    _, said = killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert "epoch 1/3: segmentor " in said
    assert torch.load(run / "models" / "checkpoint.pt", weights_only=True)["epoch"] < 3

    command = ["train", "gvs", "--data", str(phantom_cohort), "-o", str(run), "--device", "cpu", "--resume"]
    caplog.set_level(logging.INFO)
    assert CliRunner().invoke(cli, command, catch_exceptions=False).exit_code == 0
    assert "epoch 3/3: segmentor " in caplog.text

    for name in ("model.pt", "checkpoint.pt"):
        mine, uninterrupted = (
            tensors(torch.load(folder / "models" / name, weights_only=True)) for folder in (run, laptop_run)
        )
        assert mine.keys() == uninterrupted.keys()
        for key in mine:
            assert torch.equal(mine[key], uninterrupted[key]), key
    with (run / "curves.csv").open() as file:
        assert [float(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3]
    assert (run / "curves.csv").read_text() == (laptop_run / "curves.csv").read_text()
    assert [start["resumed"] for start in json.loads((run / "run.json").read_text())["starts"]] == [False, True]
    assert sha256(run / "configs" / "train.json") == sha256(laptop_run / "configs" / "train.json")


@pytest.mark.slow
def test_training_says_where_the_result_is_and_what_to_do_next(phantom_cohort, tiny, tmp_path, caplog):
    command = [*arguments(phantom_cohort, tmp_path / "run", tiny), "--epochs", "1"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert f"{tmp_path / 'run' / 'models' / 'model.pt'}: trained" in done.output
    assert f"next: phs-pipeline evaluate -b {tmp_path / 'run'} --data {phantom_cohort}" in done.output
    assert (tmp_path / "run" / "models" / "model.pt").is_file()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--set", "lambda"], "expected ID=VALUE, for example --set lambda=20"),
        (["--set", "=3"], "expected ID=VALUE"),
        (["--set", "lambda=$__import__('os').abort()"], "--set takes plain values"),
        (["--set", "lambda=\"$__import__('os').abort()\""], "--set takes plain values"),
        (["--set", 'size=[64, "$64"]'], "--set takes plain values"),
        (["--set", "filters=@epochs"], "--set takes plain values"),
        (["--set", "grid=%other.json"], "--set takes plain values"),
        (["--set", 'grid={"_target_": "os.abort"}'], "--set takes plain values"),
        (["--set", "lamda=3"], "has no such setting"),
        (["--set", "lambda=NaN"], "should be a finite number"),
        (["--preset", "desktop"], "it has laptop"),
        (["--epochs", "0"], "0 is not in the range"),
        (["--device", "cuda:99"], "device 'cuda:99' is not available here"),
        (["--resume"], "holds no training to resume"),
    ],
)
def test_wrong_usage_is_one_sentence_with_exit_code_2(phantom_cohort, tmp_path, capsys, changed, said):
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as caught:
        main(["train", "gvs", "--data", str(phantom_cohort), "-o", str(run), *changed])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not run.exists()


def test_an_unknown_bundle_lists_the_known_ones_with_exit_code_2(phantom_cohort, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "vagan", "--data", str(phantom_cohort), "-o", str(tmp_path / "run")])
    assert caught.value.code == 2
    assert "vagan: no bundle of that name" in (error := capsys.readouterr().err)
    assert "gvs" in error.partition("known bundles: ")[2]


@pytest.mark.slow
def test_a_stranger_s_bundle_is_trained_only_with_trust_bundle(phantom_cohort, tiny, tmp_path, capsys):
    stranger, touched = tmp_path / "stranger", tmp_path / "touched"
    shutil.copytree(bundles_folder() / "gvs", stranger)
    config = json.loads((stranger / "configs" / "train.json").read_text())
    config["initialize"].append(f"$__import__('pathlib').Path({str(touched)!r}).touch()")
    (stranger / "configs" / "train.json").write_text(json.dumps(config))
    command = [*arguments(phantom_cohort, tmp_path / "run", tiny), "--epochs", "1"]
    command[1] = str(stranger)
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "initialize::1: $__import__('pathlib')" in error
    assert "give --trust-bundle if you trust who wrote them" in error
    assert not touched.exists()
    assert CliRunner().invoke(cli, [*command, "--trust-bundle"], catch_exceptions=False).exit_code == 0
    assert touched.exists()


def test_a_damaged_checkpoint_is_one_sentence_with_exit_code_2(laptop_run, phantom_cohort, tmp_path, capsys):
    (tmp_path / "run" / "models").mkdir(parents=True)
    (tmp_path / "run" / "configs").symlink_to(laptop_run / "configs")
    (tmp_path / "run" / "models" / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(SystemExit) as caught:
        main(["train", "gvs", "--data", str(phantom_cohort), "-o", str(tmp_path / "run"), "--resume"])
    assert caught.value.code == 2
    assert "checkpoint.pt: not a weights file that can be loaded safely" in capsys.readouterr().err


@pytest.mark.slow
def test_text_that_is_no_json_is_taken_as_text(phantom_cohort, tiny, tmp_path):
    command = [*arguments(phantom_cohort, tmp_path / "run", tiny), "--epochs", "1", "--set", "output=residual"]
    assert CliRunner().invoke(cli, command, catch_exceptions=False).exit_code == 0
    assert json.loads((tmp_path / "run" / "configs" / "inference.json").read_text())["output"] == "residual"


def test_bundles_are_told_to_programs_each_with_a_sentence_of_its_own():
    told = json.loads(CliRunner().invoke(cli, ["bundles", "--json"]).output)
    assert [bundle["name"] for bundle in told] == [bundle.name for bundle in list_bundles()]
    assert len({bundle["description"] for bundle in told}) == len(told)
    for about, bundle in zip(told, list_bundles(), strict=True):
        assert (about["kind"], about["command"]) == (kind_of(bundle), COMMANDS[kind_of(bundle)])
        assert about["weights"] == bundle.weights.is_file() == (about["without_weights"] is None)
        assert about["presets"] == bundle.presets
        assert Path(about["model_card"]).is_file()
    assert next(about for about in told if about["name"] == "duiit")["further_kinds"] == ["modality translator"]


def test_bundles_lists_methods_presets_and_whether_weights_are_there_by_the_command_that_uses_them():
    done = CliRunner().invoke(cli, ["bundles"])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("  gvs ("))
    first, second = lines[place : place + 2]
    assert "with weights): Generator Versus Segmentor" in first
    assert "presets: laptop" in second
    assert second.endswith("README.md")
    heads = {line: index for index, line in enumerate(lines) if not line.startswith(" ")}
    assert heads["translators, for `phs-pipeline synthesize`:"] < place
    for bundle in list_bundles():
        line = next(index for index, line in enumerate(lines) if line.startswith(f"  {bundle.name} ("))
        head = max(index for index in heads.values() if index < line)
        assert lines[head] == f"{kind_of(bundle)}s, for `phs-pipeline {COMMANDS[kind_of(bundle)]}`:"
        assert f"): {bundle.metadata['description']}" in done.output
        assert bundle.weights.is_file() == (
            f"  {bundle.name} ({bundle.metadata['version']}, with weights): " in lines[line]
        )
        assert bundle.metadata.get("without_weights", "with weights") in lines[line]
    others = lines.index("  duiit: see the scorers")
    assert (
        max(index for index in heads.values() if index < others)
        == (heads["modality translators, for `phs-pipeline translate`:"])
    )
    assert "harmonic (0.1.0, weights none: it solves Laplace's equation, and has nothing to train)" in done.output


def test_where_the_folder_was_left_out_the_command_that_was_stopped_goes_on(
    laptop_run, phantom_cohort, tiny, tmp_path, capsys, monkeypatch
):
    run, started = tmp_path / "run", []
    shutil.copytree(laptop_run, run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "finished": False}))
    monkeypatch.setattr("pipeline.launch.train", lambda *given: started.append(given[2:6]))
    monkeypatch.setattr("pipeline.training.processes.run_processes", lambda command, _: started.append(command) or 0)
    command = [*arguments(phantom_cohort, run, tiny), "--preset", "laptop", "--epochs", "3"]
    del command[command.index("-o") : command.index("-o") + 2]
    monkeypatch.setenv("PHS_TRAIN_OUTPUT", str(run))  # as a container sets it
    with pytest.raises(SystemExit) as done:
        main(command)
    assert done.value.code == 0
    assert f"{run}: goes on with this training, which was stopped" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command, "-o", str(run)])
    assert started[0] == (run, (), {"device_name": "cpu"}, True)
    assert not started[1][3], "what is typed is not guessed at"
    with pytest.raises(SystemExit):
        main([*command, "--gpus", "2"])
    assert started[2][3:] == ["train", "gvs", "--data", str(phantom_cohort), "--device", "cpu", "--resume"]


@pytest.mark.parametrize(("left_out", "again"), [(True, "the same command goes on"), (False, "give --resume to go on")])
def test_a_training_that_is_stopped_says_how_to_go_on(
    phantom_cohort, tiny, tmp_path, capsys, monkeypatch, left_out, again
):
    run = tmp_path / "run"

    def interrupted(*_: Any) -> None:
        (run / "configs").mkdir(parents=True)
        (run / "configs" / "train.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.launch.train", interrupted)
    command = arguments(phantom_cohort, run, tiny)
    if left_out:
        monkeypatch.setenv("PHS_TRAIN_OUTPUT", str(run))
        del command[command.index("-o") : command.index("-o") + 2]
    with pytest.raises(SystemExit) as done:
        main(command)
    assert done.value.code == 130
    assert f"{run}: stopped; {again} after the last whole epoch" in capsys.readouterr().err


def test_one_of_several_processes_starts_no_others(monkeypatch):
    launched = []
    monkeypatch.setenv("PHS_TRAIN_GPUS", "4")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("pipeline.launch.train", lambda *given: launched.append(given))
    with pytest.raises(SystemExit) as done:
        main(["train", "gvs", "--data", "COHORT", "-o", "RUN"])
    assert (done.value.code, len(launched)) == (0, 1)


def test_gpus_starts_the_same_command_once_for_each_without_the_option(monkeypatch):
    started = []
    monkeypatch.setattr(
        "pipeline.training.processes.run_processes", lambda command, count: started.append((command, count)) or 3
    )
    options = ["--preset", "laptop", "--set", "lambda=20", "--set", "sources=[1]", "--epochs", "2", "--resume"]
    with pytest.raises(SystemExit) as done:
        main(["--quiet", "train", "gvs", "--data", "COHORT", "-o", "RUN", *options, "--gpus", "4"])
    assert done.value.code == 3
    ((command, count),) = started
    assert count == 4
    assert command[:4] == [sys.executable, "-m", "pipeline.cli", "--quiet"]
    assert command[4:] == [
        *("train", "gvs", "--data", "COHORT", "--output", "RUN"),
        *options[:2],
        *options[6:8],
        *options[2:6],
        "--resume",
    ]
