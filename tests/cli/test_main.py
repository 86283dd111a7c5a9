"""The door: answers at once, and says what is wrong in one sentence."""

import errno
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pipeline import __version__, cohorts
from pipeline.cli.main import COMMANDS, LazyGroup, main
from pipeline.errors import ScanError, UsageError


def call(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *((["--help"], "Usage: phs-pipeline"), (["preprocess", "--help"], "Usage: phs-pipeline")),
        *((["train", "--help"], "Usage: phs-pipeline"), (["synthesize", "-h"], "Usage: phs-pipeline")),
        (["bundles"], "translators, for `phs-pipeline synthesize`:"),
        (["bundles", "--json"], '"name": "gvs"'),
        (["completion", "bash"], "_PHS_PIPELINE_COMPLETE=bash_complete"),
    ],
)
def test_help_and_the_list_of_bundles_import_nothing_heavy(arguments: list[str], said: str) -> None:
    heavy = "{'torch', 'monai', 'nibabel', 'numpy', 'scipy', 'pandas', 'matplotlib', 'rich', 'SimpleITK', 'itk'}"
    program = (
        "import sys\nfrom pipeline.cli.main import main\n"
        f"try: main({arguments})\n"
        f"finally: print('heavy:', sorted({heavy} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert answer.returncode == 0
    assert said in answer.stdout
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


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_a_terminal_that_lacks_letters_shows_their_numbers(encoding: str) -> None:
    program = "from pipeline.cli.main import main; main(['--help'])"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(__file__).parents[2])}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert answer.returncode == 0
    assert b"\\u03bb" in answer.stdout


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


@pytest.mark.slow
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

    assert tuple(cohorts.LAYOUTS) == LAYOUTS


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let every command end with an exception."""

    def end_with(error: BaseException) -> None:
        def run() -> None:
            raise error

        monkeypatch.setattr(LazyGroup, "get_command", lambda *_: click.Command("bundles", callback=run))

    return end_with


Command = Callable[[BaseException], None]


class TestHowItEnds:
    @pytest.mark.parametrize(("error", "code"), [(UsageError("lost"), 2), (ScanError("lost"), 1)])
    def test_our_errors_are_one_sentence_and_an_exit_code(
        self, error: Exception, code: int, command: Command, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command(error)
        assert call("bundles") == code
        assert capsys.readouterr().err == "Error: lost\n"

    @pytest.mark.parametrize(
        ("error", "sentence"),
        [
            (
                PermissionError(errno.EACCES, "Permission denied", "a.nii.gz"),
                "Error: a.nii.gz: cannot be used (permission denied); check the path and its permissions",
            ),
            (OSError("Odd"), "Error: a file: cannot be used (odd); check the path and its permissions"),
        ],
    )
    def test_a_file_that_the_system_refuses_is_one_sentence(
        self, error: OSError, sentence: str, command: Command, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command(error)
        assert call("bundles") == 2
        assert capsys.readouterr().err == f"{sentence}\n"

    @pytest.mark.parametrize("error", [KeyboardInterrupt, EOFError, click.Abort])
    def test_what_the_user_stops_has_stopped(
        self, error: type[BaseException], command: Command, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command(error())
        assert call("bundles") == 130
        assert capsys.readouterr().err.strip() == "Stopped."

    @pytest.mark.parametrize("error", [UsageError("lost"), PermissionError(errno.EACCES, "Permission denied")])
    @pytest.mark.parametrize(
        ("options", "environment", "shown"),
        [(["--debug"], None, True), ([], "1", True), ([], "true", True), ([], "0", False), ([], None, False)],
    )
    def test_debug_is_an_option_or_a_variable_of_the_environment(
        self,
        options: list[str],
        environment: str | None,
        shown: bool,
        error: Exception,
        command: Command,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("PHS_DEBUG", raising=False)
        if environment is not None:
            monkeypatch.setenv("PHS_DEBUG", environment)
        command(error)
        with pytest.raises(type(error) if shown else SystemExit):
            main([*options, "bundles"])

    def test_sigterm_stops_it_with_nothing_half_written(self, tmp_path: Path) -> None:
        program = (
            "import sys, time\nfrom pathlib import Path\n"
            "import click\nfrom pipeline.cli.main import LazyGroup, main\nfrom pipeline.files import written_aside\n"
            "def write():\n"
            "    with written_aside(Path('a.txt')) as aside:\n"
            "        aside.write_text('half')\n"
            "        print('writing', flush=True)\n"
            # In steps: a signal that arrives just before a sleep begins is handled when it ends.
            "        [time.sleep(0.1) for _ in range(600)]\n"
            "LazyGroup.get_command = lambda *_: click.Command('bundles', callback=write)\n"
            "main(['bundles'])\n"
        )
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert [path.name for path in tmp_path.iterdir()] != []
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert (process.returncode, said.strip()) == (143, "Stopped.")
        assert list(tmp_path.iterdir()) == []
