"""Two processes end with the same weights as one that sees the whole batch."""

import csv
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.training.distributed import average_gradients, rank, share_weights, world_size

# Each process starts from other weights and from its own half of each batch.
SCRIPT = """
import sys
import torch
from torch import distributed
from torch.optim import SGD
from torch.utils.data import DataLoader, DistributedSampler
from pipeline.methods import GVS
from pipeline.networks import JohnsonGenerator, UNetSegmentor
from monai.inferers import SimpleInferer
from pipeline.training import CheckpointSaver, Curves, PlayerTrainer, TranslationValidation, rank, world_size
from pipeline.training.distributed import average_gradients

folder, processes = sys.argv[1], int(sys.argv[2])
if processes > 1:
    distributed.init_process_group("gloo")
assert world_size() == processes
torch.manual_seed(rank())
if processes > 1:
    # The first process's share has something for one parameter, the other's for another, none for the third.
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    (4 * parameters[rank()]).sum().backward()
    average_gradients(parameters)
    assert [None if each.grad is None else each.grad.tolist() for each in parameters] == [[2, 2], [2, 2], None]
# In double precision, so that the order of sums does not tell in the weights.
generator, segmentor = JohnsonGenerator(filters=4, residual_blocks=1).double(), UNetSegmentor(filters=4).double()
method = GVS(generator, segmentor, residual_region="normal")
images = torch.rand(12, 2, 1, 32, 32, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
samples = [{"image": image, "mask": (mask > 0.9).double()} for image, mask in images]
trainer = PlayerTrainer(
    device="cpu",
    max_epochs=2,
    train_data_loader=DataLoader(
        samples,
        batch_size=4 // processes,
        sampler=DistributedSampler(samples, num_replicas=processes, rank=rank(), seed=0),
    ),
    method=method,
    optimizers={name: SGD(network.parameters(), lr=0.05) for name, network in method.networks.items()},
    train_handlers=[
        TranslationValidation(folder, samples[:5], SimpleInferer(), batch_size=2),  # shares of two batches and of one
        Curves(folder),
        CheckpointSaver(folder),
    ],
)
trainer.run()
torch.save({n: network.state_dict() for n, network in method.networks.items()}, f"{folder}/rank{rank()}.pt")
if processes > 1:
    distributed.destroy_process_group()
"""


def test_without_other_processes_there_is_rank_0_of_1():
    assert (rank(), world_size()) == (0, 1)


def test_alone_gradients_and_weights_stay_as_they_are():
    network = nn.Linear(2, 1)
    network(torch.ones(1, 2)).sum().backward()
    gradient, weight = network.weight.grad.clone(), network.weight.detach().clone()
    average_gradients(network.parameters())
    share_weights([network])
    assert torch.equal(network.weight.grad, gradient)
    assert torch.equal(network.weight, weight)


def launch(script: Path, folder: Path, processes: int) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *torchrun, str(script), str(folder), str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path / "one"), "1"])
    runpy.run_path(str(script))
    launch(script, tmp_path / "two", 2)
    alone, together, other = (
        torch.load(tmp_path / name, weights_only=True) for name in ("one/rank0.pt", "two/rank0.pt", "two/rank1.pt")
    )
    for name, network in together.items():
        for key, value in network.items():
            assert torch.equal(value, other[name][key]), f"{name}.{key} differs between the processes"
            torch.testing.assert_close(value, alone[name][key], rtol=1e-6, atol=1e-9)
    figures = [
        [float(row["validation/psnr_normal"]) for row in csv.DictReader((tmp_path / name / "curves.csv").open())]
        for name in ("one", "two")
    ]
    assert len(figures[0]) == 2
    assert figures[1] == pytest.approx(figures[0], rel=1e-5)
    # The first process alone writes.
    assert {"model.pt", "checkpoint.pt", "curves.csv"} <= {path.name for path in (tmp_path / "two").iterdir()}
