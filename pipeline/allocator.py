"""How memory is handed out and looked through: the C library's for volumes and activations, Python's for objects."""

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator

# Parameters of glibc's `mallopt`, malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """Let this process reuse freed blocks of up to 1 GiB, and keep up to as much that is free.

    glibc otherwise asks the system for each block of 32 MiB or more, and returns it when it is freed; the system clears
    its pages anew each time, which took a sixth of the processor time of `synthesize`. Nothing is done where a user
    has set glibc's allocator (`MALLOC_*`, `GLIBC_TUNABLES`), and on systems with another C library.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if sys.platform != "linux" or chosen:
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            library.mallopt(parameter, KEPT_BYTES)


@contextlib.contextmanager
def kept_objects() -> Iterator[None]:
    """Keep what is imported and built in the block from the garbage collector, for the first block of a process.

    Libraries are never freed. Of torch and MONAI they are half a million objects, which Python otherwise looks through
    again and again while they become more, for a fifth of the start, and later each time it looks for garbage.
    """
    if gc.get_freeze_count() or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
