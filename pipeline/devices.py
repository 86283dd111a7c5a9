"""Which device to compute on."""

import logging

import torch

from pipeline.errors import UsageError

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
