"""What stops a training in the middle, and one thread for all."""

from collections.abc import Callable

import pytest
import torch

from pipeline.training import CheckpointSaver, PlayerTrainer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


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
