"""What a training sees does not depend on how many workers prepare it."""

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from pipeline.methods import Segmentation
from pipeline.training import PlayerTrainer


class Drawing(Dataset[dict[str, Tensor]]):
    """Each sample is its index, and a number that is drawn with it."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = torch.tensor([float(index), float(torch.rand(()))]).reshape(1, 1, 2)
        return {"image": image, "mask": torch.zeros(1, 1, 2)}


def seen(workers: int, seed: int = 0, epochs: int = 2) -> Tensor:
    """The batches of a training."""
    batches = []

    class Watching(Segmentation):
        def supervise(self, batch, shared):
            batches.append(batch["image"].clone())
            return super().supervise(batch, shared)

    data = Drawing()
    sampler = DistributedSampler(data, num_replicas=1, rank=0, seed=seed)
    network = nn.Conv2d(1, 1, 1)
    PlayerTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(data, batch_size=4, sampler=sampler, num_workers=workers),
        method=Watching(network),
        optimizers={"segmentor": SGD(network.parameters(), lr=0.1)},
    ).run()
    return torch.cat(batches)[:, 0, 0].reshape(epochs, 12, 2)


@pytest.fixture(scope="module")
def with_one() -> Tensor:
    return seen(workers=1)


def test_order_and_draws_are_the_same_with_any_number_of_workers(with_one):
    assert torch.equal(seen(workers=2), with_one)


def test_the_order_is_that_of_a_training_without_workers(with_one):
    assert torch.equal(seen(workers=0)[..., 0], with_one[..., 0])


def test_each_epoch_each_sample_and_each_seed_draw_anew(with_one):
    first, second = (dict(zip(*epoch.T.tolist(), strict=True)) for epoch in with_one)
    assert all(first[index] != second[index] for index in first)
    assert len({*first.values(), *second.values()}) == 24
    assert not torch.equal(seen(workers=1, seed=1)[..., 1], with_one[..., 1])
