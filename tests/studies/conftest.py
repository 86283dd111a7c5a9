"""What stops a training in the middle."""

from collections.abc import Callable

import pytest

from pipeline.training import CheckpointSaver, PlayerTrainer


@pytest.fixture(autouse=True)
def no_pictures(undrawn: None) -> None:
    """Pictures of curves would take half as long as these trainings."""


@pytest.fixture
def epochs_trained(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Epochs saved from now on, in a list; the process is stopped after the given number of them."""
    save = CheckpointSaver.save

    def watch(stop_after: int | None = None) -> list[int]:
        trained: list[int] = []

        def save_and_count(self: CheckpointSaver, engine: PlayerTrainer) -> None:
            save(self, engine)
            trained.append(engine.state.epoch)
            if len(trained) == stop_after:
                raise KeyboardInterrupt

        monkeypatch.setattr(CheckpointSaver, "save", save_and_count)
        return trained

    return watch
