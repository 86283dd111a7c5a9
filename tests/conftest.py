"""Fixtures that several rooms' tests use."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real scans beside the checkout; tests that ask for them are skipped where they are absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real scans of ../shared/data are absent")
    return folder
