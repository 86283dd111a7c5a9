"""The memory of this process: its highest over a stretch of work, and whether it ran out."""

import contextlib
import re
from pathlib import Path

import torch

# Of torch's allocator for the CPU, which has no exception of its own.
NO_MEMORY = "DefaultCPUAllocator"
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def is_full(error: BaseException) -> bool:
    """Whether an error says that memory ran out, whichever library found out."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or NO_MEMORY in str(error)


class PeakMemory:
    """Peak memory of this process since the object was made.

    Args:
        device: a GPU's own memory is watched instead of the process's.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device if device.type == "cuda" else None
        if self.cuda is not None:
            torch.cuda.reset_peak_memory_stats(self.cuda)
        else:
            with contextlib.suppress(OSError):
                CLEAR.write_text("5", encoding="ascii")  # Linux: forget the peak so far

    def mib(self) -> float | None:
        """The peak since then in MiB; None where the system does not tell."""
        if self.cuda is not None:
            return torch.cuda.max_memory_allocated(self.cuda) / 2**20
        try:
            found = re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="ascii"), flags=re.MULTILINE)
        except OSError:
            return None
        return int(found[1]) / 1024 if found else None
