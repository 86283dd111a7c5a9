"""The judge's training: one player, cross-entropy and Dice loss against the lesion mask."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from pipeline.methods import Segmentation
from pipeline.training import PlayerTrainer


class Fixed(nn.Module):
    """Answers with the logits it was given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits


def terms(logits: torch.Tensor, mask: torch.Tensor, loss: str = "ce+dice") -> dict[str, float]:
    method = Segmentation(Fixed(logits), loss)
    batch = {"image": torch.zeros_like(mask), "mask": mask}
    (player,) = method.players
    return {name: float(value.detach()) for name, value in player.loss(batch, method.forward(batch)).items()}


mask = torch.zeros(2, 1, 4, 4)
mask[0, 0, 1:3, 1:3] = 1


def test_one_player_owns_the_segmentor_which_is_also_what_users_run() -> None:
    method = Segmentation(nn.Conv2d(1, 1, 1))
    (player,) = method.players
    assert player.networks == ("segmentor",) == tuple(method.networks)
    assert list(method.exports.values()) == list(method.networks.values())
    assert method.forward({"image": mask}) == {}


def test_the_mask_itself_as_answer_costs_nothing() -> None:
    found = terms(100 * (2 * mask - 1), mask)
    assert found["ce"] == pytest.approx(0, abs=1e-6)
    assert found["dice"] == pytest.approx(0, abs=1e-4)


def test_undecided_logits_cost_log_2_and_the_soft_dice_of_one_half() -> None:
    found = terms(torch.zeros_like(mask), mask)
    assert found["ce"] == pytest.approx(math.log(2))
    # Σ p y = 2, Σ p = 16, Σ y = 4 over both slices.
    assert found["dice"] == pytest.approx(1 - 2 * 2 / (16 + 4), abs=1e-4)


def test_a_false_alarm_on_a_healthy_slice_raises_the_dice_loss() -> None:
    alarm = mask.clone()
    alarm[1, 0, 0, 0] = 1
    assert terms(100 * (2 * alarm - 1), mask)["dice"] > terms(100 * (2 * mask - 1), mask)["dice"] + 0.05


@pytest.mark.parametrize("loss", ["ce", "dice"])
def test_either_loss_can_be_left_out(loss: str) -> None:
    logits = torch.zeros_like(mask)
    assert terms(logits, mask, loss) == {loss: terms(logits, mask)[loss]}


def test_a_loss_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"some of ce, dice, joined by \+, found 'focal'"):
        Segmentation(nn.Conv2d(1, 1, 1), "focal")


def test_the_engine_trains_it_as_any_method(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 1, 8, 8)
    samples = [{"image": image, "mask": (image > 0.5).float()} for image in images]
    segmentor = nn.Conv2d(1, 1, 1)
    method = Segmentation(segmentor)
    trainer = PlayerTrainer(
        device="cpu",
        max_epochs=150,
        train_data_loader=DataLoader(samples, batch_size=8),
        method=method,
        optimizers={"segmentor": torch.optim.Adam(segmentor.parameters(), lr=0.2)},
    )
    trainer.run()
    assert ((segmentor(images) > 0) == (images > 0.5)).float().mean() > 0.97
    assert set(trainer.state.output) == {"segmentor", "segmentor/ce", "segmentor/dice"}
