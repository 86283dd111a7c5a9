"""GVS as the paper plays it: Step A, then Step B, on one forward pass of the generator."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam
from torch.utils.data import DataLoader

from pipeline.losses import difference_weights
from pipeline.methods import GVS
from pipeline.networks import JohnsonGenerator, UNetSegmentor
from pipeline.training import PlayerTrainer

SAMPLES = 4


def gvs(**options: Any) -> GVS:
    torch.manual_seed(0)
    return GVS(JohnsonGenerator(filters=4, residual_blocks=1), UNetSegmentor(filters=4), **options)


def batch(samples: int = SAMPLES) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    mask = torch.zeros(samples, 1, 32, 32)
    mask[..., 8:16, 8:20] = 1
    return {"image": torch.rand(samples, 1, 32, 32, generator=random), "mask": mask}


def trainer(method: GVS, batches: int = 1) -> PlayerTrainer:
    data = batch(SAMPLES * batches)
    samples = [{key: value[place] for key, value in data.items()} for place in range(SAMPLES * batches)]
    return PlayerTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=DataLoader(samples, batch_size=SAMPLES),  # type: ignore[arg-type]
        method=method,
        optimizers={
            name: Adam(method.networks[name].parameters(), lr=1e-3, betas=(0.9, 0.99))
            for name in ("segmentor", "generator")
        },
    )


def weights(method: GVS) -> dict[str, dict[str, Tensor]]:
    return copy.deepcopy({name: network.state_dict() for name, network in method.networks.items()})


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def test_step_a_comes_first_and_updates_only_s_then_step_b_updates_only_g():
    method = gvs()
    engine = trainer(method)
    steps = []
    for name, optimizer in engine.optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, name=name: steps.append((name, weights(method))))
        optimizer.register_step_post_hook(lambda *_, name=name: steps.append((name, weights(method))))
    engine.run()
    names = [name for name, _ in steps]
    (before_a, after_a), (before_b, after_b) = (
        [state for _, state in steps[:2]],
        [state for _, state in steps[2:]],
    )
    assert names == ["segmentor", "segmentor", "generator", "generator"]
    assert not same(before_a["segmentor"], after_a["segmentor"])
    assert same(before_a["generator"], after_a["generator"])
    assert not same(before_b["generator"], after_b["generator"])
    assert same(before_b["segmentor"], after_b["segmentor"])


def test_step_b_plays_against_the_segmentor_that_step_a_has_just_updated():
    method = gvs()
    G, S = copy.deepcopy(method.networks["generator"]), copy.deepcopy(method.networks["segmentor"])
    engine = trainer(method)
    engine.run()
    x_s = G(batch()["image"]).detach()
    against_updated, against_old = (
        functional.binary_cross_entropy_with_logits(segmentor(x_s), torch.zeros_like(x_s))
        for segmentor in (method.networks["segmentor"], S)
    )
    torch.testing.assert_close(engine.state.output["generator/s2"], against_updated.detach())
    assert not torch.allclose(against_updated, against_old, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"real_in_step_a": True, "residual_region": "normal"}])
def test_the_generator_runs_once_an_iteration(options):
    method = gvs(**options)
    calls = []
    method.networks["generator"].register_forward_hook(lambda *_: calls.append(1))
    trainer(method, batches=3).run()
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("difference_aware", "region", "real"),
    [(True, "whole", False), (False, "whole", False), (True, "normal", True)],
)
def test_the_engine_does_what_a_bare_loop_over_the_papers_equations_does(difference_aware, region, real):
    method = gvs(difference_aware=difference_aware, residual_region=region, real_in_step_a=real)
    G, S = copy.deepcopy(method.networks["generator"]), copy.deepcopy(method.networks["segmentor"])
    trainer(method, batches=3).run()

    optimizer_S = Adam(S.parameters(), lr=1e-3, betas=(0.9, 0.99))
    optimizer_G = Adam(G.parameters(), lr=1e-3, betas=(0.9, 0.99))
    data = batch(3 * SAMPLES)
    for first in range(0, 3 * SAMPLES, SAMPLES):
        x_p, y_t = (data[key][first : first + SAMPLES] for key in ("image", "mask"))
        x_s = G(x_p)
        w = difference_weights(x_p, x_s) if difference_aware else torch.ones_like(x_p)
        loss = functional.binary_cross_entropy_with_logits(S(x_s.detach()), y_t, weight=w)
        if real:
            loss = loss + functional.binary_cross_entropy_with_logits(S(x_p), y_t)
        optimizer_S.zero_grad()
        loss.backward()
        optimizer_S.step()
        squared = (x_p - x_s) ** 2
        if region == "normal":
            squared = (squared * (1 - y_t)).sum((1, 2, 3)) / (1 - y_t).sum((1, 2, 3))
        loss = functional.binary_cross_entropy_with_logits(S(x_s), torch.zeros_like(y_t)) + 10.0 * squared.mean()
        optimizer_G.zero_grad()
        loss.backward()
        optimizer_G.step()

    assert same(method.networks["segmentor"].state_dict(), S.state_dict())
    assert same(method.networks["generator"].state_dict(), G.state_dict())


def test_basic_gvs_weighs_every_pixel_one():
    method, data = gvs(difference_aware=False), batch()
    x_s = torch.rand_like(data["image"])
    terms = method.step_a(data, {"x_s": x_s})
    plain = functional.binary_cross_entropy_with_logits(method.networks["segmentor"](x_s), data["mask"])
    assert list(terms) == ["s1"]
    torch.testing.assert_close(terms["s1"], plain)


def test_the_difference_aware_loss_asks_less_of_well_transformed_pixels():
    method, data = gvs(), batch()
    x_s = data["image"] * (1 - data["mask"])
    aware = method.step_a(data, {"x_s": x_s})["wce"]
    basic = gvs(difference_aware=False).step_a(data, {"x_s": x_s})["s1"]
    assert aware < 0.7 * basic


def test_the_real_scan_is_shown_unweighted_in_step_a_if_asked_for():
    method, data = gvs(real_in_step_a=True), batch()
    terms = method.step_a(data, {"x_s": torch.rand_like(data["image"])})
    plain = functional.binary_cross_entropy_with_logits(method.networks["segmentor"](data["image"]), data["mask"])
    assert list(terms) == ["wce", "real"]
    torch.testing.assert_close(terms["real"], plain)


def test_step_a_sends_no_gradient_to_the_generator():
    method, data = gvs(), batch()
    shared = method.forward(data)
    torch.stack(list(method.step_a(data, shared).values())).sum().backward()
    assert all(parameter.grad is None for parameter in method.networks["generator"].parameters())


def test_lambda_weighs_the_residual_loss_of_step_b():
    data = batch()
    shared = {"x_s": (data["image"] + 0.1).requires_grad_()}
    assert float(gvs().step_b(data, shared)["residual"]) == pytest.approx(10 * 0.01, rel=1e-4)
    assert float(gvs(lambda_=50).step_b(data, shared)["residual"]) == pytest.approx(50 * 0.01, rel=1e-4)


def test_outside_the_lesion_only_a_changed_lesion_costs_nothing():
    data = batch()
    shared = {"x_s": data["image"] + 0.5 * data["mask"]}
    assert float(gvs(residual_region="normal").step_b(data, shared)["residual"]) == 0
    assert float(gvs().step_b(data, shared)["residual"]) > 0


@pytest.mark.parametrize("lambda_", [0, -1, float("nan"), float("inf")])
def test_lambda_must_be_above_zero(lambda_):
    with pytest.raises(ValueError, match="lambda must be a number above 0"):
        gvs(lambda_=lambda_)


def test_an_unknown_region_is_refused():
    with pytest.raises(ValueError, match="'lesion'"):
        gvs(residual_region="lesion")
