"""Scripts are run as users run them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def script() -> Callable[..., str]:
    """Run a file of scripts/ with arguments, and give what it prints."""

    def run(name: str, *arguments: object) -> str:
        path = Path(__file__).parents[2] / "scripts" / name
        command = [sys.executable, str(path), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
