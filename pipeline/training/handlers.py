"""What a user sees of a training: progress and curves."""

import csv
import io
import logging
import sys
import time
from pathlib import Path
from typing import Any

from ignite.engine import Events
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from pipeline import LINE_EVERY_S
from pipeline.errors import UsageError, first_line
from pipeline.files import small_text, write_text, written_aside
from pipeline.training.distributed import rank
from pipeline.training.meanwhile import Meanwhile
from pipeline.training.trainer import PlayerTrainer

LOG_EVERY = 10
# Drawing the curves takes as long as many a step: not in the first seconds, and no more than this share of the time.
FIRST_PICTURE_S = 10.0
MOST_DRAWING = 0.05
# The share of an epoch spent waiting for data that is worth a word, if it is a second or more.
WAITED = 0.1

logger = logging.getLogger(__name__)


class ProgressBar:
    """A bar with losses and time left on a terminal; none under `--quiet`.

    Without a terminal it is plain lines: one for each epoch and, where that takes long, one for every half minute.
    """

    def attach(self, engine: PlayerTrainer) -> None:
        """Show progress from the first process only."""
        if rank() == 0 and logger.isEnabledFor(logging.INFO):
            self._attach_waiting(engine)
            (self._attach_bar if sys.stderr.isatty() else self._attach_lines)(engine)

    def _attach_waiting(self, engine: PlayerTrainer) -> None:
        """Measure how long the loop has no batch, and say once what can be done where that is a good part of an epoch.

        A GPU that still computes what it was given before notices less of it.
        """
        began = asked = waited_s = 0.0
        said = False

        def begin() -> None:
            nonlocal began, waited_s
            began, waited_s = time.perf_counter(), 0.0

        def ask() -> None:
            nonlocal asked
            asked = time.perf_counter()

        def receive() -> None:
            nonlocal waited_s
            waited_s += time.perf_counter() - asked

        def end(engine: PlayerTrainer) -> None:
            nonlocal said
            share = waited_s / (time.perf_counter() - began)
            if share >= WAITED and waited_s >= 1 and not said:
                said = True
                logger.info(
                    "%.0f %% of epoch %d went into waiting for data; more processes may prepare it: `--set workers=N`",
                    100 * share, engine.state.epoch,
                )  # fmt: skip

        engine.add_event_handler(Events.EPOCH_STARTED, begin)
        engine.add_event_handler(Events.GET_BATCH_STARTED, ask)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, receive)
        engine.add_event_handler(Events.EPOCH_COMPLETED, end)

    def _attach_bar(self, engine: PlayerTrainer) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
        )
        progress = Progress(*columns, console=Console(stderr=True))
        total = engine.state.max_epochs * engine.state.epoch_length
        task = progress.add_task("training", total=total, losses="")

        def update(engine: PlayerTrainer) -> None:
            description = f"epoch {engine.state.epoch}/{engine.state.max_epochs}"
            progress.update(task, completed=engine.state.iteration, description=description)
            if engine.state.iteration % LOG_EVERY == 0:
                progress.update(task, losses=_sentence(_players(engine.state.output)))

        engine.add_event_handler(Events.STARTED, progress.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, update)
        engine.add_event_handler(Events.COMPLETED | Events.EXCEPTION_RAISED, _stop(progress))

    def _attach_lines(self, engine: PlayerTrainer) -> None:
        times = {"epoch": 0.0, "line": 0.0}
        # Of the last step that was done: the engine's own state is that of the step under way.
        done, pace_s = 0, 0.0
        output: dict[str, Tensor] = {}

        def begin() -> None:
            nonlocal done
            times["epoch"] = times["line"] = time.monotonic()
            done = 0

        def tell() -> None:
            epoch, epochs, length = max(engine.state.epoch, 1), engine.state.max_epochs, engine.state.epoch_length
            if not output:
                logger.info("epoch %d/%d, in its first step", epoch, epochs)
                return
            losses, left = _sentence(_players(output)), _duration(pace_s * ((epochs - epoch + 1) * length - done))
            logger.info("epoch %d/%d, step %d/%d: %s, %s left", epoch, epochs, done, length, losses, left)

        # A single step of a large network takes minutes on a CPU, and so may the validation after the last one.
        meanwhile = Meanwhile(tell)

        def step(engine: PlayerTrainer) -> None:
            nonlocal done, pace_s, output
            now, length, output = time.monotonic(), engine.state.epoch_length, engine.state.output
            done = engine.state.iteration - (engine.state.epoch - 1) * length
            pace_s = (now - times["epoch"]) / done
            if now - times["line"] >= LINE_EVERY_S and done < length:
                times["line"] = now
                tell()
                meanwhile.said()

        def end(engine: PlayerTrainer) -> None:
            meanwhile.said()
            seconds, epoch = time.monotonic() - times["epoch"], engine.state.epoch
            losses, left = _sentence(_players(engine.state.output)), seconds * (engine.state.max_epochs - epoch)
            logger.info(
                "epoch %d/%d: %s, %.0f s, %s left", epoch, engine.state.max_epochs, losses, seconds, _duration(left)
            )

        engine.add_event_handler(Events.STARTED, meanwhile.start)
        engine.add_event_handler(Events.EPOCH_STARTED, begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, end)
        engine.add_event_handler(Events.COMPLETED | Events.EXCEPTION_RAISED, _stop(meanwhile))


class Curves:
    """Losses and validation figures as TensorBoard events, as `curves.csv` and as `curves.png`.

    Events and table are of each epoch; the picture is drawn anew when it is some seconds old, and at the end.

    Args:
        folder: the run's folder; events go to `tensorboard/` in it.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._events: SummaryWriter | None = None
        self._draw_after_s = 0.0

    def attach(self, engine: PlayerTrainer) -> None:
        """Record from the first process only; attach after the handlers whose figures are to be in the curves."""
        if rank() != 0:
            return
        engine.add_event_handler(Events.STARTED, self._read_back)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._close_epoch)
        engine.add_event_handler(Events.COMPLETED, self._draw)
        engine.add_event_handler(Events.COMPLETED, self._close)

    @property
    def events(self) -> SummaryWriter:
        """The event file, made when first written to."""
        if self._events is None:
            self._events = SummaryWriter(str(self.folder / "tensorboard"))
        return self._events

    def _read_back(self, engine: PlayerTrainer) -> None:
        self._draw_after_s = time.monotonic() + FIRST_PICTURE_S
        # A resumed training goes on after its checkpoint; what was logged past it is drawn again.
        path = self.folder / "curves.csv"
        if engine.state.epoch and path.is_file():
            try:
                lines = csv.DictReader(small_text(path).splitlines())
                rows = [{key: float(value) for key, value in row.items() if value} for row in lines]
                self.rows = [row for row in rows if row["epoch"] <= engine.state.epoch]
            except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
                raise UsageError(
                    f"{path}: holds no curves ({first_line(error)}), expected those of the epochs before; restore or "
                    "remove it"
                ) from error
            self._events = SummaryWriter(str(self.folder / "tensorboard"), purge_step=engine.state.iteration + 1)

    def _add(self, engine: PlayerTrainer) -> None:
        # Kept as tensors: reading a number from a GPU at every step would make it wait.
        for name, value in engine.state.output.items():
            self._sums[name] = self._sums.get(name, 0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        if engine.state.iteration % LOG_EVERY == 0:
            for name, value in engine.state.output.items():
                self.events.add_scalar(f"loss/{name}", float(value), engine.state.iteration)

    def _close(self) -> None:
        self.events.close()

    def _close_epoch(self, engine: PlayerTrainer) -> None:
        row = {"epoch": float(engine.state.epoch)}
        row |= {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        row |= {f"rate/{name}": rate for name, rate in engine.state.rates.items()}
        for name, value in engine.state.metrics.items():
            row[f"validation/{name}"] = float(value)
            self.events.add_scalar(f"validation/{name}", float(value), engine.state.iteration)
        self._sums, self._counts = {}, {}
        self.rows.append(row)
        table = io.StringIO()
        writer = csv.DictWriter(table, self._names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.folder / "curves.csv", table.getvalue())
        begun_s = time.monotonic()
        if begun_s >= self._draw_after_s and engine.state.epoch < engine.state.max_epochs:
            self._draw()
            now_s = time.monotonic()
            self._draw_after_s = now_s + (now_s - begun_s) / MOST_DRAWING

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def _draw(self) -> None:
        from matplotlib.figure import Figure

        groups: dict[str, list[str]] = {}
        for name in self._names[1:]:  # the first is the epoch
            groups.setdefault(name.split("/", maxsplit=1)[0], []).append(name)
        figure = Figure(figsize=(4 * len(groups), 3), layout="constrained")
        for place, (group, members) in enumerate(groups.items(), start=1):
            axes = figure.add_subplot(1, len(groups), place)
            for name in members:
                points = [(row["epoch"], row[name]) for row in self.rows if name in row]
                axes.plot(*zip(*points, strict=True), marker=".", label=name.removeprefix(f"{group}/"))
            axes.set_title(group)
            axes.set_xlabel("epoch")
            axes.legend(fontsize="small")
        with written_aside(self.folder / "curves.png") as aside:
            figure.savefig(aside, dpi=100)


def _players(output: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in output.items() if "/" not in name}


def _sentence(losses: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {float(value):.4f}" for name, value in losses.items())


def _stop(progress: Progress | Meanwhile) -> Any:
    def stop(engine: PlayerTrainer, *error: BaseException) -> None:
        del engine
        progress.stop()
        # An engine with a handler for exceptions leaves raising to it.
        if error:
            raise error[0]

    return stop


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.0f} h"
