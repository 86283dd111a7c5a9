"""Regression of a target: one player, the squared error in deviations of the training targets."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from pipeline.methods import Regression
from pipeline.training import PlayerTrainer


class Mean(nn.Module):
    """Answers with a multiple of each image's mean."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.factor * image.mean(dim=(1, 2, 3))[:, None]


def loss(network: nn.Module, image: torch.Tensor, target: torch.Tensor, deviation: float = 1.0) -> float:
    method = Regression(network, deviation)
    batch = {"image": image, "target": target}
    (player,) = method.players
    terms = player.loss(batch, method.forward(batch))
    assert set(terms) == {"mse"}
    return float(terms["mse"].detach())


images = torch.stack([torch.full((1, 4, 4), value) for value in (0.2, 0.6)])


def test_one_player_owns_the_network_which_is_also_what_users_run():
    method = Regression(Mean())
    (player,) = method.players
    assert player.networks == ("network",) == tuple(method.networks)
    assert list(method.exports.values()) == list(method.networks.values())


def test_the_loss_is_the_mean_squared_error_over_the_batch():
    assert loss(Mean(), images, torch.tensor([[0.2], [0.6]])) == pytest.approx(0)
    assert loss(Mean(), images, torch.tensor([[0.5], [0.2]])) == pytest.approx((0.3**2 + 0.4**2) / 2)


def test_the_loss_is_the_same_in_months_as_in_years():
    target = torch.tensor([[0.5], [0.2]])
    assert loss(Mean(12.0), images, 12 * target, 12 * 0.1) == pytest.approx(loss(Mean(), images, target, 0.1))


@pytest.mark.parametrize("deviation", [0.0, -1.0, float("inf"), float("nan")])
def test_a_deviation_that_is_none_is_refused(deviation):
    with pytest.raises(ValueError, match="must be a number above 0, found"):
        Regression(Mean(), deviation)


def test_the_engine_trains_it_as_any_method():
    torch.manual_seed(0)
    x = torch.rand(8, 1, 8, 8)
    samples = [{"image": image, "target": 3 * image.mean()[None]} for image in x]
    network = Mean(0.0)
    trainer = PlayerTrainer(
        device="cpu",
        max_epochs=100,
        train_data_loader=DataLoader(samples, batch_size=8),
        method=Regression(network),
        optimizers={"network": torch.optim.Adam(network.parameters(), lr=0.1)},
    )
    trainer.run()
    assert float(network.factor.detach()) == pytest.approx(3, abs=0.05)
    assert set(trainer.state.output) == {"network", "network/mse"}
