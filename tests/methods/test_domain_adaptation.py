"""Domain adaptation of a segmentor: what the discriminator sees, whom its gradient turns, and what is not looked at."""

import pytest
import torch
from torch import Tensor

from pipeline.methods import DomainAdaptation, Segmentation
from pipeline.methods.dann import GradientReversal, domain_loss
from pipeline.networks import UNetSegmentor
from pipeline.networks.domain import merged
from pipeline.networks.unet import LAYERS

MULTI = ("down_2", "down_4", "upcat_3", "upcat_1")


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(0)
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:14, 8:14] = 1
    return {"image": torch.rand(3, 1, 32, 32), "image_A": torch.rand(2, 1, 32, 32), "mask_A": mask}


def method(**settings) -> DomainAdaptation:
    torch.manual_seed(1)
    return DomainAdaptation(UNetSegmentor(filters=4), "A", **{"steps": 10, "hidden": 4, **settings})


def terms(of: DomainAdaptation, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    (player,) = of.players
    return player.loss(batch, of.forward(batch))


def test_the_activations_are_those_that_lead_to_the_logits():
    network = UNetSegmentor(filters=4, widths="doubling").eval()
    image = torch.rand(2, 1, 32, 48)
    features = network.features(image)
    assert {name: each.shape[1] for name, each in features.items()} == network.channels
    assert tuple(features) == LAYERS
    torch.testing.assert_close(network.logits(features), network(image))


def test_activations_of_all_depths_are_brought_to_one_grid():
    fine = torch.arange(16.0).reshape(1, 1, 4, 4)
    coarse = torch.full((1, 2, 1, 1), 7.0)
    brought = merged([fine, coarse], (2, 2))
    assert brought.shape == (1, 3, 2, 2)
    torch.testing.assert_close(brought[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
    assert (brought[0, 1:] == 7).all()


def test_the_domain_loss_is_half_of_equation_9():
    torch.manual_seed(0)
    logits = torch.randn(4, 2, 3, 3)
    of_source = logits.softmax(dim=1)[:, 0]  # D
    equation_9 = -of_source[:2].log().mean() - (1 - of_source[2:]).log().mean()
    torch.testing.assert_close(domain_loss(logits, (2, 2)), equation_9 / 2)


@pytest.mark.parametrize("layers", [("upcat_1",), MULTI])
def test_the_segmentor_climbs_the_loss_that_the_discriminator_descends(layers, batch):
    of = method(layers=layers, weight=0.5)
    reversal = of.D[0]
    assert isinstance(reversal, GradientReversal)
    reversal.step.fill_(10)  # the end of the training

    def gradients() -> tuple[list[Tensor], list[Tensor]]:
        for network in of.networks.values():
            network.zero_grad()
        terms(of, batch)["domain"].backward()
        return tuple(
            [p.grad.clone() for p in network.parameters() if p.grad is not None] for network in of.networks.values()
        )

    against, told = gradients()
    reversal.weight = -0.5  # no reversal
    along, told_again = gradients()
    assert against
    for one, other in zip(against, along, strict=True):
        torch.testing.assert_close(one, -other)
    for one, other in zip(told, told_again, strict=True):
        torch.testing.assert_close(one, other)
    assert any(gradient.any() for gradient in told)


def test_before_the_first_step_it_is_supervised_segmentation_of_the_source(batch):
    of = method()
    of.segmentor.eval()
    assert of.D[0].strength == 0
    found = terms(of, batch)
    alone = Segmentation(of.segmentor).supervise({"image": batch["image_A"], "mask": batch["mask_A"]}, {})
    assert list(found) == ["ce", "dice", "domain"]
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value)


def test_no_mask_of_the_target_is_needed_and_the_segmentor_alone_is_exported(batch):
    assert "mask" not in batch
    of = method(layers=MULTI)
    assert all(term.isfinite() for term in terms(of, batch).values())
    assert list(of.exports.values()) == [of.segmentor]


@pytest.mark.parametrize("layers", [(), ("final",), "upcat_1"])
def test_layers_that_are_none_are_refused(layers):
    with pytest.raises(ValueError, match=r"layers are some of conv_0, down_1, .*, found"):
        method(layers=layers)
