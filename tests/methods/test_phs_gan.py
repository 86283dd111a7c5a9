"""PHS-GAN as the paper writes it: two cycles, and three weighted losses, for networks one can compute by hand.

G(x) = 0.5 x + 0.1, S(x) = σ(4 x − 2), R(x, m) = 0.8 x + 0.3 m + 0.05, D_x(x) = 2 x − 0.3, D_m(m) = 3 m + 0.2.
"""
# ruff: noqa: N802  (the papers' symbols)

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import PairedPHSGAN, UnpairedPHSGAN


def affine(*weights: float, bias: float) -> nn.Conv2d:
    """A 1×1 convolution: Σ weight · channel + bias."""
    network = nn.Conv2d(len(weights), 1, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor(weights).view(1, -1, 1, 1))
        network.bias.fill_(bias)  # type: ignore[union-attr]
    return network


def networks() -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    return affine(0.5, bias=0.1), affine(0.8, 0.3, bias=0.05), affine(4, bias=-2), affine(2, bias=-0.3)


def paired(**options: Any) -> PairedPHSGAN:
    return PairedPHSGAN(*networks(), **options)


def unpaired(**options: Any) -> UnpairedPHSGAN:
    return UnpairedPHSGAN(*networks(), affine(3, bias=0.2), **options)


both = pytest.mark.parametrize("method", [paired(), unpaired()], ids=["paired", "unpaired"])


def batch() -> dict[str, Tensor]:
    """Without masks: neither setting needs both kinds."""
    random = torch.Generator().manual_seed(0)
    return {key: torch.rand(2, 1, 3, 3, generator=random) for key in ("image", "healthy")}


def masks(seed: int) -> Tensor:
    return (torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(seed)) > 0.6).float()


def G(x: Tensor) -> Tensor:
    return 0.5 * x + 0.1


def R(x: Tensor, m: Tensor) -> Tensor:
    return 0.8 * x + 0.3 * m + 0.05


def S(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(2 - 4 * x))


def D_x(x: Tensor) -> Tensor:
    return 2 * x - 0.3


def D_m(m: Tensor) -> Tensor:
    return 3 * m + 0.2


def half_square(x: Tensor) -> Tensor:
    return (x**2).mean() / 2


def reached(method: PairedPHSGAN | UnpairedPHSGAN, terms: Mapping[str, Tensor], *named: str) -> set[str]:
    """Which networks receive a gradient from these terms."""
    for network in method.networks.values():
        network.zero_grad()
    torch.stack([terms[name] for name in named]).sum().backward(retain_graph=True)
    return {
        key
        for key, network in method.networks.items()
        if any(p.grad is not None and p.grad.any() for p in network.parameters())
    }


@both
def test_cycle_p_h_leads_to_healthy_and_with_the_segmented_mask_back(method):
    data = batch()
    shared, x_p = method.forward(data), data["image"]
    torch.testing.assert_close(shared["x̃_h"], G(x_p))
    torch.testing.assert_close(shared["m̃_p logits"].sigmoid(), S(x_p))
    torch.testing.assert_close(shared["x̂_p"], R(G(x_p), S(x_p)))


@both
def test_cycle_h_h_starts_with_a_black_mask_and_returns_both(method):
    data = batch()
    shared, x_h = method.forward(data), data["healthy"]
    fake = 0.8 * x_h + 0.05
    torch.testing.assert_close(shared["x̃'_h"], fake)
    torch.testing.assert_close(shared["m̂_h"], S(fake))
    torch.testing.assert_close(shared["x̂_h"], G(fake))


@pytest.mark.parametrize(("make", "lambda1"), [(paired, 10), (unpaired, 10)])
def test_cycle_consistency_is_three_mean_absolute_errors(make, lambda1):
    method = make()
    data = {**batch(), "mask": masks(1)}
    x_p, x_h = data["image"], data["healthy"]
    fake = R(x_h, torch.zeros_like(x_h))
    expected = (R(G(x_p), S(x_p)) - x_p).abs().mean() + (G(fake) - x_h).abs().mean() + S(fake).mean()
    terms = method.translate(data, method.forward(data))
    torch.testing.assert_close(terms["cycle"], lambda1 * expected)


@pytest.mark.parametrize(("make", "lambda2"), [(paired, 1), (unpaired, 2)])
def test_the_translators_want_the_fakes_of_both_cycles_taken_for_healthy(make, lambda2):
    method = make()
    data = {**batch(), "mask": masks(1)}
    fake = R(data["healthy"], torch.zeros_like(data["healthy"]))
    expected = half_square(D_x(G(data["image"])) - 1) + half_square(D_x(fake) - 1)
    terms = method.translate(data, method.forward(data))
    torch.testing.assert_close(terms["gan1"], lambda2 * expected)


@both
def test_d_x_tells_healthy_images_from_the_fakes_of_each_cycle(method):
    data = batch()
    fake = R(data["healthy"], torch.zeros_like(data["healthy"]))
    terms = method.discriminate_images(data, method.forward(data))
    real = half_square(D_x(data["healthy"]) - 1)
    assert list(terms) == ["ph", "hh"]
    torch.testing.assert_close(terms["ph"], real + half_square(D_x(G(data["image"]))))
    torch.testing.assert_close(terms["hh"], real + half_square(D_x(fake)))


def test_paired_the_segmentor_is_held_to_the_patients_own_mask_by_dice():
    method, data = paired(), {**batch(), "mask": masks(1)}
    m, p = data["mask"], S(data["image"])
    pixels = (1, 2, 3)
    dice = 2 * (m * p).sum(pixels) / (m.sum(pixels) + p.sum(pixels))
    terms = method.translate(data, method.forward(data))
    assert list(terms) == ["cycle", "gan1", "seg"]
    torch.testing.assert_close(terms["seg"], 10 * (1 - dice).mean(), rtol=1e-4, atol=1e-4)


def test_unpaired_s_wants_d_m_to_take_its_masks_for_real():
    method, data = unpaired(), batch()
    terms = method.translate(data, method.forward(data))
    assert list(terms) == ["cycle", "gan1", "gan2"]
    torch.testing.assert_close(terms["gan2"], 10 * half_square(D_m(S(data["image"])) - 1))


def test_unpaired_d_m_tells_the_masks_of_others_from_those_of_s():
    method, data = unpaired(), {**batch(), "other_mask": masks(2)}
    terms = method.discriminate_masks(data, method.forward(data))
    expected = half_square(D_m(data["other_mask"]) - 1) + half_square(D_m(S(data["image"])))
    assert list(terms) == ["gan2"]
    torch.testing.assert_close(terms["gan2"], expected)


@pytest.mark.parametrize("make", [paired, unpaired])
def test_each_lambda_weighs_its_own_loss(make):
    data = {**batch(), "mask": masks(1)}

    def terms(*lambdas: float) -> list[float]:
        method = make(lambdas=lambdas)
        return [value.item() for value in method.translate(data, method.forward(data)).values()]

    ones = terms(1, 1, 1)
    assert terms(2, 3, 5) == pytest.approx([2 * ones[0], 3 * ones[1], 5 * ones[2]])


def test_the_defaults_are_the_papers():
    assert (paired().lambda1, paired().lambda2, paired().lambda3) == (10, 1, 10)
    assert (unpaired().lambda1, unpaired().lambda2, unpaired().lambda3) == (10, 2, 10)


def test_paired_never_reads_the_masks_of_others():
    method = paired()
    clean = {**batch(), "mask": masks(1)}
    poisoned = {**clean, "other_mask": torch.full_like(clean["mask"], torch.nan)}
    for player in method.players:
        without = player.loss(clean, method.forward(clean))
        torch.testing.assert_close(player.loss(poisoned, method.forward(poisoned)), without)


def test_unpaired_never_reads_the_patients_own_mask():
    method = unpaired()
    clean = {**batch(), "other_mask": masks(2)}
    poisoned = {**clean, "mask": torch.full_like(clean["other_mask"], torch.nan)}
    for player in method.players:
        without = player.loss(clean, method.forward(clean))
        torch.testing.assert_close(player.loss(poisoned, method.forward(poisoned)), without)


def test_discriminators_play_before_the_translators():
    assert [player.name for player in paired().players] == ["image_discriminator", "translators"]
    assert [player.name for player in unpaired().players] == [
        "image_discriminator",
        "mask_discriminator",
        "translators",
    ]
    assert (
        paired().players[-1].networks == unpaired().players[-1].networks == ("generator", "reconstructor", "segmentor")
    )


def test_each_loss_reaches_the_networks_that_the_paper_minimises_it_over():
    method, data = paired(), {**batch(), "mask": masks(1)}
    terms = method.translate(data, method.forward(data))
    assert reached(method, terms, "cycle") == {"generator", "reconstructor", "segmentor"}
    assert reached(method, terms, "gan1") == {"generator", "reconstructor", "image_discriminator"}
    assert reached(method, terms, "seg") == {"segmentor"}
    without_masks = unpaired()
    terms = without_masks.translate(data, without_masks.forward(data))
    assert reached(without_masks, terms, "gan2") == {"segmentor", "mask_discriminator"}


def test_each_discriminator_learns_from_its_own_loss_alone():
    method, data = unpaired(), {**batch(), "other_mask": masks(2)}
    shared = method.forward(data)
    assert reached(method, method.discriminate_images(data, shared), "ph", "hh") == {"image_discriminator"}
    assert reached(method, method.discriminate_masks(data, shared), "gan2") == {"mask_discriminator"}


@both
def test_the_way_back_is_r_with_the_mask_of_s(method):
    x_h, x_p = batch()["healthy"], batch()["image"]
    torch.testing.assert_close(method.exports["cycle"](x_h, x_p), R(x_h, S(x_p)))


def test_users_run_g():
    for plays in (paired(), unpaired()):
        assert next(iter(plays.exports.values())) is plays.networks["generator"]
