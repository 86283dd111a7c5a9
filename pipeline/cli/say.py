"""What commands tell a user who did not ask for quiet."""

import click

from pipeline.errors import printable


def say(text: str) -> None:
    """Print a line of results, unless `phs-pipeline --quiet` was called; errors are always printed."""
    if not click.get_current_context().find_root().params.get("quiet"):
        click.echo(printable(text))


def say_lines(text: str) -> None:
    """Print a table of ours line by line."""
    for line in text.split("\n"):
        say(line)


def complain(text: str) -> None:
    """Print a sentence about what went wrong."""
    click.echo(printable(text), err=True)
