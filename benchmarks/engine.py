"""What the training engine costs over the same networks and losses in a bare loop.

    python benchmarks/engine.py [--steps 20] [--preset laptop|paper]

All play GVS on the same random batches, in turns within one run; the medians of the steps are compared. With `amp`
`auto` the engine chooses precision and memory format itself.
"""

import argparse
import copy
import logging
import statistics
import time
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from pipeline.losses import difference_weights, residual_mse, weighted_cross_entropy
from pipeline.methods import GVS
from pipeline.networks import JohnsonGenerator, UNetSegmentor
from pipeline.training import PlayerTrainer

PRESETS = {"laptop": (16, 128), "paper": (32, 240)}


class Batches(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Random slices with square lesions."""

    def __init__(self, count: int, side: int) -> None:
        self.images = torch.rand(count, 1, side, side)
        self.masks = torch.zeros_like(self.images)
        self.masks[..., side // 4 : side // 2, side // 4 : side // 2] = 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"image": self.images[place], "mask": self.masks[place]}


def adams(method: GVS) -> dict[str, torch.optim.Adam]:
    return {name: torch.optim.Adam(net.parameters(), 1e-3, betas=(0.9, 0.99)) for name, net in method.networks.items()}


def bare_loop(method: GVS, loader: torch.utils.data.DataLoader[dict[str, Tensor]]) -> Iterator[None]:
    G, S = method.networks["generator"], method.networks["segmentor"]
    optimizers = adams(method)
    for batch in loader:
        x_p, y_t = batch["image"], batch["mask"]
        x_s = G(x_p)

        S.requires_grad_(True)
        optimizers["segmentor"].zero_grad()
        weighted_cross_entropy(S(x_s.detach()), y_t, difference_weights(x_p, x_s.detach())).backward()
        optimizers["segmentor"].step()

        S.requires_grad_(False)
        optimizers["generator"].zero_grad()
        (weighted_cross_entropy(S(x_s), torch.zeros_like(y_t)) + 10 * residual_mse(x_p, x_s)).backward()
        optimizers["generator"].step()
        yield


def engine(
    method: GVS, loader: torch.utils.data.DataLoader[dict[str, Tensor]], amp: Literal["auto"] | None = None
) -> Iterator[None]:
    """One iteration at a time: ignite's engine as a generator that stops after each."""
    trainer = PlayerTrainer("cpu", 1, loader, method, adams(method), amp=amp)
    from ignite.engine import Events

    trainer.add_event_handler(Events.ITERATION_COMPLETED, trainer.interrupt)
    while trainer.state.iteration < len(loader):
        trainer.run()
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--preset", choices=PRESETS, default="laptop")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    filters, side = PRESETS[arguments.preset]

    torch.manual_seed(0)
    method = GVS(JohnsonGenerator(filters=filters), UNetSegmentor(filters=filters))
    loader = torch.utils.data.DataLoader(Batches(8 * (arguments.steps + 2), side), batch_size=8)
    loops = {
        "bare loop": bare_loop(copy.deepcopy(method), loader),
        "engine": engine(copy.deepcopy(method), loader),
        "engine, amp auto": engine(copy.deepcopy(method), loader, "auto"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for step in range(arguments.steps + 2):
        for name, loop in loops.items():
            start = time.perf_counter()
            next(loop)
            if step >= 2:  # the first steps allocate
                seconds[name].append(time.perf_counter() - start)
    bare = statistics.median(seconds["bare loop"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name}: {median:.3f} s a step, {bare / median:.2f} times as fast as the bare loop")


if __name__ == "__main__":
    main()
