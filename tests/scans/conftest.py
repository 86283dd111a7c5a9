"""What the tests of DICOM results share."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# The 2022 build of dciodvfy does not know Synthetic Data.
UNKNOWN = "(0x0008,0x001c)"


@pytest.fixture
def complaints() -> Callable[..., set[str]]:
    """Lines of dciodvfy that call something an error, but those with a part that is known to be none."""

    def lines(file: Path, *harmless: str) -> set[str]:
        done = subprocess.run(["dciodvfy", file], capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).splitlines()
        known = (UNKNOWN, *harmless)
        return {line for line in said if line.startswith("Error") and not any(part in line for part in known)}

    return lines
