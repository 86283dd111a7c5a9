"""What all adversarial methods share: any objective, who owns what, and steps through the real trainer."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from pipeline.methods import ANTGAN, VAGAN, ConditionalGAN, CycleGAN, ImagePool, PairedPHSGAN, UnpairedPHSGAN
from pipeline.methods.adversarial import discriminator_terms
from pipeline.methods.base import Method, Terms, every
from pipeline.objectives import OBJECTIVES, LeastSquares, Wasserstein, WassersteinGP
from pipeline.training import PlayerTrainer

SIZE = 4
GENERATORS = {"generator", "reconstructor", "segmentor", "healthy_generator", "pathological_generator"}
DISCRIMINATORS = {
    "discriminator",
    "critic",
    "image_discriminator",
    "mask_discriminator",
    "healthy_discriminator",
    "pathological_discriminator",
}


class Adder(nn.Conv2d):
    """Stands for VA-GAN's map generator."""

    def map(self, image: Tensor) -> Tensor:
        return super().forward(image)

    def apply_map(self, image: Tensor, effect: Tensor) -> Tensor:
        return image + effect

    def forward(self, image: Tensor) -> Tensor:
        return self.apply_map(image, self.map(image))


def net(channels: int = 1) -> nn.Module:
    return nn.Conv2d(channels, 1, 1)


def pool() -> ImagePool:
    return ImagePool(size=2, shape=(1, SIZE, SIZE))


METHODS: dict[str, Callable[..., Method]] = {
    "phs_gan_paired": lambda **o: PairedPHSGAN(net(), net(2), net(), net(), **o),
    "phs_gan_unpaired": lambda **o: UnpairedPHSGAN(net(), net(2), net(), net(), net(), **o),
    "conditional_gan": lambda **o: ConditionalGAN(net(), net(), **o),
    "cyclegan": lambda **o: CycleGAN(net(), net(), net(), net(), pool(), pool(), **o),
    "ant_gan": lambda **o: ANTGAN(
        healthy_generator=net(),
        pathological_generator=net(),
        healthy_discriminator=net(),
        pathological_discriminator=net(),
        healthy_pool=pool(),
        pathological_pool=pool(),
        **o,
    ),
    "va_gan": lambda **o: VAGAN(Adder(1, 1, 1), net(), thorough_first=0, thorough_steps=o["critic_steps"], **o),  # type: ignore[arg-type]
}

anyone = pytest.mark.parametrize("name", METHODS)
with_cycle = pytest.mark.parametrize("name", ["phs_gan_paired", "phs_gan_unpaired", "cyclegan", "ant_gan"])


def method(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    return METHODS[name](**{"critic_steps": 1, **options})


def samples(count: int) -> list[dict[str, Tensor]]:
    random = torch.Generator().manual_seed(1)

    def image() -> Tensor:
        return torch.rand(1, SIZE, SIZE, generator=random)

    return [
        {
            "image": image(),
            "healthy": image(),
            "mask": (image() > 0.7).float(),
            "other_mask": (image() > 0.7).float(),
        }
        for _ in range(count)
    ]


def batch(count: int = 3) -> dict[str, Tensor]:
    return {key: torch.stack([sample[key] for sample in samples(count)]) for key in samples(1)[0]}


def trainer(plays: Method, iterations: int = 1, **options: Any) -> PlayerTrainer:
    return PlayerTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=DataLoader(samples(2 * iterations), batch_size=2),  # type: ignore[arg-type]
        method=plays,
        optimizers={
            player.name: SGD([p for name in player.networks for p in plays.networks[name].parameters()], lr=0.05)
            for player in plays.players
        },
        **options,
    )


def weights(of: Method) -> dict[str, dict[str, Tensor]]:
    return copy.deepcopy(
        {name: dict(network.named_parameters()) for name, network in of.networks.items() if list(network.parameters())}
    )


def moved(before: dict[str, dict[str, Tensor]], after: dict[str, dict[str, Tensor]]) -> set[str]:
    return {
        name for name in before if any(not torch.equal(before[name][key], after[name][key]) for key in before[name])
    }


# The discriminator's terms


class Judge(nn.Module):
    """D(x) = 2x − 0.3, which remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(2.0))
        self.shown: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shown.append(image)
        return self.slope * image - 0.3


def test_real_images_are_real_and_fake_ones_fake():
    real, fake = torch.full((2, 1, 1, 1), 0.9), torch.full((2, 1, 1, 1), 0.4)
    terms = discriminator_terms(LeastSquares(), Judge(), real, fake, "gan")
    # D(x) = 1.5, D(x̂) = 0.5: ½ (1.5 − 1)² + ½ 0.5².
    assert list(terms) == ["gan"]
    assert float(terms["gan"]) == pytest.approx(0.125 + 0.125)
    real, fake = torch.full((2, 1, 1, 1), 0.65), torch.full((2, 1, 1, 1), 0.15)
    terms = discriminator_terms(LeastSquares(), Judge(), real, fake, "gan")
    assert float(terms["gan"]) == pytest.approx(0, abs=1e-12)


def test_batches_of_different_length_are_told_apart():
    D, real, fake = Judge(), torch.full((1, 1, 1, 1), 0.9), torch.full((3, 1, 1, 1), 0.4)
    assert float(discriminator_terms(LeastSquares(), D, real, fake, "gan")["gan"]) == pytest.approx(0.25)


def test_the_discriminator_runs_once_over_both():
    D = Judge()
    discriminator_terms(LeastSquares(), D, torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2), "gan")
    (shown,) = D.shown
    assert shown.flatten(1).mean(1).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("objective", [LeastSquares(), WassersteinGP()])
def test_no_gradient_flows_back_into_the_fake(objective):
    D, fake = Judge(), torch.rand(2, 1, 2, 2, requires_grad=True)
    terms = discriminator_terms(objective, D, torch.rand(2, 1, 2, 2), fake, "gan")
    torch.stack(list(terms.values())).sum().backward()
    assert fake.grad is None
    assert D.slope.grad is not None


def test_a_penalty_is_a_term_of_its_own():
    # One pixel and a slope of 2: λ (2 − 1)².
    images = torch.rand(2, 1, 1, 1), torch.rand(2, 1, 1, 1)
    terms = discriminator_terms(WassersteinGP(weight=7), Judge(), *images, "critic")
    assert list(terms) == ["critic", "critic_penalty"]
    assert float(terms["critic_penalty"]) == pytest.approx(7)
    assert float(terms["critic"]) == pytest.approx(2 * float((images[1] - images[0]).mean()), abs=1e-6)


# Each method


@anyone
def test_each_trainable_network_has_one_owner(name):
    plays = method(name)
    owned = [network for player in plays.players for network in player.networks]
    trainable = [key for key, network in plays.networks.items() if list(network.parameters())]
    assert sorted(owned) == sorted(trainable)
    for player in plays.players:
        assert set(player.networks) <= GENERATORS or set(player.networks) <= DISCRIMINATORS
    assert next(iter(plays.exports.values())) in [plays.networks[name] for name in GENERATORS & set(owned)]


@anyone
def test_each_player_moves_all_its_networks_and_no_other(name):
    plays = method(name)
    engine = trainer(plays)
    states: dict[str, list[Any]] = {}
    for player, optimizer in engine.optimizers.items():
        states[player] = []
        for register in (optimizer.register_step_pre_hook, optimizer.register_step_post_hook):
            register(lambda *_, kept=states[player]: kept.append(weights(plays)))
    engine.run()
    assert list(states) == [player.name for player in plays.players]
    for player in plays.players:
        assert moved(*states[player.name]) == set(player.networks)


@anyone
@pytest.mark.parametrize("objective", ["least_squares", "wasserstein_gp"])
def test_what_a_discriminator_plays_for_leaves_the_generators_without_gradients(name, objective):
    # Without the trainer's freezing: the fakes themselves are detached.
    plays, data = method(name, objective=objective), batch()
    shared = plays.forward(data)
    for player in plays.players:
        if not set(player.networks) <= DISCRIMINATORS:
            continue
        for network in plays.networks.values():
            network.zero_grad()
        torch.stack(list(player.loss(data, shared).values())).sum().backward()
        reached = {
            key for key, network in plays.networks.items() if any(p.grad is not None for p in network.parameters())
        }
        assert reached == set(player.networks)


@anyone
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_gives_finite_losses_and_a_penalty_where_it_has_one(name, objective):
    plays, data = method(name, objective=objective), batch()
    shared = plays.forward(data)
    terms: dict[str, Terms] = {player.name: player.loss(data, shared) for player in plays.players}
    for named in terms.values():
        assert all(value.ndim == 0 and value.isfinite() for value in named.values())
    for player in plays.players:
        judges = set(player.networks) <= DISCRIMINATORS
        penalised = [term for term in terms[player.name] if term.endswith("_penalty")]
        plain = [term for term in terms[player.name] if not term.endswith("_penalty")]
        expected = [f"{term}_penalty" for term in plain] if judges and objective == "wasserstein_gp" else []
        assert penalised == expected


@anyone
def test_an_objective_is_given_by_name_or_as_an_object(name):
    data, own = batch(), WassersteinGP(weight=3)
    named = method(name, objective="wasserstein_gp")
    given = method(name, objective=own)
    judge = next(place for place, player in enumerate(named.players) if set(player.networks) <= DISCRIMINATORS)
    terms = []
    for plays in (named, given):
        torch.manual_seed(2)
        terms.append(plays.players[judge].loss(data, plays.forward(data)))
    for term, value in terms[0].items():
        factor = 3 / 10 if term.endswith("_penalty") else 1
        torch.testing.assert_close(terms[1][term], factor * value)


@anyone
def test_clipped_critics_stay_clipped_in_a_real_training_and_generators_free(name):
    plays = method(name, objective=Wasserstein(clip=0.02))
    before = weights(plays)
    trainer(plays, iterations=2).run()
    for key, network in plays.networks.items():
        largest = max((float(p.abs().max()) for p in network.parameters()), default=0)
        if key in DISCRIMINATORS:
            assert 0 < largest <= 0.02 + 1e-8
            assert max(float(p.abs().max()) for p in before[key].values()) > 0.02
        elif key in GENERATORS:
            assert largest > 0.02


@anyone
def test_discriminators_play_always_and_generators_once_every_few_iterations(name):
    plays = method(name, critic_steps=3)
    played: dict[str, list[int]] = {player.name: [] for player in plays.players}
    engine = trainer(plays, iterations=7)
    for player, optimizer in engine.optimizers.items():
        optimizer.register_step_post_hook(lambda *_, kept=played[player]: kept.append(engine.state.iteration))
    engine.run()
    for player in plays.players:
        judges = set(player.networks) <= DISCRIMINATORS
        assert played[player.name] == ([1, 2, 3, 4, 5, 6, 7] if judges else [3, 6])


@anyone
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bfloat16_trains_in_every_objective(name, objective):
    plays = method(name, objective=objective)
    engine = trainer(plays, iterations=2, amp="bfloat16")
    engine.run()
    assert all(value.isfinite() for value in engine.state.output.values())


@anyone
def test_parts_of_a_batch_give_the_step_of_the_whole(name):
    whole, split = method(name), method(name)
    trainer(whole).run()
    trainer(split, accumulate=2).run()
    # Parts need the forward pass again for each player: where generators play first, as in CycleGAN, the discriminators
    # then see what the updated generators make.
    generators_first = whole.players[0].networks[0] in GENERATORS
    for key in (GENERATORS if generators_first else GENERATORS | DISCRIMINATORS) & set(whole.networks):
        torch.testing.assert_close(
            dict(whole.networks[key].named_parameters()), dict(split.networks[key].named_parameters())
        )


@anyone
def test_a_generator_that_never_plays_is_refused(name):
    with pytest.raises(ValueError, match="at least 1 step for each of the generator, found 0"):
        method(name, critic_steps=0)


@anyone
def test_an_unknown_objective_is_refused(name):
    with pytest.raises(ValueError, match="found 'nope'"):
        method(name, objective="nope")


@with_cycle
def test_the_way_back_undoes_the_translation_as_in_training(name):
    plays, data = method(name), batch()
    shared = plays.forward(data)
    torch.testing.assert_close(plays.exports["cycle"](shared["x̃_h"], data["image"]), shared["x̂_p"])


@with_cycle
def test_the_way_back_is_made_of_the_networks_that_are_trained(name):
    plays = method(name)
    own = {id(parameter) for network in plays.networks.values() for parameter in network.parameters()}
    assert {id(parameter) for parameter in plays.exports["cycle"].parameters()} <= own


@pytest.mark.parametrize("name", ["conditional_gan", "va_gan"])
def test_methods_without_a_way_back_say_so(name):
    assert "cycle" not in method(name).exports


def test_once_every_so_many_iterations_counts_from_zero():
    assert [iteration for iteration in range(10) if every(3)(iteration)] == [2, 5, 8]
    assert all(every(1)(iteration) for iteration in range(10))


@pytest.mark.parametrize("steps", [0, -1])
def test_fewer_than_one_step_of_the_discriminator_is_refused(steps):
    with pytest.raises(ValueError, match=f"found {steps}"):
        every(steps)
