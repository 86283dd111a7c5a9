"""What a user is told when something is wrong with the input.

Every message is one sentence that names the file, what was found, what was expected, and what to do.
Exit codes of the command line: 0 all done, 1 some scans failed, 2 nothing could be started.
"""

import re

UNPRINTABLE = re.compile(
    "\n(?!  )|[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


class PipelineError(Exception):
    """Something the user can mend; shown as one sentence, without a traceback."""


class ScanError(PipelineError):
    """One scan cannot be used; the other scans of a run go on (exit code 1)."""


class UsageError(PipelineError):
    """The run cannot start: wrong arguments, no usable scan, no usable weights (exit code 2)."""


class OutputError(UsageError):
    """Results cannot be written where they should go; no other scan of the run would fare better."""


def first_line(error: BaseException) -> str:
    """What another's error says first, shortened; its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def printable(text: str) -> str:
    r"""A text that does nothing to a terminal: control characters, marks of direction and lone bytes are escaped.

    A line break stays where two spaces follow it, as in the tables of ours, so that no name of a file begins a line.

    >>> printable("in/\x1b]0;title\x07\nError: lost")
    'in/\\x1b]0;title\\x07\\nError: lost'
    """
    return UNPRINTABLE.sub(lambda found: _escaped(found[0]), text)


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()
