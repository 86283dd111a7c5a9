"""InfoGAN: codes are drawn with the noise, read from the image, and what reads them plays with the generator."""

import math

import pytest
import torch
from torch import nn

from pipeline.methods import InfoGAN
from pipeline.networks import CodedGenerator, CodeReader
from pipeline.networks.dcgan import DCGANDiscriminator, DCGANGenerator

BATCH = {"image": torch.rand(4, 1, 16, 16)}


def method(categories: int = 3, numbers: int = 2, **settings: float) -> InfoGAN:
    torch.manual_seed(0)
    D = DCGANDiscriminator((16, 16), 4)
    G = CodedGenerator(DCGANGenerator(6, (16, 16), 4), categories)
    return InfoGAN(G, D, CodeReader(D.feature_size, categories, numbers), 6, numbers, **settings)  # type: ignore[arg-type]


def test_the_terms_are_minus_log_q_of_the_codes_that_were_drawn() -> None:
    gan = method(weight=2.0)
    shared = gan.forward(BATCH)
    read, codes = gan.networks["reader"](gan.networks["discriminator"].features(shared["x_s"])), shared["z"]
    terms = gan.generate(BATCH, shared)
    chosen = read[0].log_softmax(1)[torch.arange(4), codes[:, :3].argmax(1)]
    torch.testing.assert_close(terms["category"], -2 * chosen.mean())
    # Of a unit Gaussian, without its constant.
    gaussian = torch.distributions.Normal(read[1], 1.0).log_prob(codes[:, 3:5]).sum(1).mean() + math.log(2 * math.pi)
    torch.testing.assert_close(terms["numbers"], -2 * gaussian)


def test_the_reader_plays_with_the_generator_and_the_discriminator_alone() -> None:
    gan = method()
    assert [player.networks for player in gan.players] == [("discriminator",), ("generator", "reader")]
    assert set(gan.discriminate(BATCH, gan.forward(BATCH))) == {"gan"}
    terms = gan.generate(BATCH, gan.forward(BATCH))
    (terms["category"] + terms["numbers"]).backward()
    for name in ("generator", "reader"):
        assert all(weight.grad is not None for weight in gan.networks[name].parameters())


@pytest.mark.parametrize(("categories", "numbers", "left"), [(0, 2, "numbers"), (3, 0, "category")])
def test_codes_may_be_of_one_kind(categories: int, numbers: int, left: str) -> None:
    gan = method(categories, numbers)
    assert set(gan.generate(BATCH, gan.forward(BATCH))) == {"gan", left}


def test_images_come_to_show_a_code_that_can_be_read() -> None:
    """With λ far above the game, so that the reading is learned in few steps."""
    gan = method(numbers=0, weight=50.0)
    optimizer = torch.optim.Adam([w for name in ("generator", "reader") for w in gan.networks[name].parameters()], 3e-3)
    batch = {"image": torch.rand(32, 1, 16, 16)}
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = gan.generate(batch, gan.forward(batch))["category"] / 50
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.9  # of ln 3
    assert losses[-1] < 0.3


@pytest.mark.parametrize(("categories", "numbers"), [(0, 0), (3, 4)])
def test_no_code_and_more_codes_than_noise_are_refused(categories: int, numbers: int) -> None:
    with pytest.raises(ValueError, match="expected at least one code and no more"):
        InfoGAN(CodedGenerator(nn.Identity(), categories), nn.Identity(), CodeReader(1, 1, 1), 6, numbers)
