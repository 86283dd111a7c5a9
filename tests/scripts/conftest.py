"""Scripts are run as users run them, in this process, which has imported what they need."""

import contextlib
import io
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def script() -> Callable[..., str]:
    """Run a file of scripts/ with arguments, and give what it prints."""

    def run(name: str, *arguments: object) -> str:
        path = Path(__file__).parents[2] / "scripts" / name
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
            patch.setattr(sys, "argv", [str(path), *map(str, arguments)])
            patch.setattr(sys, "path", [str(path.parent), *sys.path])
            try:
                runpy.run_path(str(path), run_name="__main__")
            except SystemExit as stop:
                if stop.code:
                    raise AssertionError(f"{name} ended with {stop.code}") from stop
        return said.getvalue()

    return run
