"""The engine plays any method: turns, schedules, accumulation, mixed precision, moving average."""

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader

from pipeline.methods import GVS, Player
from pipeline.networks import JohnsonGenerator, UNetSegmentor
from pipeline.training import CheckpointLoader, CheckpointSaver, PlayerTrainer, trainer
from pipeline.training.speed import PLAIN, Speed, candidates

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


class Tug:
    """Two players pull at a row of pixels; the second plays at every fifth iteration."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.networks: dict[str, nn.Module] = {
            "left": nn.Conv2d(1, 1, 1),
            "right": nn.Conv2d(1, 1, 1),
            "hand": nn.Conv2d(1, 1, 1),
        }
        self.exports: dict[str, nn.Module] = {"left": self.networks["left"]}
        self.players = (
            Player("left", ("left",), self.pull_left),
            Player("right", ("right", "hand"), self.pull_right, plays=lambda iteration: iteration % 5 == 0),
        )
        self.seen: list[str] = []

    def forward(self, batch: Any) -> dict[str, Tensor]:
        self.seen.append("forward")
        return {"moved": self.networks["left"](batch["image"])}

    def pull_left(self, batch: Any, shared: dict[str, Tensor]) -> dict[str, Tensor]:
        self.seen.append("left")
        return {"pull": (shared["moved"] - 1).square().mean(), "size": 0.1 * self.networks["left"].weight.abs().sum()}

    def pull_right(self, batch: Any, shared: dict[str, Tensor]) -> dict[str, Tensor]:
        self.seen.append("right")
        pulled = self.networks["hand"](self.networks["right"](shared["moved"].detach()))
        return {"pull": (pulled + 1).square().mean()}


def loader(count: int = 8, batch_size: int = 1, size: int = 4) -> DataLoader[dict[str, Tensor]]:
    random = torch.Generator().manual_seed(5)
    samples = [
        {
            "image": torch.rand(1, size, size, generator=random),
            "mask": (torch.rand(1, size, size, generator=random) > 0.8).float(),
        }
        for _ in range(count)
    ]
    return DataLoader(samples, batch_size=batch_size)  # type: ignore[arg-type]


def play(method: Any, data: DataLoader[dict[str, Tensor]], epochs: int = 1, rate: float = 0.1, **options: Any) -> Any:
    optimizers = {
        player.name: SGD([p for name in player.networks for p in method.networks[name].parameters()], lr=rate)
        for player in method.players
    }
    engine = PlayerTrainer(
        **{
            "device": "cpu",
            "max_epochs": epochs,
            "train_data_loader": data,
            "method": method,
            "optimizers": optimizers,
            **options,
        }
    )
    engine.run()
    return engine


def gvs() -> GVS:
    torch.manual_seed(0)
    return GVS(JohnsonGenerator(filters=4, residual_blocks=1), UNetSegmentor(filters=4), residual_region="normal")


@pytest.mark.parametrize("device", DEVICES)
def test_players_play_in_order_each_on_its_schedule(device):
    method = Tug()
    play(method, loader(8), device=device)
    usual, fifth = ["forward", "left"], ["forward", "left", "right"]
    assert method.seen == [*fifth, *4 * usual, *fifth, *2 * usual]


def test_the_schedule_counts_on_over_epochs():
    method = Tug()
    play(method, loader(3), epochs=2)
    assert [place for place, name in enumerate(n for n in method.seen if n != "forward") if name == "right"] == [1, 7]


def test_a_player_that_does_not_play_moves_nothing():
    method = Tug()
    states = []

    class Watch:
        def attach(self, engine: Any) -> None:
            engine.add_event_handler(
                Events.ITERATION_COMPLETED,
                lambda: states.append(copy.deepcopy([method.networks[name].weight.item() for name in method.networks])),
            )

    play(method, loader(6), train_handlers=[Watch()])
    left, right, hand = zip(*states, strict=True)
    assert len(set(left)) == 6
    assert right[0] == right[4] != right[5]
    assert hand[0] == hand[4] != hand[5]


def test_only_the_networks_of_the_player_whose_turn_it_is_require_gradients():
    method = Tug()
    required = {}

    def watch(player: Player) -> Player:
        def loss(batch: Any, shared: dict[str, Tensor]) -> dict[str, Tensor]:
            required[player.name] = {name for name, net in method.networks.items() if net.weight.requires_grad}
            return player.loss(batch, shared)

        return Player(player.name, player.networks, loss)

    method.players = tuple(watch(player) for player in method.players)  # type: ignore[assignment]
    play(method, loader(1))
    assert required == {"left": {"left"}, "right": {"right", "hand"}}


def test_what_no_player_will_update_has_no_graph_in_the_shared_forward_pass():
    method = Tug()
    left, right = method.players
    method.players = (replace(left, plays=lambda iteration: iteration == 2), replace(right, plays=lambda _: True))
    required, graphs, gradients = [], [], []
    forward = method.forward

    def watched(batch: Any) -> dict[str, Tensor]:
        shared = forward(batch)
        required.append({name for name, net in method.networks.items() if net.weight.requires_grad})
        graphs.append(shared["moved"].requires_grad)
        gradients.append(method.networks["left"].weight.grad)
        return shared

    method.forward = watched
    play(method, loader(3))
    assert required == [{"right", "hand"}, {"right", "hand"}, {"left", "right", "hand"}]
    assert graphs == [False, False, True]
    assert gradients == [None, None, None]
    assert method.networks["left"].weight.grad is not None


def test_a_loss_that_forgets_to_detach_leaks_nothing_into_a_network_that_does_not_play():
    method = Tug()

    def leaky(batch: Any, shared: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"pull": (method.networks["right"](shared["moved"]) + 1).square().mean()}

    left, right = method.players
    method.players = (replace(left, plays=lambda _: False), replace(right, loss=leaky, plays=lambda _: True))
    start = method.networks["left"].weight.item()
    play(method, loader(2))
    assert method.networks["left"].weight.grad is None
    assert method.networks["left"].weight.item() == start


def test_players_on_their_schedules_do_what_a_bare_loop_does():
    method = Tug()
    left, right, hand = (copy.deepcopy(method.networks[name]) for name in ("left", "right", "hand"))
    play(method, loader(8))

    optimizer_left = SGD(left.parameters(), lr=0.1)
    optimizer_right = SGD([*right.parameters(), *hand.parameters()], lr=0.1)
    for iteration, batch in enumerate(loader(8)):
        moved = left(batch["image"])
        loss = (moved - 1).square().mean() + 0.1 * left.weight.abs().sum()
        optimizer_left.zero_grad()
        loss.backward()
        optimizer_left.step()
        if iteration % 5 == 0:
            optimizer_right.zero_grad()
            (hand(right(moved.detach())) + 1).square().mean().backward()
            optimizer_right.step()

    for name, network in (("left", left), ("right", right), ("hand", hand)):
        assert torch.equal(method.networks[name].weight, network.weight)


def test_a_generator_that_plays_less_often_is_trained_as_in_a_bare_loop():
    method = gvs()
    step_a, step_b = method.players
    method.players = (step_a, replace(step_b, plays=lambda iteration: iteration % 3 == 2))
    G, S = (copy.deepcopy(method.networks[name]) for name in ("generator", "segmentor"))
    play(method, loader(7, size=32))

    reference = GVS(G, S, residual_region="normal")
    optimizer_G, optimizer_S = SGD(G.parameters(), lr=0.1), SGD(S.parameters(), lr=0.1)
    for iteration, batch in enumerate(loader(7, size=32)):
        x_s = G(batch["image"])
        optimizer_S.zero_grad()
        reference.step_a(batch, {"x_s": x_s.detach()})["wce"].backward()
        optimizer_S.step()
        if iteration % 3 == 2:
            optimizer_G.zero_grad()
            squared = ((batch["image"] - x_s) ** 2 * (1 - batch["mask"])).sum() / (1 - batch["mask"]).sum()
            fooled = functional.binary_cross_entropy_with_logits(S(x_s), torch.zeros_like(x_s))
            (fooled + 10 * squared).backward()
            optimizer_G.step()

    for name, network in (("generator", G), ("segmentor", S)):
        for mine, theirs in zip(method.networks[name].parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_after_each_step_of_its_player_and_of_no_other_something_may_be_done(accumulate):
    method, done = Tug(), []
    left, right = method.players
    method.players = (
        replace(left, after_step=lambda: done.append("after left")),
        replace(right, after_step=lambda: done.append("after right")),
    )

    class Watch:
        def attach(self, engine: Any) -> None:
            for name, optimizer in engine.optimizers.items():
                optimizer.register_step_post_hook(lambda *_, name=name: done.append(f"step of {name}"))

    play(method, loader(12, batch_size=2), accumulate=accumulate, train_handlers=[Watch()])
    usual = ["step of left", "after left"]
    fifth = [*usual, "step of right", "after right"]
    assert done == [*fifth, *4 * usual, *fifth]


def test_what_is_done_after_a_step_is_seen_by_the_next_player():
    method, seen = Tug(), []
    left, right = method.players
    weight = method.networks["left"].weight

    def hold() -> None:
        with torch.no_grad():
            weight.clamp_(-0.01, 0.01)

    def look(batch: Any, shared: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(weight.item())
        return right.loss(batch, shared)

    method.players = (replace(left, after_step=hold), replace(right, loss=look))
    play(method, loader(1))
    assert abs(seen[0]) == pytest.approx(0.01)


def test_output_names_each_term_and_each_players_sum():
    engine = play(Tug(), loader(1))
    output = engine.state.output
    assert list(output) == ["left", "left/pull", "left/size", "right", "right/pull"]
    torch.testing.assert_close(output["left"], output["left/pull"] + output["left/size"])
    assert not any(value.requires_grad for value in output.values())


def test_an_iteration_in_which_nobody_plays_is_no_error():
    method = Tug()
    method.players = (Player("left", ("left",), method.pull_left, plays=lambda iteration: iteration == 1),)
    start = method.networks["left"].weight.item()
    engine = play(method, loader(1), amp="float16")
    assert engine.state.output == {}
    assert method.networks["left"].weight.item() == start


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_accumulating_parts_of_a_batch_gives_the_step_of_the_whole_batch(parts, device):
    whole, split = gvs(), gvs()
    data = loader(8, batch_size=8, size=32)
    one = play(whole, data, epochs=2, device=device)
    other = play(split, data, epochs=2, accumulate=parts, device=device)
    for name in whole.networks:
        for mine, theirs in zip(whole.networks[name].parameters(), split.networks[name].parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    for name, value in one.state.output.items():
        torch.testing.assert_close(value, other.state.output[name], rtol=1e-4, atol=1e-5)


def test_a_last_batch_with_fewer_samples_than_parts_is_used_whole():
    whole, split = Tug(), Tug()
    play(whole, loader(5, batch_size=4))
    play(split, loader(5, batch_size=4), accumulate=4)
    torch.testing.assert_close(whole.networks["left"].weight, split.networks["left"].weight)


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_computes_in_half_and_keeps_weights_and_losses_in_float32(device):
    method = gvs()
    kinds = []
    method.networks["generator"].last.register_forward_hook(lambda _, __, output: kinds.append(output.dtype))
    engine = play(method, loader(4, batch_size=4, size=32), amp="bfloat16", device=device)
    assert kinds == [torch.bfloat16]
    assert all(p.dtype == torch.float32 for network in method.networks.values() for p in network.parameters())
    assert all(value.dtype == torch.float32 and value.isfinite() for value in engine.state.output.values())
    plain = play(gvs(), loader(4, batch_size=4, size=32), device=device)
    for name, value in plain.state.output.items():
        torch.testing.assert_close(engine.state.output[name], value, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("device", DEVICES)
def test_float16_scales_the_loss_and_an_overflow_halves_the_scale_without_a_step(device):
    method = Tug()
    # Small enough for 65536 times its gradient to fit into float16.
    method.players = (Player("left", ("left",), lambda batch, shared: {"pull": 1e-3 * shared["moved"].float().mean()}),)
    start = method.networks["left"].weight.item()
    engine = play(method, loader(1), amp="float16", device=device)
    assert engine.loss_scaler.is_enabled()
    assert engine.loss_scaler.get_scale() == 65536
    assert method.networks["left"].weight.item() != start

    blown = Tug()
    blown.players = (
        Player("left", ("left",), lambda batch, shared: {"pull": shared["moved"].float().mean() * float("inf")}),
    )
    engine = play(blown, loader(1), amp="float16", device=device)
    assert engine.loss_scaler.get_scale() == 32768
    assert blown.networks["left"].weight.item() == start


def test_without_mixed_precision_nothing_is_scaled():
    assert not play(Tug(), loader(1)).loss_scaler.is_enabled()
    assert not play(Tug(), loader(1), amp="bfloat16").loss_scaler.is_enabled()


class Drawing(Tug):
    """Draws, and keeps a statistic of its batches: what a measurement could spoil."""

    def __init__(self) -> None:
        super().__init__()
        self.networks["norm"] = nn.BatchNorm2d(1)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return super().forward({"image": self.networks["norm"](batch["image"]) + torch.randn(()) + random.random()})


BFLOAT16_LAST = Speed("bfloat16", channels_last=True)


@pytest.fixture
def fastest_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[Speed], None]:
    """Let a clock run slowly in all steps but those of one kind."""

    def choose(best: Speed) -> None:
        def measured(options: Any, step: Any) -> Any:
            for option in (*options, best):
                step(option)
            return best, {option: 1.0 - 0.5 * (option == best) for option in options}

        monkeypatch.setattr(trainer, "fastest", measured)

    return choose


def weights_of(engine: Any) -> dict[str, Tensor]:
    return {f"{name}.{key}": v for name, net in engine.method.networks.items() for key, v in net.state_dict().items()}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("best", [PLAIN, BFLOAT16_LAST])
def test_auto_trains_as_what_it_chose_would_have_without_a_measurement(fastest_is, best, accumulate):
    fastest_is(best)
    found = []
    for options in ({"amp": "auto"}, {"amp": best.amp, "channels_last": best.channels_last}):
        torch.manual_seed(1)
        random.seed(1)
        found.append(play(Drawing(), loader(4, batch_size=2), accumulate=accumulate, **options))
    assert found[0].speed == found[1].speed == best
    assert set(found[0].step_seconds) == set(candidates(torch.device("cpu")))
    for key, value in weights_of(found[1]).items():
        assert torch.equal(weights_of(found[0])[key], value), key


def test_a_resumed_training_computes_as_its_checkpoint_did_and_measures_nothing(fastest_is, tmp_path, monkeypatch):
    fastest_is(BFLOAT16_LAST)
    play(Drawing(), loader(2), amp="auto", train_handlers=[CheckpointSaver(tmp_path)])
    fastest_is(PLAIN)
    resumed = play(Drawing(), loader(2), epochs=2, amp="auto", train_handlers=[CheckpointLoader(tmp_path)])
    assert (resumed.speed, resumed.step_seconds) == (BFLOAT16_LAST, {})


def test_channels_last_is_how_images_and_weights_lie_in_memory():
    method = gvs()
    shared = []
    method.forward = lambda batch: shared.append(batch["image"]) or GVS.forward(method, batch)
    play(method, loader(1, batch_size=1, size=32), channels_last=True)
    layers = [module for module in method.networks["segmentor"].modules() if isinstance(module, nn.Conv2d)]
    assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in layers)
    assert shared[0].is_contiguous(memory_format=torch.channels_last)


def test_a_deterministic_training_is_float32_with_fixed_algorithms_and_leaves_others_their_own(fastest_is):
    fastest_is(BFLOAT16_LAST)
    seen = []
    method = Tug()
    pull = method.pull_left
    method.players = (
        replace(
            method.players[0],
            loss=lambda *given: seen.append(torch.are_deterministic_algorithms_enabled()) or pull(*given),
        ),
    )
    engine = play(method, loader(2), amp="auto", deterministic=True)
    assert (seen, engine.speed) == ([True, True], PLAIN)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_moving_average_starts_at_the_first_weights_and_moves_by_one_minus_its_decay():
    method = Tug()
    values = []

    class Watch:
        def attach(self, engine: Any) -> None:
            engine.add_event_handler(
                Events.ITERATION_COMPLETED, lambda: values.append(method.networks["left"].weight.item())
            )

    engine = play(method, loader(3), average_decay=0.75, train_handlers=[Watch()])
    average = values[0]
    for value in values[1:]:
        average = 0.75 * average + 0.25 * value
    assert engine.main_export.weight.item() == pytest.approx(average)
    assert engine.main_export is not method.networks["left"]
    assert len(set(values)) == 3


def test_without_an_average_users_get_the_network_itself():
    method = Tug()
    assert play(method, loader(1)).main_export is method.networks["left"]


def test_the_average_does_not_change_the_training():
    plain, averaged = Tug(), Tug()
    play(plain, loader(4))
    play(averaged, loader(4), average_decay=0.9)
    assert torch.equal(plain.networks["left"].weight, averaged.networks["left"].weight)


def test_a_schedule_may_step_before_its_player_had_a_turn():
    method = Tug()
    method.players = (Player("left", ("left",), method.pull_left, plays=lambda iteration: iteration == 3),)
    optimizer = Adam(method.networks["left"].parameters(), lr=0.1)
    schedule = PolynomialLR(optimizer, total_iters=2, power=1)
    play(method, loader(2), 2, optimizers={"left": optimizer}, schedulers={"left": schedule})
    assert schedule.get_last_lr() == [0]


def test_schedules_step_once_an_epoch_and_the_rates_of_the_epoch_are_noted():
    method = Tug()
    optimizers = {
        "left": Adam(method.networks["left"].parameters(), lr=0.1),
        "right": Adam(method.networks["right"].parameters(), lr=0.2),
    }
    rates = []

    class Watch:
        def attach(self, engine: Any) -> None:
            engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: rates.append(dict(engine.state.rates)))

    schedule = PolynomialLR(optimizers["left"], total_iters=4, power=0.8)
    play(method, loader(3), 4, optimizers=optimizers, schedulers={"left": schedule}, train_handlers=[Watch()])
    assert [rate["left"] for rate in rates] == pytest.approx([0.1 * (1 - e / 4) ** 0.8 for e in range(4)])
    assert [rate["right"] for rate in rates] == [0.2] * 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"optimizers": {}}, r"players \['left', 'right'\], optimisers \[\]"),
        ({"amp": "float8"}, "found 'float8'"),
        (
            {"amp": "bfloat16", "deterministic": True},
            "deterministic training is float32 and contiguous, found bfloat16",
        ),
        ({"channels_last": True, "deterministic": True}, "found float32, channels last"),
        ({"accumulate": 0}, "found 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        play(Tug(), loader(1), **options)


class Shared(Tug):
    """Exports made of parts of several networks: `left`, then `right`; `right` and `hand` share a part."""

    def __init__(self) -> None:
        super().__init__()
        trunk = nn.Conv2d(1, 1, 1)
        self.networks["right"] = nn.Sequential(trunk, nn.Conv2d(1, 1, 1))
        self.networks["hand"] = nn.Sequential(trunk, nn.Conv2d(1, 1, 1))
        self.exports = {
            "left": self.networks["left"],
            "chain": nn.Sequential(self.networks["left"], self.networks["right"]),
        }
        self.players = (
            Player("left", ("left",), self.pull_left),
            Player("right", ("right",), self.pull_right),
        )


def test_exports_are_made_of_parts_that_players_own_and_share():
    method = Shared()
    engine = play(method, loader(3), average_decay=0.5)
    chain = engine.exports["chain"]
    assert list(engine.exports) == ["left", "chain"]
    assert engine.main_export is engine.exports["left"]
    # Each is an average of its own, of the weights that the players moved.
    assert not torch.equal(chain[0].weight, method.networks["left"].weight)
    torch.testing.assert_close(chain[0].weight, engine.exports["left"].weight)


def test_a_part_that_networks_share_trains_with_whichever_of_them_plays():
    method = Shared()
    trunk, tail, idle = (part.weight.clone() for part in (*method.networks["right"], method.networks["hand"][1]))
    play(method, loader(2))
    assert not torch.equal(trunk, method.networks["hand"][0].weight)
    assert not torch.equal(tail, method.networks["right"][1].weight)
    assert torch.equal(idle, method.networks["hand"][1].weight)


def test_an_export_of_weights_that_no_network_holds_is_refused():
    method = Tug()
    method.exports = {"left": nn.Sequential(method.networks["left"], nn.Conv2d(1, 1, 1))}
    with pytest.raises(ValueError, match=r"the export 'left' holds .* which no network of"):
        play(method, loader(1))


def test_a_method_that_exports_nothing_is_refused():
    method = Tug()
    method.exports = {}
    with pytest.raises(ValueError, match="exports nothing"):
        play(method, loader(1))
