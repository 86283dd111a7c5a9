"""Commands that documents show: found in their text, and parsed by Click without being run."""

import re
import shlex
from copy import copy
from itertools import pairwise

import click

from pipeline.cli.main import COMMANDS, cli


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
