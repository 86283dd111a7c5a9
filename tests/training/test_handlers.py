"""What a user sees of a training."""

import csv
import io
import itertools
import logging
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.inferers import SimpleInferer
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from pipeline.methods import Player
from pipeline.mosaic import PANEL_PIXELS, TITLE_HEIGHT
from pipeline.training import (
    CheckpointLoader,
    CheckpointSaver,
    Curves,
    PlayerTrainer,
    ProgressBar,
    TranslationValidation,
)
from pipeline.training.handlers import LOG_EVERY

LOGGER = "pipeline.training.handlers"


class Dim(nn.Module):
    """Multiplies its input by a factor, which its player brings down."""

    def __init__(self, factor: float = 0.9) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, image: Tensor) -> Tensor:
        return self.factor * image


class Dimming:
    def __init__(self, factor: float = 0.9) -> None:
        self.networks: dict[str, nn.Module] = {"dim": Dim(factor)}
        self.exports = self.networks
        self.players = (
            Player("dim", ("dim",), self.play),
            Player("idle", ("dim",), self.play, plays=lambda iteration: iteration == 0),
        )

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return {}

    def play(self, batch: Any, shared: Any) -> dict[str, Tensor]:
        return {"factor": self.networks["dim"](batch["image"]).mean()}


def samples(count: int = 2) -> list[dict[str, Tensor]]:
    image, mask = torch.zeros(1, 8, 16), torch.zeros(1, 8, 16)
    image[:, 2:6, 2:14] = 0.5
    mask[:, 3:5, 3:5] = 1
    return [{"image": image * (1 + place / 10), "mask": mask} for place in range(count)]


def run(*handlers: Any, epochs: int = 2, iterations: int = 2, rate: float = 0.0, method: Any = None) -> PlayerTrainer:
    method = method or Dimming()
    loader: Any = DataLoader(samples(iterations), batch_size=1)  # type: ignore[arg-type]
    optimizers = {name: SGD(method.networks["dim"].parameters(), lr=rate) for name in ("dim", "idle")}
    engine = PlayerTrainer("cpu", epochs, loader, method, optimizers, train_handlers=handlers)
    engine.run()
    return engine


def panel(folder: Path, count: int = 3, rows: int = 6) -> TranslationValidation:
    data: Any = samples(count)
    return TranslationValidation(folder, data, SimpleInferer(), batch_size=2, rows=rows)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def test_without_a_terminal_each_epoch_is_one_line(caplog):
    with caplog.at_level(logging.INFO, LOGGER):
        run(ProgressBar(), epochs=2)
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert len(lines) == 2
    for epoch, line in enumerate(lines, start=1):
        assert re.fullmatch(rf"epoch {epoch}/2: dim 0\.1856, \d+ s, 0 min left", line)


def test_without_a_terminal_a_long_epoch_says_every_half_minute_how_far_it_is(monkeypatch, caplog):
    clock = itertools.count(step=25.0)
    monkeypatch.setattr("pipeline.training.handlers.time.monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, LOGGER):
        run(ProgressBar(), iterations=4, epochs=6)
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER][:2]
    assert re.fullmatch(r"epoch 1/6, step 2/4: dim 0\.\d+, 9 min left", lines[0])  # 22 steps of 25 s
    assert re.fullmatch(r"epoch 1/6: dim 0\.\d+, 125 s, 10 min left", lines[1])


def test_without_a_terminal_what_takes_long_between_two_steps_is_told_of_too(monkeypatch, caplog):
    monkeypatch.setattr("pipeline.training.meanwhile.LINE_EVERY_S", 0.01)
    method = Dimming()
    forward = method.forward
    waits = iter([0.2, 0.2, 0.2, 0.0])
    monkeypatch.setattr(method, "forward", lambda batch: (time.sleep(next(waits)), forward(batch))[1])

    class Validation:
        def attach(self, engine: PlayerTrainer) -> None:
            engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: time.sleep(0.2))

    with caplog.at_level(logging.INFO, LOGGER):
        run(Validation(), ProgressBar(), method=method)
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert lines[0] == "epoch 1/2, in its first step"
    told = [re.sub(r"dim 0\.\d+(, idle 0\.\d+)?", "dim", line) for line in lines]
    meanwhile = [f"epoch {place}: dim, 0 min left" for place in ("1/2, step 1/2", "1/2, step 2/2", "2/2, step 0/2")]
    assert [line for line in dict.fromkeys(told) if line in meanwhile] == meanwhile
    assert told.count("epoch 1/2, in its first step") == told.index(meanwhile[0])
    said = len(lines)
    time.sleep(0.05)
    assert len(caplog.records) == said, "the end of the training is the end of it"


class SlowSamples(list[dict[str, Tensor]]):
    """Slices that take a time to prepare."""

    def __init__(self, seconds: float) -> None:
        super().__init__(samples(4))
        self.seconds = seconds

    def __getitem__(self, index: Any) -> Any:
        time.sleep(self.seconds)
        return super().__getitem__(index)


@pytest.mark.parametrize(("prepare_s", "step_s", "told"), [(0.3, 0.05, 1), (0.3, 3.0, 0), (0.02, 0.0, 0)])
def test_a_training_that_waits_for_its_data_says_so_once_and_what_can_be_done(
    prepare_s, step_s, told, monkeypatch, caplog
):
    clock = [0.0]
    monkeypatch.setattr("pipeline.training.handlers.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    method = Dimming()
    forward = method.forward
    monkeypatch.setattr(method, "forward", lambda batch: (time.sleep(step_s), forward(batch))[1])
    loader: Any = DataLoader(SlowSamples(prepare_s), batch_size=1)  # type: ignore[arg-type]
    optimizers = {name: SGD(method.networks["dim"].parameters(), lr=0.0) for name in ("dim", "idle")}
    with caplog.at_level(logging.INFO, LOGGER):
        PlayerTrainer("cpu", 2, loader, method, optimizers, train_handlers=[ProgressBar()]).run()
    lines = [line for line in (record.getMessage() for record in caplog.records) if "waiting for data" in line]
    assert len(lines) == told
    for line in lines:
        assert line == ("86 % of epoch 1 went into waiting for data; more processes may prepare it: `--set workers=N`")


def test_quiet_shows_nothing(caplog):
    with caplog.at_level(logging.WARNING, LOGGER):
        run(ProgressBar())
    assert caplog.messages == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_with_losses(monkeypatch, caplog):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with caplog.at_level(logging.INFO, LOGGER):
        run(ProgressBar(), iterations=LOG_EVERY, epochs=1)
    shown = terminal.getvalue()
    assert "epoch 1/1" in shown
    assert f"{LOG_EVERY}/{LOG_EVERY}" in shown
    assert "dim 0." in shown
    assert caplog.messages == []


@pytest.mark.parametrize(("asked", "coloured"), [("", True), ("1", False)])
def test_a_bar_has_colours_unless_the_environment_asks_for_none(asked, coloured, monkeypatch, caplog):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", asked)
    with caplog.at_level(logging.INFO, LOGGER):
        run(ProgressBar(), iterations=LOG_EVERY, epochs=1)
    assert bool(re.search(r"\x1b\[(\d+;)*3[0-8][;m]", terminal.getvalue())) == coloured


def test_an_error_stops_the_bar_and_is_still_raised(monkeypatch, caplog):
    monkeypatch.setattr("sys.stderr", Terminal())
    method = Dimming()
    method.forward = lambda batch: 1 / 0  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.INFO, LOGGER), pytest.raises(ZeroDivisionError):
        run(ProgressBar(), method=method)


@pytest.mark.slow
def test_curves_hold_each_epochs_mean_losses_rates_and_validation(tmp_path):
    run(panel(tmp_path), Curves(tmp_path), epochs=3, iterations=2)
    rows = rows_of(tmp_path)
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3]
    # Two slices: 0.9 · 0.5 and 0.9 · 0.55 on 48 of 128 pixels.
    mean = 0.9 * (0.5 + 0.55) / 2 * 48 / 128
    assert [float(row["dim/factor"]) for row in rows] == pytest.approx([mean] * 3)
    assert [float(row["rate/dim"]) for row in rows] == [0] * 3
    assert all(float(row["validation/psnr_normal"]) > 0 for row in rows)
    assert (tmp_path / "curves.png").is_file()


@pytest.mark.parametrize(
    ("epoch_s", "drawn_after"),
    [
        (0.1, [20]),  # a short training has its picture at the end
        (4, [3, 8, 13, 18, 20]),  # a drawing of a second is made every twenty
        (60, list(range(1, 21))),
    ],
)
def test_the_picture_of_the_curves_takes_a_small_share_of_the_time(monkeypatch, tmp_path, epoch_s, drawn_after):
    clock, drawn = [0.0], []
    monkeypatch.setattr("pipeline.training.handlers.time.monotonic", lambda: clock[0])

    def pass_epoch(engine: PlayerTrainer) -> None:
        clock[0] += epoch_s

    def draw(curves: Curves) -> None:
        drawn.append(len(curves.rows))
        clock[0] += 1

    monkeypatch.setattr(Curves, "_draw", draw)
    method = Dimming()
    engine = PlayerTrainer(
        "cpu",
        20,
        DataLoader(samples(1), batch_size=1),  # type: ignore[arg-type]
        method,
        {name: SGD(method.networks["dim"].parameters(), lr=0.0) for name in ("dim", "idle")},
        train_handlers=[Curves(tmp_path)],
    )
    engine.add_event_handler(Events.EPOCH_STARTED, pass_epoch)
    engine.run()
    assert drawn == drawn_after
    assert len(rows_of(tmp_path)) == 20


def test_a_player_without_a_turn_leaves_its_cell_empty_and_its_mean_counts_its_turns(tmp_path):
    run(Curves(tmp_path), epochs=2, iterations=2)
    first, second = rows_of(tmp_path)
    assert float(first["idle/factor"]) == pytest.approx(0.9 * 0.5 * 48 / 128)
    assert second["idle/factor"] == ""


@pytest.mark.slow
def test_tensorboard_reads_losses_and_validation(tmp_path):
    run(panel(tmp_path), Curves(tmp_path), epochs=2, iterations=LOG_EVERY)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss/dim", "loss/dim/factor", "validation/psnr_normal"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss/dim")] == [LOG_EVERY, 2 * LOG_EVERY]
    # The tenth slice: 0.5 · 1.9.
    assert events.Scalars("loss/dim/factor")[0].value == pytest.approx(0.9 * 0.5 * 1.9 * 48 / 128)


@pytest.mark.slow
def test_resumed_curves_go_on_after_the_checkpoint_with_each_epoch_once(tmp_path):
    run(Curves(tmp_path), CheckpointSaver(tmp_path), epochs=2)
    # A third epoch was logged, and the process killed before its checkpoint.
    with (tmp_path / "curves.csv").open("a") as file:
        file.write("3.0" + "," * (len(rows_of(tmp_path)[0]) - 1) + "\n")
    run(CheckpointLoader(tmp_path), Curves(tmp_path), CheckpointSaver(tmp_path), epochs=4)
    rows = rows_of(tmp_path)
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert rows[2]["dim/factor"] != ""


@pytest.mark.slow
def test_a_new_training_does_not_go_on_with_old_curves(tmp_path):
    run(Curves(tmp_path), epochs=3)
    run(Curves(tmp_path), epochs=1)
    assert len(rows_of(tmp_path)) == 1


def test_validation_is_the_mean_psnr_of_normal_tissue(tmp_path):
    engine = run(panel(tmp_path, count=3), epochs=1)
    # Tissue t becomes 0.9 t, so the mean squared error over normal tissue is (0.1 t)².
    by_hand = [-20 * math.log10(0.1 * 0.5 * (1 + place / 10)) for place in range(3)]
    assert engine.state.metrics["psnr_normal"] == pytest.approx(sum(by_hand) / 3, rel=1e-5)


@pytest.mark.parametrize("beside", [0, 1])  # on a coarser grid, the pixels beside a lesion are part of it
def test_a_lesion_that_vanishes_does_not_count_as_damage(tmp_path, beside):
    class Heal(Dim):
        def forward(self, image: Tensor) -> Tensor:
            healed = image + 0 * self.factor
            healed = healed.clone()
            healed[:, :, 3 - beside : 5 + beside, 3 - beside : 5 + beside] = 0
            return healed

    method = Dimming()
    method.networks["dim"] = Heal()
    assert run(panel(tmp_path), method=method, epochs=1).state.metrics["psnr_normal"] == math.inf


def test_one_untouched_slice_does_not_hide_the_others(tmp_path):
    class Sometimes(Dim):
        def forward(self, image: Tensor) -> Tensor:
            bright = image.amax(dim=(1, 2, 3), keepdim=True) > 0.51
            return torch.where(bright, image - 0.1, image) + 0 * self.factor

    method = Dimming()
    method.networks["dim"] = Sometimes()
    metrics = run(panel(tmp_path, count=3), method=method, epochs=1).state.metrics
    assert metrics["psnr_normal"] == pytest.approx(20, rel=1e-4)


def test_a_network_that_broke_down_does_not_score_as_perfect(tmp_path):
    metrics = run(panel(tmp_path), method=Dimming(float("nan")), epochs=1).state.metrics
    assert math.isnan(metrics["psnr_normal"])


def test_each_epoch_leaves_a_panel_of_some_slices(tmp_path):
    run(panel(tmp_path, count=9, rows=3), epochs=2)
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == ["epoch_001.png", "epoch_002.png"]
    # Four columns and three rows of panels, one line of titles and one that says SYNTHETIC.
    assert Image.open(tmp_path / "panels" / "epoch_001.png").size == (
        4 * PANEL_PIXELS,
        3 * PANEL_PIXELS + 2 * TITLE_HEIGHT,
    )


@pytest.mark.parametrize(("count", "rows", "shown"), [(9, 3, [0, 4, 8]), (2, 6, [0, 1]), (1, 6, [0]), (5, 1, [0])])
def test_the_panels_slices_are_spread_over_the_validation_slices(tmp_path, count, rows, shown):
    assert panel(tmp_path, count, rows).shown == shown


def test_validation_uses_the_averaged_weights_and_leaves_the_training_as_it_was(tmp_path):
    plain, watched = Dimming(), Dimming()
    run(method=plain, rate=0.1)
    run(panel(tmp_path), method=watched, rate=0.1)
    assert torch.equal(plain.networks["dim"].factor, watched.networks["dim"].factor)
    assert watched.networks["dim"].factor.requires_grad
