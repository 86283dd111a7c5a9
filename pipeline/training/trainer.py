"""One engine that plays any method: its players in order, each updating the networks it owns."""

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from ignite.engine import Events
from monai.engines import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from pipeline.methods.base import Method, Player
from pipeline.training.average import MovingAverage
from pipeline.training.distributed import (
    average_gradients,
    gathered,
    of_first,
    rank,
    share_statistics,
    share_weights,
    world_size,
)
from pipeline.training.draws import DrawnByIndex, drawn_by_index
from pipeline.training.meanwhile import Meanwhile
from pipeline.training.random_state import random_states, set_random_states
from pipeline.training.speed import PLAIN, Speed, candidates, fastest

AMP_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"

logger = logging.getLogger(__name__)


class PlayerTrainer(Trainer):
    """MONAI trainer for a method of players.

    At each iteration `Method.forward` runs once; then each player in turn gets its loss from the batch and that
    result, its networks alone require gradients, and its optimiser takes one step. `engine.state.output` holds each
    player's loss terms as detached tensors, named `player/term`, and their sum as `player`.

    Args:
        device: where to train.
        max_epochs: number of epochs.
        train_data_loader: batches as the method expects them (a dict of tensors); shuffled by a
            `DistributedSampler`, whose order depends on its seed and the epoch alone. With workers, what its dataset
            draws depends on these and the index alone, too, not on how many there are.
        method: what to play.
        optimizers: one for each player, by the player's name.
        schedulers: learning-rate schedules by the player's name, stepped once an epoch.
        accumulate: split each batch into this many parts, and add up their gradients before a step: less memory, one
            more forward pass a player, and the same step as the whole batch where networks normalise each sample by
            itself and losses are means over samples. Discriminators that play after their generators (CycleGAN) then
            see what the updated generators make.
        amp: `bfloat16`, or `float16` with loss scaling; None trains in float32; `auto` measures on the first batch
            whether half precision and `channels_last` are faster here, and takes what is fastest.
        channels_last: keep images and weights in memory as (B, H, W, C); `amp` `auto` decides for itself.
        deterministic: float32, contiguous, and those algorithms of torch that give the same bits each time; it warns of
            operations that have none on this device.
        average_decay: keep an exponential moving average of the exports' weights, and of batch norm's running
            statistics, with this decay; None keeps none.
        train_handlers: objects with `attach(engine)`.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: DataLoader[dict[str, Tensor]],
        method: Method,
        optimizers: Mapping[str, Optimizer],
        schedulers: Mapping[str, LRScheduler] | None = None,
        accumulate: int = 1,
        amp: Literal["auto", "bfloat16", "float16"] | None = None,
        channels_last: bool = False,
        deterministic: bool = False,
        average_decay: float | None = None,
        train_handlers: Sequence[Any] = (),
    ) -> None:
        names = {player.name for player in method.players}
        if set(optimizers) != names:
            raise ValueError(
                f"each player needs its optimiser: players {sorted(names)}, optimisers {sorted(optimizers)}"
            )
        if amp is not None and amp not in (AUTO, *AMP_TYPES):
            raise ValueError(f"amp is one of {sorted((AUTO, *AMP_TYPES))} or None, found {amp!r}")
        if deterministic and (amp not in (None, AUTO) or channels_last):
            raise ValueError(f"a deterministic training is float32 and contiguous, found {Speed(amp, channels_last)}")
        if accumulate < 1:
            raise ValueError(f"accumulate is at least 1, found {accumulate}")
        _check_exports(method)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=drawn_by_index(train_data_loader),
            decollate=False,
            non_blocking=True,
        )
        self.method = method
        self.optimizers = dict(optimizers)
        self.schedulers = dict(schedulers or {})
        self.accumulate = accumulate
        self.deterministic = deterministic
        for network in method.networks.values():
            network.to(self.state.device)
        share_weights(method.networks.values())
        self.compute(PLAIN if amp == AUTO else Speed(amp, channels_last))
        self.undecided = amp == AUTO and not deterministic
        self.step_seconds: dict[Speed, float] = {}
        self.averages: dict[str, MovingAverage] = {}
        if average_decay is not None:
            self.averages = {name: MovingAverage(module, average_decay) for name, module in method.exports.items()}
        self.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._step_schedules)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._share_statistics)
        for handler in train_handlers:
            handler.attach(self)
        self.add_event_handler(Events.COMPLETED, self._agree)
        # After the handlers: a checkpoint that they load decides.
        self.add_event_handler(Events.STARTED, self.decide)

    def run(self) -> None:
        """Train."""
        with _fixed_algorithms() if self.deterministic else contextlib.nullcontext():
            super().run()

    def compute(self, speed: Speed) -> None:
        """Compute in this precision and memory format from now on."""
        self.speed, self.undecided = speed, False
        self.amp_dtype = AMP_TYPES[speed.amp] if speed.amp else None
        # Only float16 underflows; a disabled scaler passes losses through.
        self.loss_scaler = torch.amp.GradScaler(self.state.device.type, enabled=speed.amp == "float16")
        self.memory_format = torch.channels_last if speed.channels_last else torch.contiguous_format
        for network in self.method.networks.values():
            network.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def decide(self) -> None:
        """Measure what is fastest if `amp` is `auto`, and compute so from now on; weights and random states are kept.

        `step_seconds` then holds the seconds of a forward and backward pass of all players, for each of what was
        measured.
        """
        if not self.undecided:
            return
        with Meanwhile(lambda: logger.info("measuring some steps, to compute in what is fastest")):
            speed, self.step_seconds = of_first(self._measured() if rank() == 0 else None)
        self.compute(speed)
        compared = "; ".join(f"{option} {taken:.2f} s" for option, taken in self.step_seconds.items())
        logger.info("computing in %s, chosen by the time of a step (%s)", speed, compared)

    def _measured(self) -> tuple[Speed, dict[Speed, float]]:
        draws = random_states()
        before = {name: copy.deepcopy(network.state_dict()) for name, network in self.method.networks.items()}
        batch = next(iter(self.data_loader))

        def step(speed: Speed) -> None:
            self.compute(speed)
            parts = self._parts(batch)
            shared = self._shared(parts, self.method.players)
            for player in self.method.players:
                self._gradients(player, parts, shared)
            if self.state.device.type == "cuda":
                torch.cuda.synchronize(self.state.device)

        try:
            return fastest(candidates(self.state.device), step)
        finally:
            for name, network in self.method.networks.items():
                network.load_state_dict(before[name])
                network.zero_grad(set_to_none=True)
            set_random_states(draws)

    @property
    def exports(self) -> dict[str, nn.Module]:
        """What users will run, by name, the main one first: with averaged weights if there are any."""
        return {**self.method.exports, **{name: average.module for name, average in self.averages.items()}}

    @property
    def main_export(self) -> nn.Module:
        """The first of the exports."""
        return next(iter(self.exports.values()))

    def _begin_epoch(self) -> None:
        if isinstance(self.data_loader.dataset, DrawnByIndex):
            self.data_loader.dataset.epoch = self.state.epoch
        # The rates of this epoch: the schedules have stepped on when an epoch's handlers run.
        self.state.rates = {name: float(opt.param_groups[0]["lr"]) for name, opt in self.optimizers.items()}

    def _agree(self) -> None:
        """Raise RuntimeError if the processes of one training end with different weights."""
        if world_size() == 1:
            return
        parameters = (p for network in self.method.networks.values() for p in network.parameters())
        sums = [float(p.detach().double().sum()) for p in parameters]
        if any(of_process != sums for of_process in gathered(sums)):
            raise RuntimeError("the processes of this training ended with different weights")

    def _share_statistics(self) -> None:
        # Pools of images have no parameters: each process has its own.
        trained = [network for network in self.method.networks.values() if any(True for _ in network.parameters())]
        share_statistics([*trained, *self.averages.values()])

    def _step_schedules(self) -> None:
        with warnings.catch_warnings():
            # torch warns of a schedule that steps before its optimiser did: a player may not have had its turn yet, or
            # all its steps overflowed.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for scheduler in self.schedulers.values():
                scheduler.step()

    def _iteration(self, engine: Any, batchdata: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        parts = self._parts(batchdata)
        players = [player for player in self.method.players if player.plays(self.state.iteration - 1)]
        output: dict[str, Tensor] = {}
        shared = self._shared(parts, players)
        for player in players:
            output |= self._play(player, parts, shared)
        if players:
            self.loss_scaler.update()
        for name, average in self.averages.items():
            average.update_parameters(self.method.exports[name])
        return output

    def _parts(self, batchdata: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """A batch where it is computed, split into as many parts as gradients are accumulated over."""
        batch = {
            key: value.to(
                self.state.device,
                non_blocking=True,
                memory_format=self.memory_format if value.ndim == 4 else torch.preserve_format,
            )
            for key, value in batchdata.items()
        }
        return [batch] if self.accumulate == 1 else list(_split(batch, self.accumulate))

    def _shared(self, parts: list[dict[str, Tensor]], players: Sequence[Player]) -> dict[str, Tensor] | None:
        """What these players share of the forward pass; with several parts each player computes it for itself."""
        for network in self.method.networks.values():
            network.train()
        # What no player will update needs no graph: a critic's extra steps run the generator forward only.
        self._freeze_all_but({name for player in players for name in player.networks})
        if self.accumulate > 1:
            return None
        with self._autocast():
            return self.method.forward(parts[0])

    def _freeze_all_but(self, names: Collection[str]) -> None:
        """By parameter, not by network: networks may share parts, which are trained if one of their owners is."""
        trained = {id(parameter) for name in names for parameter in self.method.networks[name].parameters()}
        for network in self.method.networks.values():
            for parameter in network.parameters():
                parameter.requires_grad_(id(parameter) in trained)

    def _play(
        self, player: Player, parts: list[dict[str, Tensor]], shared: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        optimizer = self.optimizers[player.name]
        optimizer.zero_grad(set_to_none=True)
        totals = self._gradients(player, parts, shared)
        # A part that two networks share comes twice, and is averaged once.
        owned = {id(p): p for name in player.networks for p in self.method.networks[name].parameters()}
        average_gradients(owned.values())
        self.loss_scaler.step(optimizer)
        if player.after_step is not None:
            player.after_step()
        return totals

    def _gradients(
        self, player: Player, parts: list[dict[str, Tensor]], shared: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """Compute a player's loss and its gradients; returns the terms, detached."""
        self._freeze_all_but(player.networks)
        samples = sum(len(_first(part)) for part in parts)
        totals: dict[str, Tensor] = {}
        for part in parts:
            with self._autocast():
                terms = player.loss(part, self.method.forward(part) if shared is None else shared)
                loss = torch.stack(list(terms.values())).sum()
            share = len(_first(part)) / samples
            self.loss_scaler.scale(loss * share).backward()
            for term, value in {"": loss, **terms}.items():
                name = f"{player.name}/{term}" if term else player.name
                totals[name] = totals.get(name, 0) + value.detach() * share
        return totals

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.state.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)


@contextlib.contextmanager
def _fixed_algorithms() -> Iterator[None]:
    """Torch's deterministic algorithms alone, where it has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS has no such algorithms
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # Some have no deterministic gradient on a GPU, reflection padding for one.
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _check_exports(method: Method) -> None:
    """What no network holds would neither be trained nor resumed."""
    if not method.exports:
        raise ValueError("the method exports nothing, expected at least one module that users will run")
    trained = {id(p) for network in method.networks.values() for p in network.parameters()}
    for name, module in method.exports.items():
        foreign = [key for key, parameter in module.named_parameters() if id(parameter) not in trained]
        if foreign:
            raise ValueError(
                f"the export {name!r} holds {foreign[0]!r}, which no network of {sorted(method.networks)} holds; "
                "exports are made of their parts"
            )


def _split(batch: dict[str, Tensor], parts: int) -> Iterator[dict[str, Tensor]]:
    for chunks in zip(*(value.chunk(parts) for value in batch.values()), strict=True):
        yield dict(zip(batch, chunks, strict=True))


def _first(batch: dict[str, Tensor]) -> Tensor:
    return next(iter(batch.values()))
