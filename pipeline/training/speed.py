"""Which precision and memory format a training is fastest in, found by measuring."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pipeline.devices import BFLOAT16, has_bfloat16

# A choice that departs from float32 has to be faster by more than what one measurement differs from the next.
WORTH_IT = 0.95
ROUNDS = 3
# Steps that take long differ less from each other: fewer rounds will do.
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Speed:
    """How to compute a training step.

    Args:
        amp: type of mixed precision, `bfloat16` or `float16`; None is float32.
        channels_last: keep images and weights in memory as (B, H, W, C).
    """

    amp: str | None = None
    channels_last: bool = False

    def __str__(self) -> str:
        return f"{self.amp or 'float32'}, {'channels last' if self.channels_last else 'contiguous'}"


PLAIN = Speed()


def candidates(device: torch.device) -> list[Speed]:
    """What is worth a measurement on a device, float32 first: half precision only where the hardware computes in it.

    Channels last on GPUs alone: on a CPU, torch 2.13 ends the whole process in the backward pass of some networks (the
    residual network of `age_regression` is one), and gains a few percent in others.
    """
    half = None
    if has_bfloat16(device):
        half = BFLOAT16
    elif device.type == "cuda":
        half = "float16"
    formats = (False,) if device.type == "cpu" else (False, True)
    return [Speed(amp, last) for amp in dict.fromkeys((None, half)) for last in formats]


def fastest(options: Sequence[Speed], step: Callable[[Speed], None]) -> tuple[Speed, dict[Speed, float]]:
    """The fastest of some options, the first unless another is clearly faster, and the median seconds of each.

    Args:
        options: what to measure; taken in turns, so that another program on the machine slows all of them alike.
        step: computes once, and returns when it is done.
    """
    seconds: dict[Speed, list[float]] = {option: [] for option in options}
    began = time.perf_counter()
    for turn in range(ROUNDS + 1):
        for option in options:
            start = time.perf_counter()
            step(option)
            if turn:  # the first step allocates and compiles
                seconds[option].append(time.perf_counter() - start)
        if turn and time.perf_counter() - began > PATIENCE_S:
            break
    medians = {option: statistics.median(taken) for option, taken in seconds.items()}
    best = min(options, key=medians.__getitem__)
    return (best if medians[best] < WORTH_IT * medians[options[0]] else options[0]), medians
