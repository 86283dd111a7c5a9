"""The states of all random generators that a training draws from."""

import random
from typing import Any

import numpy as np
import torch
from monai.utils import set_determinism


def random_states() -> dict[str, Any]:
    """The states of Python's, numpy's legacy and torch's generators, as tensors and plain values."""
    # numpy's legacy state, since that is what libraries draw from.
    name, words, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(words).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(state: dict[str, Any]) -> None:
    """Put `random_states` back."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, words, *rest = state["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def draw_apart(number: int) -> None:
    """Set all generators to states of their own that follow from torch's present state and a process's number."""
    set_determinism(seed=(int(torch.randint(2**31, ())) + number) % 2**32)
