"""DUIIT as the paper writes it, for networks one can compute by hand.

G(y) = 0.5 y + 0.1, F(x) = 0.9 x − 0.05, D_t(x) = 2 x − 0.3, D_s(y) = 0.2 − y, P(x) = 3 · mean of x; of a second source
each slope is 1.1 times as large.
"""
# ruff: noqa: N802  (the paper's symbols)

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.methods import DUIIT, ImagePools, PredictionLoss

SOURCES = ("MR", "PET")
SHAPE = (1, 2, 2)


class Affine(nn.Module):
    def __init__(self, slope: float, shift: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))
        self.shift = shift

    def forward(self, image: Tensor) -> Tensor:
        return self.slope * image + self.shift


class Mean(nn.Module):
    """Answers with a multiple of each image's mean, or with logits of classes that are multiples of it."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor(factors))
        self.batches: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.batches.append(len(image))
        return self.factors * image.mean(dim=(1, 2, 3))[:, None]


def by_source(sources: tuple[str, ...], slope: float, shift: float) -> nn.ModuleDict:
    return nn.ModuleDict({s: Affine(slope * 1.1**n, shift) for n, s in enumerate(sources)})


def method(
    sources: tuple[str, ...] = ("MR",),
    P: nn.Module | None = None,
    pool: int = 0,
    loss: PredictionLoss | None = None,
    **options: Any,
) -> DUIIT:
    return DUIIT(
        by_source(sources, 0.5, 0.1),  # type: ignore[arg-type]
        by_source(sources, 0.9, -0.05),  # type: ignore[arg-type]
        P or Mean(3.0),
        Affine(2.0, -0.3),
        by_source(sources, -1.0, 0.2),  # type: ignore[arg-type]
        ImagePools(sources, pool, SHAPE),
        ImagePools(sources, pool, SHAPE),
        prediction_loss=loss,
        **options,
    )


def batch(sources: tuple[str, ...] = ("MR",)) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    sample = {"image": torch.rand(3, *SHAPE, generator=random), "target": torch.tensor([[0.0], [1.0], [2.0]])}
    for s in sources:
        sample[f"image_{s}"] = torch.rand(3, *SHAPE, generator=random)
        sample[f"target_{s}"] = torch.rand(3, 1, generator=random)
    return sample


def square(x: Tensor) -> Tensor:
    return (x**2).mean()


def absolute(x: Tensor) -> Tensor:
    return x.abs().mean()


def G(y: Tensor, n: int = 0) -> Tensor:
    return 0.5 * 1.1**n * y + 0.1


def F(x: Tensor, n: int = 0) -> Tensor:
    return 0.9 * 1.1**n * x - 0.05


def D_t(x: Tensor) -> Tensor:
    return 2 * x - 0.3


def D_s(y: Tensor, n: int = 0) -> Tensor:
    return 0.2 - 1.1**n * y


def P(x: Tensor) -> Tensor:
    return 3 * x.mean(dim=(1, 2, 3))[:, None]


def joint(plays: DUIIT, data: dict[str, Tensor]) -> dict[str, Tensor]:
    return plays.translate_and_predict(data, plays.forward(data))


def test_both_ways_there_and_back_of_each_source():
    data = batch(SOURCES)
    shared, x = method(SOURCES).forward(data), data["image"]
    expected = {}
    for n, s in enumerate(SOURCES):
        y = data[f"image_{s}"]
        expected |= {f"G(y) {s}": G(y, n), f"F(G(y)) {s}": F(G(y, n), n)}
        expected |= {f"F(x) {s}": F(x, n), f"G(F(x)) {s}": G(F(x, n), n)}
    torch.testing.assert_close(shared, expected)


def test_equation_1_of_one_source():
    data = batch()
    x, y = data["image"], data["image_MR"]
    terms = joint(method(), data)
    assert list(terms) == ["adv", "cyc", "pred"]  # and no identity loss
    torch.testing.assert_close(terms["adv"], square(D_t(G(y)) - 1) + square(D_s(F(x)) - 1))
    torch.testing.assert_close(terms["cyc"], 10 * (absolute(F(G(y)) - y) + absolute(G(F(x)) - x)))


@pytest.mark.parametrize(("reduction", "of"), [("sum", torch.sum), ("mean", torch.mean)])
def test_equations_2_and_3_over_a_batch(reduction, of):
    data = batch()
    real, translated = P(data["image"]) - data["target"], P(G(data["image_MR"])) - data["target_MR"]
    terms = joint(method(loss=PredictionLoss(reduction=reduction)), data)
    torch.testing.assert_close(terms["pred"], 0.001 * (of(translated**2) + of(real**2)))


def test_the_mean_based_equivalent_of_the_printed_weight_is_it_times_batch_and_squared_deviation():
    printed = joint(method(), batch())["pred"]
    mean = PredictionLoss(reduction="mean", deviation=15)
    equivalent = joint(method(lambdas=(0.001 * 3 * 15**2, 10, 2), loss=mean), batch())["pred"]
    torch.testing.assert_close(equivalent, printed)


def test_classes_are_told_by_cross_entropy():
    data = batch()
    data["target_MR"] = torch.tensor([[2.0], [0.0], [0.0]])
    factors = torch.tensor([1.0, -2.0, 4.0])
    predictor = Mean(*factors.tolist())

    def entropy(image: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(factors * image.mean(dim=(1, 2, 3))[:, None], label[:, 0].long(), reduction="sum")

    terms = joint(method(P=predictor, loss=PredictionLoss("classification")), data)
    expected = entropy(G(data["image_MR"]), data["target_MR"]) + entropy(data["image"], data["target"])
    torch.testing.assert_close(terms["pred"], 0.001 * expected)


def test_several_sources_are_summed_and_each_has_networks_of_its_own_but_for_the_one_judge_of_the_target():
    data = batch(SOURCES)
    x = data["image"]
    terms = joint(method(SOURCES), data)
    adv = cyc = torch.zeros(())
    pred = ((P(x) - data["target"]) ** 2).sum()
    for n, s in enumerate(SOURCES):
        y = data[f"image_{s}"]
        adv = adv + square(D_t(G(y, n)) - 1) + square(D_s(F(x, n), n) - 1)
        cyc = cyc + absolute(F(G(y, n), n) - y) + absolute(G(F(x, n), n) - x)
        pred = pred + ((P(G(y, n)) - data[f"target_{s}"]) ** 2).sum()
    torch.testing.assert_close(terms, {"adv": adv, "cyc": 10 * cyc, "pred": 0.001 * pred})


def test_the_predictor_sees_real_and_translated_images_in_one_batch():
    predictor = Mean(3.0)
    joint(method(SOURCES, predictor), batch(SOURCES))
    assert predictor.batches == [9]


def test_the_discriminators_tell_real_from_translated_images():
    data = batch(SOURCES)
    x = data["image"]
    plays = method(SOURCES)
    terms = plays.discriminate(data, plays.forward(data))
    expected = {}
    for n, s in enumerate(SOURCES):
        y = data[f"image_{s}"]
        expected[f"target_{s}"] = (square(D_t(x) - 1) + square(D_t(G(y, n)))) / 2
        expected[f"source_{s}"] = (square(D_s(y, n) - 1) + square(D_s(F(x, n), n))) / 2
    torch.testing.assert_close(terms, expected)


def test_the_discriminators_are_shown_from_a_buffer_of_each_source_which_checkpoints_keep():
    plays, data = method(SOURCES, pool=5), batch(SOURCES)
    plays.discriminate(data, plays.forward(data))
    assert {"target_pools", "source_pools"} < set(plays.networks)
    for n, s in enumerate(SOURCES):
        torch.testing.assert_close(plays.target_pools[s].images[:3], G(data[f"image_{s}"], n))
        torch.testing.assert_close(plays.source_pools[s].images[:3], F(data["image"], n))
    # Later ones come from the buffer, the joint player's never.
    later = {**data, "image_MR": data["image_MR"] + 1, "image": data["image"] + 1}
    torch.manual_seed(0)
    shown = [plays.target_pools["MR"](G(later["image_MR"])) for _ in range(9)]
    assert any(not torch.equal(image, G(later["image_MR"])) for image in shown)
    torch.testing.assert_close(joint(plays, later), joint(method(SOURCES), later))


def gradients(guided: bool, **options: Any) -> dict[str, float]:
    """Of λ L_pred alone."""
    plays, data = method(guided=guided, **options), batch()
    joint(plays, data)["pred"].backward()
    owners = {"G": plays.G["MR"].slope, "F": plays.F["MR"].slope, "P": plays.P.factors}
    return {name: 0.0 if p.grad is None else float(p.grad.sum()) for name, p in owners.items()}


def test_the_gradient_of_the_prediction_reaches_the_translator_as_its_difference_quotient_says():
    def loss(slope: float) -> float:
        plays = method()
        nn.init.constant_(plays.G["MR"].slope, slope)
        return float(joint(plays, batch())["pred"].detach())

    quotient = (loss(0.5 + 1e-2) - loss(0.5 - 1e-2)) / 2e-2
    assert abs(quotient) > 1e-3
    found = gradients(guided=True)
    assert found["G"] == pytest.approx(quotient, rel=1e-3)
    assert found["F"] == 0  # translations into the source are not predicted from
    assert found["P"] != 0


def test_without_guidance_the_translator_is_cyclegan_s_and_the_predictor_learns_all_the_same():
    found = gradients(guided=False)
    assert (found["G"], found["F"]) == (0, 0)
    assert found["P"] == pytest.approx(gradients(guided=True)["P"])
    data = batch()
    torch.testing.assert_close(joint(method(guided=False), data), joint(method(), data))


def test_weights():
    once, other = (joint(method(lambdas=lambdas), batch()) for lambdas in ((1, 1, 1), (5, 3, 7)))
    for name, factor in (("adv", 7), ("cyc", 3), ("pred", 5)):
        torch.testing.assert_close(other[name], factor * once[name])


def test_translators_and_predictor_play_together_and_users_run_both():
    plays = method(SOURCES)
    assert [(player.name, player.networks) for player in plays.players] == [
        ("translators_and_predictor", ("translators", "back_translators", "predictor")),
        ("discriminators", ("target_discriminator", "source_discriminators")),
    ]
    assert list(plays.exports) == ["predictor", "translators"]
    assert list(plays.exports["translators"]) == list(SOURCES)


@pytest.mark.parametrize(
    ("option", "value"), [("task", "ranking"), ("reduction", "none"), ("deviation", 0.0), ("deviation", float("nan"))]
)
def test_what_is_no_setting_is_refused(option, value):
    with pytest.raises(ValueError, match=f"found {value!r}"):
        PredictionLoss(**{option: value})
