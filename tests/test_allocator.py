"""Memory that was freed is used again, and not asked for anew."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource
import numpy as np
from pipeline.allocator import keep_freed_memory
keep_freed_memory()
np.ones(48 * 2**20, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(48 * 2**20, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such setting")
@pytest.mark.parametrize(("chosen", "cleared_anew"), [({}, False), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, True)])
def test_large_blocks_are_cleared_once_unless_the_user_chose_otherwise(chosen: dict[str, str], cleared_anew: bool):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    # Without huge pages, of which few are counted.
    environment = kept | chosen | {"PYTHONPATH": str(Path(__file__).parents[1]), "NUMPY_MADVISE_HUGEPAGE": "0"}
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    pages = int(answer.stdout)
    assert (pages > 1000) == cleared_anew
