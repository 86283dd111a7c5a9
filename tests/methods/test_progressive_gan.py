"""Progressive growing as a training: when each size is faded in, when it holds, and what is compared."""

import pytest
import torch

from pipeline.methods import ProgressiveGAN
from pipeline.methods.progressive_gan import Growth
from pipeline.networks import ProgressiveDiscriminator, ProgressiveGenerator

SIZE, FILTERS = (16, 16), (4, 4, 3)


def method(iterations: int = 10, **settings: object) -> ProgressiveGAN:
    torch.manual_seed(0)
    with_deviation = settings.get("objective") != "wasserstein_gp"
    D = ProgressiveDiscriminator(SIZE, FILTERS, minibatch_deviation=with_deviation)
    return ProgressiveGAN(ProgressiveGenerator(5, SIZE, FILTERS), D, 5, iterations, **settings)  # type: ignore[arg-type]


def test_each_size_is_faded_in_and_held_for_as_long_as_the_others() -> None:
    growth = Growth(finest=2, iterations=20)
    course = []
    for _ in range(23):
        course.append(growth.grown)
        growth.advance()
    assert course == [0, 0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1.25, 1.5, 1.75, *[2] * 7]


def test_a_step_of_the_discriminator_is_an_iteration_and_both_networks_grow_with_it() -> None:
    trained, batch = method(iterations=5, critic_steps=3), {"image": torch.rand(2, 1, *SIZE)}
    discriminator, generator = trained.players
    for expected in (0.0, 0.0, 1.0, 1.0, 2.0):
        trained.forward(batch)
        assert float(trained.G.grown) == float(trained.D.grown) == expected
        assert discriminator.after_step is not None
        discriminator.after_step()
        assert generator.after_step is None


def test_growth_is_kept_with_the_networks() -> None:
    trained, other = method(), method()
    for _ in range(4):
        trained.growth.advance()
    other.networks["growth"].load_state_dict(trained.networks["growth"].state_dict())
    assert other.growth.grown == trained.growth.grown == 1


def test_real_images_are_as_detailed_as_made_ones() -> None:
    trained, batch = method(), {"image": torch.rand(2, 1, *SIZE)}
    trained.forward(batch)
    assert torch.equal(trained.real(batch), trained.D.shown(batch["image"]))
    assert len(trained.real(batch)[0].unique()) == 16  # 4×4 pixels


def test_clipping_goes_on() -> None:
    trained = method(objective="wasserstein")
    after_step = trained.players[0].after_step
    assert after_step is not None
    after_step()
    assert max(float(weight.detach().abs().max()) for weight in trained.D.parameters()) <= 0.01 + 1e-6
    assert int(trained.growth.iteration) == 1


@pytest.mark.parametrize("objective", ["non_saturating", "wasserstein_gp"])
def test_both_players_have_losses_with_gradients(objective: str) -> None:
    trained, batch = method(objective=objective), {"image": torch.rand(3, 1, *SIZE)}
    for player in trained.players:
        terms = player.loss(batch, trained.forward(batch))
        sum(terms.values()).backward()
        assert any(
            weight.grad is not None for name in player.networks for weight in trained.networks[name].parameters()
        )


def test_no_iterations_are_refused() -> None:
    with pytest.raises(ValueError, match="iterations is 0"):
        method(0)
