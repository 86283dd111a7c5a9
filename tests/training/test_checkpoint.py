"""Checkpoints hold all that a training needs to end where an uninterrupted one ends."""

import os
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader, DistributedSampler

from pipeline.errors import UsageError
from pipeline.methods import Player
from pipeline.training import CheckpointLoader, CheckpointSaver, PlayerTrainer
from pipeline.training.checkpoint import kept_epochs, load_tensors, save_tensors, use_epoch

EPOCHS = 4


class Dice:
    """A method whose losses draw from every random generator, and whose second player plays at every fifth turn."""

    def __init__(self, width: int = 1) -> None:
        self.networks: dict[str, nn.Module] = {"first": nn.Conv2d(1, width, 3), "second": nn.Conv2d(width, 1, 3)}
        self.exports = {"first": self.networks["first"]}
        self.players = (
            Player("first", ("first",), self.throw),
            Player("second", ("second",), self.throw, plays=lambda iteration: iteration % 5 == 0),
        )

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return {}

    def throw(self, batch: Any, shared: Any) -> dict[str, Tensor]:
        # A single normal draw leaves its twin in the generator: that too is part of its state.
        drawn = torch.randn(()) + np.random.standard_normal() + random.gauss(0, 1)  # noqa: NPY002
        return {"miss": (self.networks["second"](self.networks["first"](batch["image"])) - drawn).square().mean()}


class StopAfter:
    """Ends the process, as far as the engine can tell, in the middle of an epoch."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: PlayerTrainer) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self.stop)

    def stop(self) -> None:
        raise ConnectionAbortedError


class Diverge:
    """Makes a network's weights NaN at the end of the second epoch."""

    def __init__(self, network: str) -> None:
        self.network = network

    def attach(self, engine: PlayerTrainer) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=2), self.spoil)

    def spoil(self, engine: PlayerTrainer) -> None:
        with torch.no_grad():
            engine.method.networks[self.network].bias[0] = float("nan")


class Remember:
    """Keeps the main export's weights after each epoch."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def attach(self, engine: PlayerTrainer) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.keep)

    def keep(self, engine: PlayerTrainer) -> None:
        self.weights.append(engine.main_export.weight.detach().clone())


def seed(value: int) -> None:
    torch.manual_seed(value)
    np.random.seed(value)  # noqa: NPY002
    random.seed(value)


def engine(
    handlers: list[Any], width: int = 1, start: int = 0, exports: tuple[str, ...] = ("first",), **options: Any
) -> PlayerTrainer:
    seed(start)
    method = Dice(width)
    method.exports = {name: method.networks[name] for name in exports}
    images = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    samples: Any = [{"image": image} for image in images]
    sampler: Any = DistributedSampler(samples, num_replicas=1, rank=0, seed=0)
    optimizers = {name: Adam(network.parameters(), lr=0.1) for name, network in method.networks.items()}
    return PlayerTrainer(
        device="cpu",
        max_epochs=EPOCHS,
        train_data_loader=DataLoader(samples, batch_size=2, sampler=sampler),
        method=method,
        optimizers=optimizers,
        schedulers={name: PolynomialLR(opt, total_iters=EPOCHS, power=0.8) for name, opt in optimizers.items()},
        train_handlers=handlers,
        **options,
    )


def state(trainer: PlayerTrainer) -> dict[str, Tensor]:
    networks = {**trainer.method.networks, "average": trainer.main_export}
    return {f"{name}.{key}": v for name, network in networks.items() for key, v in network.state_dict().items()}


@pytest.mark.parametrize(
    "options", [{}, {"average_decay": 0.9}, {"amp": "float16"}, {"amp": "bfloat16", "accumulate": 2}]
)
@pytest.mark.parametrize("killed_at", [5, 8, 11])
def test_a_killed_training_ends_with_the_bits_of_one_that_was_not(tmp_path, killed_at, options):
    uninterrupted = engine([CheckpointSaver(tmp_path / "whole")], **options)
    uninterrupted.run()
    with pytest.raises(ConnectionAbortedError):
        engine([StopAfter(killed_at), CheckpointSaver(tmp_path / "killed")], **options).run()
    # Another seed: whatever the new process starts from, the checkpoint decides.
    resumed = engine([CheckpointLoader(tmp_path / "killed"), CheckpointSaver(tmp_path / "killed")], start=9, **options)
    resumed.run()

    assert resumed.state.iteration == uninterrupted.state.iteration == 4 * EPOCHS
    for key, value in state(uninterrupted).items():
        assert torch.equal(state(resumed)[key], value), key
    files = [load_tensors(tmp_path / name / "model.pt") for name in ("whole", "killed")]
    assert all(torch.equal(files[0][key], files[1][key]) for key in files[0])


def test_the_random_draws_matter_in_this_proof():
    one, other = engine([]), engine([])
    one.run()
    seed(1)
    other.run()
    assert not torch.equal(one.method.networks["first"].weight, other.method.networks["first"].weight)


def test_a_checkpoint_holds_all_state_and_loads_without_pickled_code(tmp_path):
    engine([CheckpointSaver(tmp_path)], average_decay=0.9).run()
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(content["networks"]) == set(content["optimizers"]) == set(content["schedulers"]) == {"first", "second"}
    assert content["epoch"] == EPOCHS
    assert content["iteration"] == 4 * EPOCHS
    assert content["optimizers"]["first"]["state"][0]["step"] == 4 * EPOCHS
    assert content["schedulers"]["first"]["last_epoch"] == EPOCHS
    assert content["averages"]["first"]["n_averaged"] == 4 * EPOCHS
    assert set(content["random"]) == {"python", "numpy", "torch", "cuda"}


def test_the_scale_of_a_float16_training_is_in_its_checkpoint(tmp_path):
    trainer = engine([CheckpointSaver(tmp_path)], amp="float16")
    trainer.run()
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert content["loss_scaler"]["scale"] == trainer.loss_scaler.get_scale() < 65536


def test_the_weights_are_the_bare_state_dict_of_the_network_that_users_run(tmp_path):
    trainer = engine([CheckpointSaver(tmp_path)], average_decay=0.9)
    trainer.run()
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert set(content) == {"weight", "bias"}
    assert torch.equal(content["weight"], trainer.main_export.weight)
    assert not torch.equal(content["weight"], trainer.method.networks["first"].weight)


def test_a_checkpoint_is_written_aside_and_a_failed_one_leaves_the_last(tmp_path, monkeypatch):
    save_tensors(tmp_path / "checkpoint.pt", {"epoch": 1})

    def half(path: Path, content: Any) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        assert path.name.startswith(".partial-")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        save_tensors(tmp_path / "checkpoint.pt", {"epoch": 2})
    assert load_tensors(tmp_path / "checkpoint.pt") == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_finished_training_resumes_to_nothing(tmp_path):
    done = engine([CheckpointSaver(tmp_path)])
    done.run()
    again = engine([CheckpointLoader(tmp_path)], start=9)
    again.run()
    assert torch.equal(again.method.networks["first"].weight, done.method.networks["first"].weight)


def test_nothing_to_resume_from_is_said_with_the_path(tmp_path):
    with pytest.raises(UsageError, match=r"checkpoint\.pt: no checkpoint to resume from; start the training without"):
        engine([CheckpointLoader(tmp_path)]).run()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(UsageError, match=r"checkpoint\.pt: not a weights file that can be loaded safely") as caught:
        engine([CheckpointLoader(tmp_path)]).run()
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_one_sentence(tmp_path):
    engine([CheckpointSaver(tmp_path)]).run()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UsageError, match="not a weights file that can be loaded safely"):
        load_tensors(path)


def test_a_flipped_bit_in_weights_is_one_sentence(tmp_path):
    """Torch reads such tensors as if nothing had happened."""
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    ones = torch.ones(1000).numpy().tobytes()
    path.write_bytes(path.read_bytes().replace(ones, ones[:10] + bytes([ones[10] ^ 64]) + ones[11:]))
    assert not torch.equal(torch.load(path, weights_only=True)["weight"], torch.ones(1000))
    with pytest.raises(UsageError, match="not a weights file that can be loaded safely"):
        load_tensors(path)


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {}, {"networks": {}}, {"networks": None}, "text"])
def test_a_file_that_is_no_checkpoint_is_one_sentence(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(UsageError, match="belongs to another method or network size"):
        engine([CheckpointLoader(tmp_path)]).run()


@pytest.mark.parametrize(
    "changes",
    [{"epoch": -1}, {"epoch": 10**12}, {"epoch": "2"}, {"epoch": True}, {"iteration": None}, {"max_epochs": "x"}],
    ids=str,
)
def test_a_checkpoint_whose_counters_cannot_be_is_one_sentence(tmp_path, changes):
    engine([CheckpointSaver(tmp_path)]).run()
    path = tmp_path / "checkpoint.pt"
    save_tensors(path, {**load_tensors(path), **changes})
    with pytest.raises(UsageError, match="belongs to another method or network size"):
        engine([CheckpointLoader(tmp_path)]).run()


def test_files_that_are_named_like_kept_epochs_are_passed_over(tmp_path):
    for name in ("model_epoch0002.pt", "model_epochfoo.pt", "model_epoch².pt"):
        (tmp_path / name).touch()
    assert kept_epochs(tmp_path) == [2]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_in_weights_stead_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.pt")
    with pytest.raises(UsageError, match="not a weights file that can be loaded safely"):
        load_tensors(tmp_path / "model.pt")


def test_a_checkpoint_of_a_wider_network_is_one_sentence(tmp_path):
    engine([CheckpointSaver(tmp_path)], width=2).run()
    with pytest.raises(
        UsageError, match=r"belongs to another method or network size .*resume with the settings"
    ) as caught:
        engine([CheckpointLoader(tmp_path)]).run()
    assert "\n" not in str(caught.value)


def test_code_in_a_pickle_is_not_run(tmp_path, dangerous):
    touched = tmp_path / "touched"
    torch.save({"networks": dangerous(touched)}, tmp_path / "checkpoint.pt")
    with pytest.raises(UsageError, match="holds more than tensors"):
        load_tensors(tmp_path / "checkpoint.pt")
    assert not touched.exists()
    # The file is as dangerous as it claims to be.
    torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    assert touched.exists()


def test_a_checkpoint_is_a_plain_zip_archive_of_tensors(tmp_path):
    engine([CheckpointSaver(tmp_path)]).run()
    assert zipfile.is_zipfile(tmp_path / "checkpoint.pt")


def test_a_missing_weights_file_is_said_with_the_path(tmp_path):
    with pytest.raises(UsageError, match=r"model\.pt: no such file, expected weights"):
        load_tensors(tmp_path / "model.pt")


@pytest.mark.parametrize("network", ["first", "second"])
@pytest.mark.parametrize("options", [{}, {"average_decay": 0.9}])
def test_a_training_that_diverges_ends_and_its_last_checkpoint_stays(tmp_path, network, options):
    with pytest.raises(
        UsageError, match=r"the training diverged, .* after epoch 2; start again with smaller learning rates"
    ):
        engine([Diverge(network), CheckpointSaver(tmp_path)], **options).run()
    assert load_tensors(tmp_path / "checkpoint.pt")["epoch"] == 1
    one_epoch = engine([StopAfter(5), CheckpointSaver(tmp_path / "one")], **options)
    with pytest.raises(ConnectionAbortedError):
        one_epoch.run()
    kept, expected = (load_tensors(folder / "model.pt") for folder in (tmp_path, tmp_path / "one"))
    assert all(torch.equal(kept[key], expected[key]) for key in expected)


def both_exports(folder: Path, **options: Any) -> PlayerTrainer:
    trainer = engine([CheckpointSaver(folder, keep_every=2)], exports=("first", "second"), **options)
    trainer.run()
    return trainer


def test_each_export_is_saved_by_its_name_and_the_main_one_as_the_model(tmp_path):
    trainer = both_exports(tmp_path)
    for file, network in (("model.pt", "first"), ("second.pt", "second")):
        content = load_tensors(tmp_path / file)
        assert set(content) == {"weight", "bias"}
        assert torch.equal(content["weight"], trainer.method.networks[network].weight)


def test_each_export_has_averaged_weights(tmp_path):
    trainer = both_exports(tmp_path, average_decay=0.9)
    for file, network in (("model.pt", "first"), ("second.pt", "second")):
        content = load_tensors(tmp_path / file)
        assert not torch.equal(content["weight"], trainer.method.networks[network].weight)
    assert torch.equal(load_tensors(tmp_path / "second.pt")["weight"], trainer.exports["second"].weight)


def test_an_epoch_that_was_kept_is_put_to_use_with_all_its_exports(tmp_path):
    both_exports(tmp_path)
    assert kept_epochs(tmp_path) == [2, 4]
    use_epoch(tmp_path, 2)
    for name in ("model", "second"):
        used, kept = (load_tensors(tmp_path / f"{stem}.pt") for stem in (name, f"{name}_epoch0002"))
        assert torch.equal(used["weight"], kept["weight"])


def test_weights_of_every_second_epoch_are_kept(tmp_path):
    remember = Remember()
    engine([remember, CheckpointSaver(tmp_path, keep_every=2)]).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.pt",
        "model.pt",
        "model_epoch0002.pt",
        "model_epoch0004.pt",
    ]
    for epoch in (2, 4):
        assert torch.equal(load_tensors(tmp_path / f"model_epoch000{epoch}.pt")["weight"], remember.weights[epoch - 1])


@pytest.mark.parametrize("keep_every", [0, -1])
def test_weights_cannot_be_kept_more_often_than_every_epoch(tmp_path, keep_every):
    with pytest.raises(UsageError, match=f"keep_every is at least 1 epoch, or null to keep none, found {keep_every}"):
        CheckpointSaver(tmp_path, keep_every=keep_every)
