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


def test_what_is_built_at_the_start_is_not_looked_through_for_garbage_and_what_comes_later_is() -> None:
    program = """
import gc, weakref
from pipeline.allocator import kept_objects
class Node: pass
with kept_objects():
    assert not gc.isenabled()
    start = Node()
frozen = gc.get_freeze_count()
with kept_objects():
    assert gc.isenabled(), "only the first block of a process is its start"
later = Node()
later.self = later
gone = weakref.ref(later)
del later
gc.collect()
seen = gc.get_objects()
print(gc.isenabled(), frozen == gc.get_freeze_count(), not any(each is start for each in seen), gone() is None)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["True"] * 4


def test_a_collector_that_the_user_turned_off_stays_off() -> None:
    program = """
import gc
from pipeline.allocator import kept_objects
gc.disable()
with kept_objects():
    pass
print(gc.isenabled(), gc.get_freeze_count())
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["False", "0"]
