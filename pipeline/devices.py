"""Which device to compute on, in which precision, and who prepares what it computes."""

import logging
import os
import platform

import torch

from pipeline.errors import UsageError

# More processes wait for one another.
MOST_WORKERS = 16
# What networks compute in: by default what gives the same result on all processors but for the last digits.
FLOAT32, BFLOAT16 = "float32", "bfloat16"

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


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bfloat16, and so in less time than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # oneDNN takes AVX-512 alone for enough, and then computes in float32 and converts, which takes longer.
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    instructions = torch.cpu._is_avx512_bf16_supported() if is_x86 else True
    return bool(instructions and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse what a device does not compute in.

    Raises:
        UsageError: see above.
    """
    if precision not in (FLOAT32, BFLOAT16):
        raise UsageError(f"precision {precision!r}: expected {FLOAT32} or {BFLOAT16}")
    if precision == BFLOAT16 and not has_bfloat16(device):
        raise UsageError(
            f"precision {BFLOAT16}: found a device ({device}) that computes in {FLOAT32} only, expected a processor "
            f"with AVX512-BF16 or AMX, or a GPU with {BFLOAT16}; {FLOAT32} is faster here, leave the option out"
        )


def data_workers(device: torch.device) -> int:
    """How many processes prepare batches for a training on this device.

    None on a CPU, which the networks need. A GPU is waited for otherwise: it gets the processors that this program may
    use, shared with the other processes that torchrun started on this machine.
    """
    if device.type != "cuda":
        return 0
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, allowed // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
