"""VA-GAN: an additive map, a Wasserstein critic that stays ahead, and the schedule of Baumgartner et al."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from pipeline.methods import VAGAN
from pipeline.methods.va_gan import critic_schedule
from pipeline.networks import MapGenerator
from pipeline.objectives import WassersteinGP
from pipeline.training import PlayerTrainer


class Adder(nn.Module):
    """M(x) = 0.5 x − 0.3, y = x + M(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5))

    def map(self, image: Tensor) -> Tensor:
        return self.slope * image - 0.3

    def apply_map(self, image: Tensor, effect: Tensor) -> Tensor:
        return image + effect

    def forward(self, image: Tensor) -> Tensor:
        return self.apply_map(image, self.map(image))


class Critic(nn.Module):
    """D(x) = slope · sum over the pixels: its gradient has the norm slope · √pixels."""

    def __init__(self, slope: float = 2.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, image: Tensor) -> Tensor:
        return self.slope * image.sum(dim=(2, 3))


def method(**options: Any) -> VAGAN:
    return VAGAN(Adder(), Critic(), **options)  # type: ignore[arg-type]


def batch() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {key: torch.rand(3, 1, 2, 2, generator=random) for key in ("image", "healthy")}


def iterations_played(count: int, *schedule: int) -> list[int]:
    plays = critic_schedule(*schedule)
    return [iteration for iteration in range(count) if plays(iteration)]


def test_the_map_and_the_image_it_leads_to_are_shared():
    data = batch()
    shared, x_p = method().forward(data), data["image"]
    torch.testing.assert_close(shared, {"map": 0.5 * x_p - 0.3, "y": 1.5 * x_p - 0.3})


def test_the_real_generator_makes_tanh_of_image_and_map():
    torch.manual_seed(0)
    generator = MapGenerator(filters=1)
    image = torch.rand(1, 1, 32, 32)
    shared = VAGAN(generator, Critic()).forward({"image": image})
    torch.testing.assert_close(2 * shared["y"] - 1, torch.tanh(2 * image - 1 + shared["map"]))
    torch.testing.assert_close(shared["y"], generator(image))


def test_the_critic_scores_healthy_images_high_and_made_ones_low():
    plays, data = method(), batch()
    terms = plays.discriminate(data, plays.forward(data))
    y = 1.5 * data["image"] - 0.3
    expected = 2 * (y.sum((1, 2, 3)).mean() - data["healthy"].sum((1, 2, 3)).mean())
    assert list(terms) == ["critic", "critic_penalty"]
    torch.testing.assert_close(terms["critic"], expected)


def test_the_penalty_is_of_weight_ten_over_all_pixels_of_a_sample():
    # Four pixels with a gradient of 2 each: a norm of 4, where one axis at a time would give 2 √2.
    plays, data = method(), batch()
    penalty = plays.discriminate(data, plays.forward(data))["critic_penalty"]
    assert penalty.item() == pytest.approx(10 * (4 - 1) ** 2)


def test_the_generator_wants_high_scores_and_a_small_map():
    plays, data = method(), batch()
    x_p = data["image"]
    terms = plays.translate(data, plays.forward(data))
    assert list(terms) == ["gan", "map"]
    torch.testing.assert_close(terms["gan"], -2 * (1.5 * x_p - 0.3).sum((1, 2, 3)).mean())
    torch.testing.assert_close(terms["map"], 100 * (0.5 * x_p - 0.3).abs().mean())


def test_lambda_weighs_the_map():
    plays, data = method(lambda_=7), batch()
    expected = 7 * (0.5 * data["image"] - 0.3).abs().mean()
    torch.testing.assert_close(plays.translate(data, plays.forward(data))["map"], expected)


def test_it_is_the_map_that_is_kept_small_not_the_change_that_tanh_makes():
    plays, data = method(), batch()
    shared = {"y": data["image"] + 9, "map": torch.zeros_like(data["image"])}
    assert plays.translate(data, shared)["map"].item() == 0


def test_the_critic_leaves_the_generator_without_gradients():
    plays, data = method(), batch()
    torch.stack(list(plays.discriminate(data, plays.forward(data)).values())).sum().backward()
    assert plays.networks["generator"].slope.grad is None
    assert plays.networks["critic"].slope.grad is not None


def test_no_mask_is_read():
    plays, data = method(), batch()
    assert set(data) == {"image", "healthy"}
    for player in plays.players:
        assert all(value.isfinite() for value in player.loss(data, plays.forward(data)).values())


def test_the_defaults_are_the_papers():
    plays = method()
    assert isinstance(plays.objective, WassersteinGP)
    assert plays.objective.weight == 10
    assert [(player.name, player.networks) for player in plays.players] == [
        ("critic", ("critic",)),
        ("generator", ("generator",)),
    ]
    critic, generator = plays.players
    assert all(critic.plays(iteration) for iteration in range(4000))
    assert [i for i in range(4000) if generator.plays(i)] == iterations_played(4000, 5, 100, 25, 100)


@pytest.mark.parametrize(
    ("iterations", "steps"),
    [
        # The first 25 steps come after 100 of the critic each.
        (99, 0),
        (100, 1),
        (2500, 25),
        # Steps number 25 to 99 come after 5 each: 2500 + 75 · 5 = 2875.
        (2504, 25),
        (2505, 26),
        (2874, 99),
        (2875, 100),
        # Step number 100 comes after 100: 2975.
        (2974, 100),
        (2975, 101),
        # Steps 101 to 199: 2975 + 99 · 5 = 3470. Step 200: 3570.
        (3469, 199),
        (3470, 200),
        (3569, 200),
        (3570, 201),
        # Steps 201 to 299: 3570 + 495 = 4065. Step 300: 4165.
        (4065, 300),
        (4165, 301),
    ],
)
def test_so_many_steps_of_the_generator_fall_into_the_first_iterations(iterations, steps):
    assert len(iterations_played(iterations, 5, 100, 25, 100)) == steps


def test_the_generator_plays_in_the_last_iteration_of_the_critics_steps():
    assert iterations_played(2510, 5, 100, 25, 100) == [*range(99, 2500, 100), 2504, 2509]


def test_without_a_thorough_start_the_very_first_step_is_thorough_still():
    # It is step number 0, a multiple of every number.
    assert iterations_played(20, 2, 10, 0, 4) == [9, 11, 13, 15]


def test_a_training_that_goes_on_asks_from_the_middle():
    at_once = critic_schedule(5, 100, 25, 100)
    assert at_once(3569)
    assert [iteration for iteration in (2974, 2975, 99, 100, 3568) if at_once(iteration)] == [2974, 99]


@pytest.mark.parametrize("schedule", [(0, 100, 25, 100), (5, 0, 25, 100), (5, 100, -1, 100), (5, 100, 25, 0)])
def test_schedules_that_make_no_sense_are_refused(schedule):
    with pytest.raises(ValueError, match=f"found {', '.join(map(str, schedule))}"):
        critic_schedule(*schedule)


def test_the_trainer_lets_the_critic_run_ahead():
    plays = method(critic_steps=2, thorough_steps=4, thorough_first=1, thorough_every=3)
    samples = [{key: value[0] for key, value in batch().items()}] * 11
    engine = PlayerTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=DataLoader(samples, batch_size=1),
        method=plays,
        optimizers={name: SGD(plays.networks[name].parameters(), lr=0.001) for name in ("critic", "generator")},
    )
    turns: dict[str, list[int]] = {"critic": [], "generator": []}
    for name, optimizer in engine.optimizers.items():
        optimizer.register_step_post_hook(lambda *_, kept=turns[name]: kept.append(engine.state.iteration))
    engine.run()
    # After 4 steps of the critic, then 2, 2, and 4 again before step number 3, which is not reached.
    assert turns == {"critic": list(range(1, 12)), "generator": [4, 6, 8]}
