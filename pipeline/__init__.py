"""Pseudo-healthy synthesis: a scan with disease goes in, the same person's scan without it comes out.

Data flows through the rooms in one direction:
`scans` → `preprocessing` → `methods` → `training` → `bundles` → `inference` → `evaluation` → `reports`.
"""

import getpass
import importlib
import os
from typing import Any

try:
    getpass.getuser()
except (KeyError, OSError, ImportError):  # by Python version and system
    # A user id without an entry in passwd, as `docker run --user` gives: MONAI asks for a name when it is imported.
    os.environ["USER"] = str(os.getuid()) if hasattr(os, "getuid") else "nobody"

# The calls of `pipeline.api`, whose imports take seconds.
CALLS = ("evaluate", "fill", "load_predictor", "read_cohort", "synthesize")

__version__ = "0.1.0"
# What every table, record and report says.
RESEARCH_ONLY = "Research use only, not for diagnosis."

# Of the training of the segmentor that judges healthiness, where nobody asks for another number.
JUDGE_ITERATIONS = 600

# Of lines that tell how far something is, where there is no terminal.
LINE_EVERY_S = 30.0


def __getattr__(name: str) -> Any:
    """The calls of `pipeline.api`, imported when one is first asked for."""
    if name in CALLS:
        return getattr(importlib.import_module("pipeline.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *CALLS])
