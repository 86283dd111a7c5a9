"""A GAN for each level of the pyramid: each learns from real images, whatever the others make."""

import pytest
import torch
from torch.nn.functional import softplus

from pipeline.methods import LaplacianGAN
from pipeline.networks import LaplacianDiscriminator, LaplacianGenerator
from pipeline.networks.laplacian import taken_apart

SIZE = (16, 16)
LATENT = 11


def method(objective: str = "non_saturating") -> LaplacianGAN:
    torch.manual_seed(0)
    G = LaplacianGenerator(LATENT, SIZE, levels=2, filters=3, coarsest_filters=4)
    return LaplacianGAN(G, LaplacianDiscriminator(SIZE, 2, 3, 4), LATENT, objective)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return {"image": torch.rand(3, 1, *SIZE, generator=torch.Generator().manual_seed(1))}


def test_each_level_has_its_own_game_on_real_images_details(batch) -> None:
    gan = method()
    shared = gan.forward(batch)
    coarsest, pairs = taken_apart(batch["image"], 2)
    terms = gan.discriminate(batch, shared)
    assert list(terms) == ["coarsest", "level 0", "level 1"]
    D = gan.D.coarsest
    expected = softplus(-D(coarsest)).mean() + softplus(D(shared["coarsest"])).mean()
    torch.testing.assert_close(terms["coarsest"], expected)
    for number, (difference, enlarged) in enumerate(pairs):
        level, made = gan.D.levels[number], shared[f"level {number}"]
        expected = softplus(-level(difference, enlarged)).mean() + softplus(level(made, enlarged)).mean()
        torch.testing.assert_close(terms[f"level {number}"], expected)
        torch.testing.assert_close(
            gan.generate(batch, shared)[f"level {number}"], softplus(-level(made, enlarged)).mean()
        )


@pytest.mark.parametrize("name", ["coarsest", "level 0", "level 1"])
def test_a_level_s_loss_moves_that_level_alone(batch, name: str) -> None:
    gan = method()
    gan.generate(batch, gan.forward(batch))[name].backward()
    parts = {"coarsest": gan.G.coarsest, "level 0": gan.G.levels[0], "level 1": gan.G.levels[1]}
    moved = [part for part, network in parts.items() if any(weight.grad is not None for weight in network.parameters())]
    assert moved == [name]


def test_each_level_has_its_gradient_penalty(batch) -> None:
    gan = method("wasserstein_gp")
    terms = gan.discriminate(batch, gan.forward(batch))
    assert [name for name in terms if name.endswith("_penalty")] == [
        "coarsest_penalty", "level 0_penalty", "level 1_penalty"
    ]  # fmt: skip


def test_another_latent_than_the_generator_s_is_refused() -> None:
    G = LaplacianGenerator(LATENT, SIZE, levels=2, filters=3, coarsest_filters=4)
    with pytest.raises(ValueError, match=f"latent is 9, expected the {LATENT}"):
        LaplacianGAN(G, LaplacianDiscriminator(SIZE, 2, 3, 4), 9)
