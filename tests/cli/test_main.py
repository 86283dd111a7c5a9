"""The door: answers at once, and says what is wrong in one sentence."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.cli.main import COMMANDS, main
from pipeline.scans import cohorts


def call(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


@pytest.mark.parametrize("arguments", [["--help"], ["preprocess", "--help"], ["train", "--help"], ["synthesize", "-h"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = "{'torch', 'monai', 'nibabel', 'numpy', 'scipy', 'pandas', 'matplotlib', 'rich', 'SimpleITK', 'itk'}"
    program = (
        "import sys\nfrom pipeline.cli.main import main\n"
        f"try: main({arguments})\n"
        f"finally: print('heavy:', sorted({heavy} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert answer.returncode == 0
    assert "Usage: phs-pipeline" in answer.stdout
    assert answer.stdout.endswith("heavy: []\n")


def test_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "0 all done, 1 some scans failed, 2 nothing could be started" in text
    assert "not for diagnosis" in text
    for name, meaning in COMMANDS.items():
        assert name in text
        assert meaning in text


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_module_with_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.util.find_spec(f"pipeline.cli.{name}") is not None
    assert call(name, "--help") == 0
    assert f"Usage: phs-pipeline {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert __version__ in capsys.readouterr().out


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("synthesise") == 2
    assert "synthesise" in capsys.readouterr().err


def test_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("preprocess", "a", "-o", "b", "--slice", "3") == 2
    assert "--slice" in capsys.readouterr().err


def test_errors_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("preprocess", str(tmp_path / "absent"), "-o", str(tmp_path / "out")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"Error: {tmp_path / 'absent'}: does not exist, expected a cohort folder or a datalist; check the path"
    ]


@pytest.mark.parametrize("debug", [False, True])
def test_traceback_is_shown_on_demand(debug: bool, tmp_path: Path) -> None:
    arguments = [*(["--debug"] if debug else []), "preprocess", str(tmp_path / "absent"), "-o", str(tmp_path / "out")]
    program = f"from pipeline.cli.main import main; main({arguments!r})"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert answer.returncode != 0
    assert ("Traceback" in answer.stderr) is debug
    assert "does not exist, expected a cohort folder" in answer.stderr


def test_layouts_of_the_option_are_those_that_are_found() -> None:
    from pipeline.cli.preprocess import LAYOUTS

    assert LAYOUTS == cohorts.LAYOUTS
