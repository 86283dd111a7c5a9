"""Checkpoints: everything a training needs to go on as if it had never stopped."""

import io
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from pipeline.errors import UsageError
from pipeline.files import require_regular, written_aside
from pipeline.training.distributed import gathered, rank
from pipeline.training.random_state import draw_apart, random_states, set_random_states
from pipeline.training.speed import Speed
from pipeline.training.trainer import PlayerTrainer

CHECKPOINT = "checkpoint.pt"
MAIN = "model"
WEIGHTS = f"{MAIN}.pt"
EPOCH = "_epoch"


def export_file(name: str | None = None, epoch: int | None = None) -> str:
    """What the weights of an export are called.

    Args:
        name: of the export; None is the main one.
        epoch: as it was after this epoch; None as it is used.

    Example:
        >>> export_file(), export_file("cycle"), export_file("cycle", epoch=10)
        ('model.pt', 'cycle.pt', 'cycle_epoch0010.pt')
    """
    return f"{name or MAIN}.pt" if epoch is None else f"{name or MAIN}{EPOCH}{epoch:04}.pt"


def kept_epochs(folder: Path) -> list[int]:
    """The epochs of which a training kept all exports."""
    found = (path.stem.removeprefix(f"{MAIN}{EPOCH}") for path in folder.glob(f"{MAIN}{EPOCH}*.pt"))
    return sorted(int(epoch) for epoch in found if epoch.isascii() and epoch.isdecimal())


def use_epoch(folder: Path, epoch: int) -> None:
    """Make the weights that were kept of an epoch those that are used, of every export."""
    for kept in sorted(folder.glob(f"*{EPOCH}{epoch:04}.pt")):
        with written_aside(folder / f"{kept.stem.partition(EPOCH)[0]}.pt") as aside:
            shutil.copyfile(kept, aside)


class CheckpointSaver:
    """After each epoch, write `checkpoint.pt` (all state) and the bare state dict of each export.

    The main export is `model.pt`, each other one `<name>.pt`. All are written aside and renamed, and load with
    `weights_only=True`: they hold tensors, numbers and strings only.
    A training that is killed goes on from its last whole epoch; the order of the slices depends on seed and epoch
    alone, so it ends with the same weights as one that was not (on the CPU, bit for bit). Put it last among the
    handlers: what an epoch's other handlers wrote before a kill is then written again.

    Args:
        folder: where the files go.
        keep_every: also keep the exports of every so many epochs, the main one as `model_epoch0010.pt`, to choose among
            them afterwards; a game of two networks fluctuates, and its last epoch need not be its best. None keeps
            none.
    """

    def __init__(self, folder: Path | str, keep_every: int | None = None) -> None:
        if keep_every is not None and keep_every < 1:
            raise UsageError(f"keep_every is at least 1 epoch, or null to keep none, found {keep_every}")
        self.folder = Path(folder)
        self.keep_every = keep_every

    def attach(self, engine: PlayerTrainer) -> None:
        """Save after each epoch; in distributed training the first process saves for all."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: PlayerTrainer) -> None:
        """Write the files.

        Raises:
            UsageError: if the weights are no longer finite; the last checkpoint stays.
        """
        state = training_state(engine)
        if rank() == 0:
            self._write(engine, state)

    def _write(self, engine: PlayerTrainer, state: dict[str, Any]) -> None:
        epoch = engine.state.epoch
        networks = (*engine.exports.values(), *engine.method.networks.values())
        if not all(all_finite(network.state_dict()) for network in networks):
            raise UsageError(
                f"{self.folder}: the training diverged, its weights are not finite after epoch {epoch}; start again "
                "with smaller learning rates"
            )
        main, *others = engine.exports.items()
        # The main one last: who finds it finds the others.
        for name, module in (*others, (None, main[1])):
            if self.keep_every and epoch % self.keep_every == 0:
                save_tensors(self.folder / export_file(name, epoch), module.state_dict())
            save_tensors(self.folder / export_file(name), module.state_dict())
        save_tensors(self.folder / CHECKPOINT, state)


class CheckpointLoader:
    """Start from the checkpoint in a folder. Put it first among the handlers: others ask which epoch it is.

    Args:
        folder: where `checkpoint.pt` lies.
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder) / CHECKPOINT

    def attach(self, engine: PlayerTrainer) -> None:
        """Load when the training starts, in every process."""
        engine.add_event_handler(Events.STARTED, self.load)

    def load(self, engine: PlayerTrainer) -> None:
        """Restore the engine.

        Raises:
            UsageError: if there is no checkpoint, it is damaged, or it belongs to another method or network size.
        """
        if not self.path.is_file():
            raise UsageError(f"{self.path}: no checkpoint to resume from; start the training without --resume")
        restore(engine, load_tensors(self.path), self.path)


def training_state(engine: PlayerTrainer) -> dict[str, Any]:
    """Networks, optimisers, schedules, precision, loss scaler, counters and random states.

    All processes call it together: of those after the first, `processes` has what they do not share with it.
    """
    _, *others = gathered(_of_process(engine))
    return {
        "networks": {name: network.state_dict() for name, network in engine.method.networks.items()},
        "averages": {name: average.state_dict() for name, average in engine.averages.items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in engine.optimizers.items()},
        "schedulers": {name: scheduler.state_dict() for name, scheduler in engine.schedulers.items()},
        "loss_scaler": engine.loss_scaler.state_dict(),
        "speed": asdict(engine.speed),
        "epoch": engine.state.epoch,
        "max_epochs": engine.state.max_epochs,
        "iteration": engine.state.iteration,
        "random": random_states(),
        **({"processes": others} if others else {}),
    }


def _of_process(engine: PlayerTrainer) -> dict[str, Any]:
    """What each process has for itself: random states, and pools of images, which have no parameters."""
    pools = {name: network.state_dict() for name, network in engine.method.networks.items() if _is_pool(network)}
    return {
        "random": random_states(),
        "pools": {name: {key: value.cpu() for key, value in pool.items()} for name, pool in pools.items()},
    }


def _is_pool(network: nn.Module) -> bool:
    return not any(True for _ in network.parameters())


def restore(engine: PlayerTrainer, state: dict[str, Any], path: Path) -> None:
    """Put a `training_state` back.

    Raises:
        UsageError: if it does not fit the engine's networks or players.
    """
    try:
        epoch = _whole(state["epoch"], engine.state.max_epochs)
        iteration, _ = _whole(state["iteration"]), _whole(state["max_epochs"])
        for name, network in engine.method.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, average in engine.averages.items():
            average.load_state_dict(state["averages"][name])
        for name, optimizer in engine.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, scheduler in engine.schedulers.items():
            if state["max_epochs"] == engine.state.max_epochs:
                scheduler.load_state_dict(state["schedulers"][name])
            else:
                _stretch(scheduler, epoch)
        if engine.undecided:
            engine.compute(Speed(**state["speed"]))
        if engine.loss_scaler.is_enabled():
            engine.loss_scaler.load_state_dict(state["loss_scaler"])
        engine.state.epoch = epoch
        # On another number of processes an epoch may have another number of steps.
        engine.state.iteration = epoch * engine.state.epoch_length if engine.state.epoch_length else iteration
        _restore_process(engine, state)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UsageError(
            f"{path}: the checkpoint belongs to another method or network size ({reason[:160]}); resume with the "
            "settings it was trained with"
        ) from error
    if not all(all_finite(network.state_dict()) for network in engine.method.networks.values()):
        raise UsageError(f"{path}: found weights that are NaN or infinite, expected numbers; train anew")


def _restore_process(engine: PlayerTrainer, state: dict[str, Any]) -> None:
    """Each process goes on with what it drew from; one that was not there before draws apart from the first."""
    own = [state, *state.get("processes", [])][rank() : rank() + 1]
    set_random_states(own[0]["random"] if own else state["random"])
    for name, pool in (own[0].get("pools", {}) if own else {}).items():
        engine.method.networks[name].load_state_dict(pool)
    if not own:
        draw_apart(rank())


def _whole(number: Any, most: int | None = None) -> int:
    if type(number) is not int or number < 0 or (most is not None and number > most):
        raise ValueError(f"found {number!r} epochs or steps, expected at most {most}")
    return number


def _stretch(scheduler: LRScheduler, epoch: int) -> None:
    """Bring a new schedule to an epoch, as if it had been the training's from the start: it has more epochs now."""
    for group in scheduler.optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    with warnings.catch_warnings():
        # torch warns of a schedule that steps before its optimiser, which took its steps before it was stopped.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        for _ in range(epoch):
            scheduler.step()


def all_finite(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict holds numbers only, neither NaN nor infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in state.values())


def save_tensors(path: Path, content: Any) -> None:
    """`torch.save`, whole or not at all."""
    # Serialised first: torch's own writer hides from us that a disk is full.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with written_aside(path) as aside:
        aside.write_bytes(buffer.getbuffer())


def load_tensors(path: Path) -> Any:
    """`torch.load` onto the CPU, without unpickling code.

    Raises:
        UsageError: if the file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        require_regular(path)
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file, expected weights; check the path") from error
    except Exception as error:  # a damaged archive raises whatever the unpickler meets first
        raise UsageError(
            f"{path}: not a weights file that can be loaded safely, it is damaged or holds more than tensors; get it "
            "again from its source, or train anew"
        ) from error


def _check_archive(path: Path) -> None:
    """Refuse what torch would take: it unpacks without limit, and does not look at the checksums.

    Torch stores tensors as they are; an archive that holds more than its file's bytes was made to fill memory.

    Raises:
        ValueError: if it is such an archive, or a bit of it was flipped.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise ValueError("compressed tensors")
            if archive.testzip() is not None:
                raise ValueError("a checksum that is not of its tensor")
