"""What the training engine costs over the same networks and losses in a bare loop.

    python benchmarks/engine.py [--method gvs|cycle_gan] [--steps 20] [--preset laptop|paper]

All play the same method on the same random batches, in turns within one run; the medians of the steps are compared.
The bare loop of CycleGAN takes its steps in the order of the public ones: generators with cycle and identity losses,
then both discriminators against pools of 50 images, all in float32. With `amp` `auto` the engine chooses precision and
memory format itself.
"""

import argparse
import copy
import logging
import statistics
import time
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from pipeline.losses import difference_weights, residual_mse, weighted_cross_entropy
from pipeline.methods import GVS, CycleGAN, ImagePool
from pipeline.networks import JohnsonGenerator, PatchGANDiscriminator, UNetSegmentor
from pipeline.training import PlayerTrainer

PRESETS = {"laptop": (16, 128), "paper": (32, 240)}


class Batches(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Random slices with square lesions, and others."""

    def __init__(self, count: int, side: int) -> None:
        self.images = torch.rand(count, 1, side, side)
        self.masks = torch.zeros_like(self.images)
        self.masks[..., side // 4 : side // 2, side // 4 : side // 2] = 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"image": self.images[place], "mask": self.masks[place], "healthy": self.images[-1 - place]}


def built(name: str, filters: int, side: int) -> GVS | CycleGAN:
    if name == "gvs":
        return GVS(JohnsonGenerator(filters=filters), UNetSegmentor(filters=filters))
    generators = [JohnsonGenerator(filters=filters) for _ in range(2)]
    discriminators = [PatchGANDiscriminator(2 * filters) for _ in range(2)]
    pools = [ImagePool(50, (1, side, side)) for _ in range(2)]
    return CycleGAN(*generators, *discriminators, *pools)


def adams(method: GVS | CycleGAN) -> dict[str, torch.optim.Adam]:
    return {
        player.name: torch.optim.Adam(
            [weight for name in player.networks for weight in method.networks[name].parameters()], 1e-3, (0.9, 0.99)
        )
        for player in method.players
    }


def bare_gvs(method: Any, loader: torch.utils.data.DataLoader[dict[str, Tensor]]) -> Iterator[None]:
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


def bare_cycle_gan(method: Any, loader: torch.utils.data.DataLoader[dict[str, Tensor]]) -> Iterator[None]:
    G, F, D_h, D_p, pool_h, pool_p = method.networks.values()
    optimizers = adams(method)

    def gan(scores: Tensor, real: float) -> Tensor:
        return mse_loss(scores, torch.full_like(scores, real))

    for batch in loader:
        x_p, x_h = batch["image"], batch["healthy"]
        fake_h, fake_p = G(x_p), F(x_h)
        back_p, back_h = F(fake_h), G(fake_p)

        D_h.requires_grad_(False), D_p.requires_grad_(False)
        optimizers["generators"].zero_grad()
        identity = l1_loss(G(x_h), x_h) + l1_loss(F(x_p), x_p)
        cycle = l1_loss(back_p, x_p) + l1_loss(back_h, x_h)
        (gan(D_h(fake_h), 1) + gan(D_p(fake_p), 1) + 10 * cycle + 5 * identity).backward()
        optimizers["generators"].step()

        D_h.requires_grad_(True), D_p.requires_grad_(True)
        optimizers["discriminators"].zero_grad()
        for D, real, fake in ((D_h, x_h, pool_h(fake_h)), (D_p, x_p, pool_p(fake_p))):
            (0.5 * (gan(D(real), 1) + gan(D(fake), 0))).backward()
        optimizers["discriminators"].step()
        yield


BARE = {"gvs": bare_gvs, "cycle_gan": bare_cycle_gan}


def engine(
    method: GVS | CycleGAN, loader: torch.utils.data.DataLoader[dict[str, Tensor]], amp: Literal["auto"] | None = None
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
    parser.add_argument("--method", choices=BARE, default="gvs")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--preset", choices=PRESETS, default="laptop")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    filters, side = PRESETS[arguments.preset]

    torch.manual_seed(0)
    method = built(arguments.method, filters, side)
    loader = torch.utils.data.DataLoader(Batches(8 * (arguments.steps + 2), side), batch_size=8)
    loops = {
        "bare loop": BARE[arguments.method](copy.deepcopy(method), loader),
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
