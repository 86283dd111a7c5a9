"""The one place that prints: what commands tell a user, with nothing in it that a terminal would obey."""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from pipeline import LINE_EVERY_S
from pipeline.cli.container import in_its_form
from pipeline.errors import printable

logger = logging.getLogger(__name__)


def say(text: str, always: bool = False) -> None:
    """Print a line of results, unless `phs-pipeline --quiet` was called and it is not `always` asked for."""
    if always or not click.get_current_context().find_root().params.get("quiet"):
        click.echo(printable(in_its_form(text)))


def say_json(content: Any) -> None:
    """Print what a program is to read, quiet or not; JSON in ASCII holds nothing that a terminal would obey."""
    click.echo(json.dumps(content, indent=2))


def say_lines(text: str) -> None:
    """Print a table of ours line by line."""
    for line in text.split("\n"):
        say(line)


class Lines(logging.Formatter):
    """What the rooms log, a line each."""

    def format(self, record: logging.LogRecord) -> str:
        """The message alone."""
        return printable(in_its_form(super().format(record)))


def complain(text: str) -> None:
    """Print a sentence about what went wrong."""
    click.echo(printable(in_its_form(text)), err=True)


def progress(sentence: str) -> Callable[[int, int], None]:
    """Print how much is done: on a terminal in one line that is written again, elsewhere a line each half minute.

    Args:
        sentence: with {} for how many are done and {} for how many there are.
    """
    began = line = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal line
        if sys.stderr.isatty():
            click.echo(f"\r{sentence.format(done, total)}", err=True, nl=done == total)
            return
        now = time.monotonic()
        if done < total and now - line >= LINE_EVERY_S:
            line = now
            left = (now - began) / max(done, 1) * (total - done)
            logger.info("%s, %.0f min left", sentence.format(done, total), left / 60)

    return tell
