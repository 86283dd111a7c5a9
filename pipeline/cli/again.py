"""The command that is running, for processes that are to run it again."""

import sys
from collections.abc import Container

import click
from click.core import ParameterSource


def command_again(without: Container[str] = ()) -> list[str]:
    """Program and arguments of the running command as it was typed; what the environment says, it says again.

    Args:
        without: names of parameters to leave out.
    """
    context = click.get_current_context()
    above = context.find_root().params
    words = [sys.executable, "-m", "pipeline.cli"]
    words += [f"--{name}" for name in ("debug", "quiet") if above.get(name)] + [str(context.command.name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        if name not in without and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            words += _typed(parameter, context.params[name])
    return words


def _typed(parameter: click.Parameter, value: object) -> list[str]:
    if isinstance(parameter, click.Argument):
        values = value if isinstance(value, tuple) else (value,)
        # Files whose names begin as options do.
        return [f"./{text}" if text.startswith("-") else text for text in map(str, values)]
    if isinstance(value, bool):
        return [(parameter.opts if value else parameter.secondary_opts)[-1]]
    given = value if parameter.multiple and isinstance(value, tuple) else (value,)
    return [word for each in given for word in (parameter.opts[-1], *_words(each))]


def _words(value: object) -> list[str]:
    return [str(part) for part in (value if isinstance(value, tuple) else (value,))]
