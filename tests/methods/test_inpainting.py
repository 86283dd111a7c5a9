"""Filling: one player, L1 in the hole and of the steps at its border, in deviations of the slice's tissue."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pipeline.methods import Inpainting
from pipeline.networks import FillNetwork
from pipeline.training import PlayerTrainer


class Fixed(nn.Module):
    """Answers with the slices it was given."""

    def __init__(self, slices: Tensor) -> None:
        super().__init__()
        self.slices = nn.Parameter(slices)

    def forward(self, shown: Tensor) -> Tensor:
        return self.slices


def terms(made: Tensor, truth: Tensor, hole: Tensor, mu: float = 0.5) -> dict[str, float]:
    method = Inpainting(Fixed(made), mu)
    (player,) = method.players
    batch = {"image": truth, "mask": hole, "shown": truth}
    return {name: float(value.detach()) for name, value in player.loss(batch, method.forward(batch)).items()}


# Half of the tissue 0.2, half 0.6: mean 0.4, deviation 0.2.
truth = torch.full((1, 1, 8, 8), 0.2)
truth[..., 4:] = 0.6
hole = torch.zeros_like(truth)
hole[..., 2:4, 2:4] = 1


def test_one_player_owns_the_network_which_is_also_what_users_run():
    method = Inpainting(FillNetwork(filters=2))
    (player,) = method.players
    assert player.networks == ("network",) == tuple(method.networks)
    assert list(method.exports.values()) == list(method.networks.values())


def test_the_truth_costs_nothing():
    assert terms(truth, truth, hole) == {"l1": 0, "border": 0}


def test_an_error_is_counted_in_deviations_of_the_tissue_and_steps_at_the_border_beside_it():
    made = truth + 0.1 * hole
    # One square of 2×2 pixels that is 0.5 deviations off: 4 pixels, and 8 pairs across its border.
    assert terms(made, truth, hole, mu=0.5) == pytest.approx({"l1": 0.5, "border": 0.5 * 8 * 0.5 / 4})
    assert terms(made, truth, hole, mu=0) == pytest.approx({"l1": 0.5, "border": 0})


@pytest.mark.parametrize("gain", [0.5, 1.5])
def test_a_scan_of_less_contrast_counts_as_much(gain):
    made = truth + 0.1 * hole
    assert terms(gain * made, gain * truth, hole) == pytest.approx(terms(made, truth, hole))


def test_small_holes_count_by_the_root_of_their_area():
    two, holes = truth.expand(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    holes[0, :, 2:4, 2:4] = 1
    holes[1, :, 6, 1] = 1
    # Wrong by one deviation in the small hole alone, whose weight is 1 of 1 + 2.
    made = two + 0.2 * holes * torch.tensor([0.0, 1.0])[:, None, None, None]
    assert terms(made, two, holes)["l1"] == pytest.approx(1 / 3)


def test_it_learns_what_lies_on_the_other_side():
    """A phantom whose fill cannot be guessed from around the hole, but is seen in the mirror."""
    torch.manual_seed(0)
    samples = []
    for _ in range(8):
        spot = torch.zeros(1, 16, 16)
        spot[:, 6:10, 6:10] = 0.4 * torch.rand(())
        there = torch.full((1, 16, 16), 0.3) + 0.1 * torch.rand(1, 16, 16) + spot
        hidden = torch.zeros(1, 16, 16)
        hidden[:, 6:10, 6:10] = 1
        start = torch.where(hidden > 0, 0.35, there)
        samples.append(
            {"image": there, "mask": hidden, "shown": torch.cat([start, hidden, there, torch.zeros_like(hidden)])}
        )
    network = FillNetwork(neighbours=0, filters=4)
    losses: list[float] = []
    trainer = PlayerTrainer(
        device="cpu",
        max_epochs=30,
        train_data_loader=DataLoader(samples, batch_size=8),
        method=Inpainting(network),
        optimizers={"network": torch.optim.Adam(network.parameters(), lr=0.01)},
        train_handlers=[Losses(losses)],
    )
    trainer.run()
    assert losses[-1] < losses[0] / 2


class Losses:
    """Keeps the loss of each epoch."""

    def __init__(self, kept: list[float]) -> None:
        self.kept = kept

    def attach(self, engine: PlayerTrainer) -> None:
        from ignite.engine import Events

        engine.add_event_handler(
            Events.EPOCH_COMPLETED, lambda: self.kept.append(float(engine.state.output["network"]))
        )
