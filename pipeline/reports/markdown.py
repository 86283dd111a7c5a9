"""What the Markdown pages share: tables, and text that stays text."""

import re
from collections.abc import Sequence

from pipeline.errors import printable


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """A table in Markdown.

    Args:
        headings: one for each column.
        rows: cells, in Markdown.
        numbers: whether all columns but the first hold numbers, which are set to the right.
    """
    rule = ["---", *["---:" if numbers else "---"] * (len(headings) - 1)]
    return "\n".join(
        f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|" for cells in [headings, rule, *rows]
    )


def escaped(text: str) -> str:
    """Text that is no markup and breaks no table, whatever a method, a file or a rater is called."""
    return re.sub(r"([\\`*_\[\]<>|~$&!#])", r"\\\1", printable(text))


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
