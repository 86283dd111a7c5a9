"""Which device to compute on, and who prepares what it computes."""

import logging
import os

import torch

from pipeline.errors import UsageError

# More processes wait for one another.
MOST_WORKERS = 16

logger = logging.getLogger(__name__)


def pick_device(name: str = "auto") -> torch.device:
    """Turn `auto`, `cpu`, `cuda[:N]` or `mps` into a device that is there.

    `auto` takes a GPU if there is one, and says so in one line when it falls back to the CPU.

    Raises:
        UsageError: if the named device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        logger.info("no GPU found, computing on the CPU")
        return torch.device("cpu")
    refusal = f"device {name!r} is not available here; give auto, cpu, cuda, cuda:N or mps, and check the driver"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(refusal) from error
    # torch knows devices that compute nothing, such as `meta`.
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(refusal)
    return device


def data_workers(device: torch.device) -> int:
    """How many processes prepare batches for a training on this device.

    None on a CPU, which the networks need. A GPU is waited for otherwise: it gets the processors that this program may
    use, shared with the other processes that torchrun started on this machine.
    """
    if device.type != "cuda":
        return 0
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, allowed // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
