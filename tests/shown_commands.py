"""Commands that documents show: found in their text, parsed by Click without being run, or run as a reader would."""

import multiprocessing
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from itertools import pairwise

import click
import pytest

from pipeline.cli.main import COMMANDS, cli, main

# Defaults of options that documents do not give, so that one epoch of a few slices by a tiny network is enough.
SMALL = {
    "PHS_TRAIN_EPOCHS": "1",
    "PHS_TRAIN_SETTINGS": "filters=4",
    "PHS_EVALUATE_JUDGE_ITERATIONS": "3",
    "PHS_SELECT_JUDGE_ITERATIONS": "3",
}
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
        language: after the fence; empty where none is named.
        text: between the fences.
        reason: why no test runs it, as the remark before it says; None for one that is run.
    """

    language: str
    text: str
    reason: str | None


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a document, in their order."""
    return [Block(found["language"], found["text"], found["reason"]) for found in BLOCK.finditer(text)]


def steps(script: str) -> Iterator[list[str] | str]:
    """A shell script in order: the words of each command of ours, and what stands between as scripts of their own."""
    between: list[str] = []
    for line in joined(script).splitlines():
        if not line.startswith("phs-pipeline "):
            between.append(line)
            continue
        if any(between):
            yield "\n".join(between)
        between = []
        yield shlex.split(line, comments=True)
    if any(between):
        yield "\n".join(between)


def run(step: list[str] | str) -> None:
    """Run a command of ours in this process, any other one, a module or a script in a process of its own."""
    if not isinstance(step, str) and step[0] == "phs-pipeline":
        with pytest.raises(SystemExit) as stop:
            main(step[1:])
        assert not stop.value.code, step
        return
    if not isinstance(step, str) and step[:2] == ["python", "-m"]:
        run_module(step[2:])
        return
    command = ["bash", "-euo", "pipefail", "-c", step] if isinstance(step, str) else [sys.executable, *step[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"


def run_module(words: list[str]) -> None:
    """`python -m …` in a process of its own, forked by a server that has imported torch and MONAI once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["monai.bundle", "pipeline.bundles", "pipeline.launch"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        process = context.Process(
            target=runpy.run_module, args=(words[0],), kwargs={"run_name": "__main__", "alter_sys": True}
        )
        process.start()
    process.join(600)
    assert process.exitcode == 0, words


def bash_lines(text: str) -> list[str]:
    """The lines of a document's `bash` blocks, without remarks."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [re.split(r"(?:  |    )#", line)[0].strip() for block in blocks for line in joined(block).splitlines()]
    return [line for line in lines if line]


def block_lines(text: str) -> list[str]:
    """The commands of ours in blocks of any kind; what stands behind two spaces is a remark."""
    lines = [re.split(r" {2,}| && ", line.strip())[0] for line in joined(text).splitlines()]
    return [line for line in lines if line.startswith("phs-pipeline ")]


def spans(text: str) -> list[str]:
    """The commands of ours in running text that say more than a name."""
    found = re.findall(r"(?<!`)`((?:phs-pipeline )?[a-z][^`]*)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [span for span in found if len(words_of(span)) > 1 and words_of(span)[0] in COMMANDS]


def joined(text: str) -> str:
    """A text in which a command that goes on in the next line is one line."""
    return re.sub(r"\\\n *", " ", text)


def words_of(line: str) -> list[str]:
    """The words of a command of ours, without its program, and without an ellipsis unless it is an option's value."""
    words = shlex.split(line.replace("…", " … "))
    kept = [word for last, word in pairwise(["", *words]) if word != "…" or last.startswith("-")]
    return kept[1:] if kept[:1] == ["phs-pipeline"] else kept


def misspelt(words: list[str], whole: bool, command: click.Command = cli) -> str | None:
    """What is wrong with the names of a command, its options and their choices, or with what they are given.

    Args:
        words: of the line, without `phs-pipeline`.
        whole: whether what is required and missing is wrong, too.
        command: whose words they are.

    Returns:
        A sentence; None if nothing is wrong.
    """
    context = click.Context(command, info_name=command.name)
    try:
        if isinstance(command, click.Group):
            _, rest, _ = command.make_parser(context).parse_args(list(words))
            below = command.get_command(context, rest[0]) if rest else None
            return misspelt(rest[1:], whole, below) if below else f"found no command in {rest}"
        _unread(command, whole).parse_args(context, list(words))
    except click.BadOptionUsage as error:
        return error.format_message() if whole else None
    except click.UsageError as error:
        return error.format_message()
    return None


def _unread(command: click.Command, whole: bool) -> click.Command:
    """A copy of a command that takes any text where it would read a file or number."""
    command = copy(command)
    command.params = [copy(parameter) for parameter in command.params]
    for parameter in command.params:
        parameter.callback = None
        parameter.required = parameter.required and whole
        if not isinstance(parameter.type, click.Choice | click.types.BoolParamType):
            parameter.type = click.STRING
    return command
