"""`completion`: what a shell asks the program, and where it looks for the script."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
PLACES = {
    "bash": "data/bash-completion/completions/phs-pipeline",
    "zsh": "data/zsh/site-functions/_phs-pipeline",
    "fish": "config/fish/completions/phs-pipeline.fish",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("BASH_COMPLETION_USER_DIR", raising=False)
    return tmp_path


@pytest.mark.parametrize("shell", PLACES)
def test_a_script_is_written_where_the_shell_looks_and_is_the_one_that_is_printed(
    call: Call, home: Path, shell: str
) -> None:
    printed = call("completion", shell).out
    assert not list(home.iterdir())
    code, said, _ = call("completion", shell, "--install")
    assert code == 0
    assert (home / PLACES[shell]).read_text() == printed
    assert str(home / PLACES[shell]) in said
    assert ("fpath=" in said) == (shell == "zsh")
    assert call("completion", shell, "--install").code == 0  # again, over the one that is there


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("phs-pipeline synth", "synthesize"),
        ("phs-pipeline export --no", "--no-onnx"),
        ("phs-pipeline verify --j", "--json"),
    ],
)
def test_what_the_shell_asks_is_answered(words: str, offered: str) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "_PHS_PIPELINE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    program = "from pipeline.cli.main import main; main()"
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert f"plain,{offered}" in answer.stdout.splitlines()


def test_bash_completes_with_the_script(call: Call, tmp_path: Path) -> None:
    """The script itself, in the shell: the answer becomes what bash offers."""
    (tmp_path / "phs-pipeline").write_text(f"#!{sys.executable}\nfrom pipeline.cli.main import main\nmain()\n")
    (tmp_path / "phs-pipeline").chmod(0o755)
    (tmp_path / "script").write_text(call("completion", "bash").out)
    asked = "COMP_WORDS=(phs-pipeline bund); COMP_CWORD=1; _phs_pipeline_completion phs-pipeline; echo ${COMPREPLY[@]}"
    paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[2])}
    answer = subprocess.run(
        ["bash", "-c", f"source {tmp_path / 'script'}; {asked}"], env=os.environ | paths, capture_output=True, text=True
    )
    assert answer.stdout.split() == ["bundles"]
