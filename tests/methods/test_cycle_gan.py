"""CycleGAN as the paper writes it, for networks one can compute by hand.

G(x) = 0.5 x + 0.1, F(x) = 0.9 x − 0.05, D_h(x) = 2 x − 0.3, D_p(x) = 0.2 − x.
"""
# ruff: noqa: N802  (the papers' symbols)

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import CycleGAN, ImagePool


class Affine(nn.Module):
    """Counts its calls, too."""

    def __init__(self, slope: float, shift: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))
        self.shift = shift
        self.calls = 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        return self.slope * image + self.shift


class Constant(nn.Module):
    """A pool that has seen nothing but images of one value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.asked: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(images)
        return torch.full_like(images, self.value)


def none_stored() -> ImagePool:
    return ImagePool(size=0)


def method(pools: tuple[nn.Module, nn.Module] | None = None, **options: Any) -> CycleGAN:
    return CycleGAN(
        Affine(0.5, 0.1),
        Affine(0.9, -0.05),
        Affine(2.0, -0.3),
        Affine(-1.0, 0.2),
        *(pools or (none_stored(), none_stored())),  # type: ignore[arg-type]
        **options,
    )


def batch() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {key: torch.rand(3, 1, 2, 2, generator=random) for key in ("image", "healthy")}


def G(x: Tensor) -> Tensor:
    return 0.5 * x + 0.1


def F(x: Tensor) -> Tensor:
    return 0.9 * x - 0.05


def D_h(x: Tensor) -> Tensor:
    return 2 * x - 0.3


def D_p(x: Tensor) -> Tensor:
    return 0.2 - x


def square(x: Tensor) -> Tensor:
    return (x**2).mean()


def absolute(x: Tensor) -> Tensor:
    return x.abs().mean()


def test_both_cycles_go_there_and_back():
    data = batch()
    shared, x_p, x_h = method().forward(data), data["image"], data["healthy"]
    torch.testing.assert_close(shared, {"x̃_h": G(x_p), "x̂_p": F(G(x_p)), "x̃_p": F(x_h), "x̂_h": G(F(x_h))})


def test_the_generators_terms_are_the_papers():
    plays, data = method(), batch()
    x_p, x_h = data["image"], data["healthy"]
    terms = plays.translate(data, plays.forward(data))
    assert list(terms) == ["gan", "cycle", "identity"]
    torch.testing.assert_close(terms["gan"], square(D_h(G(x_p)) - 1) + square(D_p(F(x_h)) - 1))
    torch.testing.assert_close(terms["cycle"], 10 * (absolute(F(G(x_p)) - x_p) + absolute(G(F(x_h)) - x_h)))
    torch.testing.assert_close(terms["identity"], 0.5 * 10 * (absolute(G(x_h) - x_h) + absolute(F(x_p) - x_p)))


def test_the_discriminators_losses_are_halved():
    plays, data = method(), batch()
    x_p, x_h = data["image"], data["healthy"]
    terms = plays.discriminate(data, plays.forward(data))
    assert list(terms) == ["h", "p"]
    torch.testing.assert_close(terms["h"], (square(D_h(x_h) - 1) + square(D_h(G(x_p)))) / 2)
    torch.testing.assert_close(terms["p"], (square(D_p(x_p) - 1) + square(D_p(F(x_h)))) / 2)


def test_lambda_weighs_cycle_and_identity_and_lambda_gan_the_game():
    data = batch()

    def terms(**options: Any) -> dict[str, float]:
        plays = method(**options)
        return {name: value.item() for name, value in plays.translate(data, plays.forward(data)).items()}

    once, other = terms(lambda_=1, identity=1, lambda_gan=1), terms(lambda_=3, identity=0.25, lambda_gan=7)
    assert other["gan"] == pytest.approx(7 * once["gan"])
    assert other["cycle"] == pytest.approx(3 * once["cycle"])
    assert other["identity"] == pytest.approx(0.25 * 3 * once["identity"])


def test_the_identity_loss_can_be_switched_off_and_then_costs_nothing():
    plays, data = method(identity=0), batch()
    terms = plays.translate(data, plays.forward(data))
    assert list(terms) == ["gan", "cycle"]
    # Once there and once back.
    assert plays.networks["healthy_generator"].calls == 2
    assert plays.networks["pathological_generator"].calls == 2


def test_the_pools_are_shown_to_the_discriminators():
    pools = Constant(0.7), Constant(0.9)
    plays, data = method(pools), batch()
    shared = plays.forward(data)
    terms = plays.discriminate(data, shared)
    assert [pool.asked for pool in pools] == [[shared["x̃_h"]], [shared["x̃_p"]]]
    # D_h(0.7) = 1.1 and D_p(0.9) = −0.7.
    torch.testing.assert_close(terms["h"], (square(D_h(data["healthy"]) - 1) + 1.1**2) / 2)
    torch.testing.assert_close(terms["p"], (square(D_p(data["image"]) - 1) + 0.7**2) / 2)


def test_the_generators_play_for_their_newest_images_only():
    pools = Constant(0.7), Constant(0.9)
    with_pools, without, data = method(pools), method(), batch()
    terms = with_pools.translate(data, with_pools.forward(data))
    assert not any(pool.asked for pool in pools)
    torch.testing.assert_close(terms, without.translate(data, without.forward(data)))


def test_real_pools_keep_what_was_made():
    pools = ImagePool(5, (1, 2, 2)), ImagePool(5, (1, 2, 2))
    plays, data = method(pools), batch()
    plays.discriminate(data, plays.forward(data))
    assert [int(pool.count) for pool in pools] == [3, 3]
    torch.testing.assert_close(pools[0].images[:3], G(data["image"]))
    torch.testing.assert_close(pools[1].images[:3], F(data["healthy"]))


def test_the_pools_are_kept_in_checkpoints():
    assert {"healthy_pool", "pathological_pool"} < set(method().networks)


def test_no_mask_is_read():
    plays, data = method(), batch()
    assert set(data) == {"image", "healthy"}
    for player in plays.players:
        assert all(value.isfinite() for value in player.loss(data, plays.forward(data)).values())


def test_the_generators_play_first_and_together():
    assert [(player.name, player.networks) for player in method().players] == [
        ("generators", ("healthy_generator", "pathological_generator")),
        ("discriminators", ("healthy_discriminator", "pathological_discriminator")),
    ]


def test_the_discriminators_leave_the_generators_without_gradients():
    plays, data = method(), batch()
    torch.stack(list(plays.discriminate(data, plays.forward(data)).values())).sum().backward()
    grads = {name: net.slope.grad is not None for name, net in plays.networks.items() if isinstance(net, Affine)}
    assert grads == {
        "healthy_generator": False,
        "pathological_generator": False,
        "healthy_discriminator": True,
        "pathological_discriminator": True,
    }


@pytest.mark.parametrize("translation", ["x̃_h", "x̃_p"])
def test_each_generator_answers_to_the_discriminator_of_its_own_domain(translation):
    plays, data = method(), batch()
    shared = plays.forward(data)
    other = {**shared, translation: shared[translation] + 0.1}
    # Only that translation's own discriminator changes its mind; the cycle's losses are given by the ways back.
    D, x = (D_h, G(data["image"])) if translation == "x̃_h" else (D_p, F(data["healthy"]))
    before, after = plays.translate(data, shared), plays.translate(data, other)
    torch.testing.assert_close(after["gan"] - before["gan"], square(D(x + 0.1) - 1) - square(D(x) - 1))
    torch.testing.assert_close(after["cycle"], before["cycle"])


def test_users_run_g_and_the_way_back_looks_at_nothing_but_its_output():
    plays, data = method(), batch()
    assert next(iter(plays.exports.values())) is plays.networks["healthy_generator"]
    back = plays.exports["cycle"](data["healthy"], torch.full_like(data["image"], torch.nan))
    torch.testing.assert_close(back, F(data["healthy"]))
