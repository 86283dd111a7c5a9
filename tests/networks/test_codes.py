"""InfoGAN's codes: what of the noise is one, and what is read."""

import torch
from torch import nn

from pipeline.networks import CodedGenerator, CodeReader


def test_the_first_numbers_are_one_category_and_the_rest_stay() -> None:
    seen = []

    class Generator(nn.Module):
        def forward(self, noise: torch.Tensor) -> torch.Tensor:
            seen.append(noise)
            return noise[:, :1, None, None]

    noise = torch.tensor([[0.1, 0.7, -3.0, 5.0, -6.0], [2.0, 0.0, 1.9, 0.5, 0.25]])
    CodedGenerator(Generator(), 3)(noise)
    CodedGenerator(Generator(), 0)(noise)
    assert seen[0].tolist() == [[0, 1, 0, 5.0, -6.0], [1, 0, 0, 0.5, 0.25]]
    assert torch.equal(seen[1], noise)


def test_categories_of_normal_noise_are_equally_likely() -> None:
    torch.manual_seed(0)
    drawn = CodedGenerator(nn.Unflatten(1, (6, 1, 1)), 4)(torch.randn(4000, 6))[:, :4, 0, 0]
    torch.testing.assert_close(drawn.mean(dim=0), torch.full((4,), 0.25), atol=0.02, rtol=0)


def test_a_reader_gives_logits_and_means() -> None:
    logits, means = CodeReader(7, 4, 2)(torch.rand(3, 7))
    assert logits.shape == (3, 4)
    assert means.shape == (3, 2)
