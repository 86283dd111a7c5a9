"""`phs-pipeline completion`: commands and options completed by the shell."""

import os
from pathlib import Path

import click

from pipeline.cli.say import say

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_PHS_PIPELINE_COMPLETE"  # by which Click is asked, from the program's name
PROGRAM = "phs-pipeline"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.option("--install", is_flag=True, help="Write it where the shell looks for such scripts of the user.")
def completion(shell: str, install: bool) -> None:
    """Print the script by which a shell completes commands and options, or install it.

    To try it in this shell: source <(phs-pipeline completion bash), the same with zsh, or
    phs-pipeline completion fish | source.
    """
    from click.shell_completion import get_completion_class

    from pipeline.cli.main import cli
    from pipeline.files import write_text

    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"{shell}: this version of Click completes nothing in it; update click")
    script = completer(cli, {}, PROGRAM, VARIABLE).source()
    if not install:
        click.echo(script)
        return
    path = script_path(shell)
    write_text(path, script + "\n")
    say(f"{path}: written; it takes effect in new shells")
    if shell == "zsh":
        say(f"once, in ~/.zshrc before compinit: fpath=({path.parent} $fpath)")
    if shell == "bash":
        say("bash reads it if the package bash-completion is installed")


def script_path(shell: str) -> Path:
    """Where a shell looks for completions of the user, by the rules of XDG; zsh has to be told of the folder."""
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    if shell == "fish":
        return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "completions" / f"{PROGRAM}.fish"
    if shell == "zsh":
        return data / "zsh" / "site-functions" / f"_{PROGRAM}"
    folder = os.environ.get("BASH_COMPLETION_USER_DIR") or data / "bash-completion"
    return Path(folder) / "completions" / PROGRAM
