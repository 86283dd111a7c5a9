"""What a user is told when something is wrong with the input.

Every message is one sentence that names the file, what was found, what was expected, and what to do.
Exit codes of the command line: 0 all done, 1 some scans failed, 2 nothing could be started.
"""


class PipelineError(Exception):
    """Something the user can mend; shown as one sentence, without a traceback."""


class ScanError(PipelineError):
    """One scan cannot be used; the other scans of a run go on (exit code 1)."""


class UsageError(PipelineError):
    """The run cannot start: wrong arguments, no usable scan, no usable weights (exit code 2)."""


class OutputError(UsageError):
    """Results cannot be written where they should go; no other scan of the run would fare better."""
