"""ANT-GAN: all that CycleGAN plays for, and a squared error over normal tissue."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import ANTGAN, CycleGAN, ImagePool
from pipeline.networks import JohnsonGenerator


def parts() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "healthy_generator": nn.Conv2d(1, 1, 1),
        "pathological_generator": nn.Conv2d(1, 1, 1),
        "healthy_discriminator": nn.Conv2d(1, 1, 1),
        "pathological_discriminator": nn.Conv2d(1, 1, 1),
        "healthy_pool": ImagePool(size=0),
        "pathological_pool": ImagePool(size=0),
    }


def batch() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, ..., :2, :] = 1  # half of the first slice
    mask[1, ..., 0, 0] = 1  # a sixteenth of the second
    return {**{key: torch.rand(2, 1, 4, 4, generator=random) for key in ("image", "healthy")}, "mask": mask}


def normal(change: Tensor, **options: Any) -> float:
    """The term where G changed its input by so much."""
    plays, data = ANTGAN(**parts(), **options), batch()
    shared = {**plays.forward(data), "x̃_h": data["image"] + change}
    return plays.translate(data, shared)["normal"].item()


def test_a_changed_lesion_costs_nothing():
    assert normal(5 * batch()["mask"]) == 0


def test_changed_normal_tissue_costs_its_mean_square_whatever_its_share_of_the_slice():
    assert normal(0.3 * (1 - batch()["mask"])) == pytest.approx(10 * 0.09)
    first_slice_only = 0.3 * (1 - batch()["mask"])
    first_slice_only[1] = 0
    assert normal(first_slice_only) == pytest.approx(10 * 0.09 / 2)


def test_the_cost_grows_with_the_square_of_the_change():
    assert normal(torch.full((2, 1, 4, 4), 0.2)) == pytest.approx(4 * normal(torch.full((2, 1, 4, 4), -0.1)))


def test_lambda_normal_weighs_it():
    assert normal(torch.full((2, 1, 4, 4), 0.1), lambda_normal=70) == pytest.approx(70 * 0.01)


def test_a_slice_that_is_all_lesion_costs_nothing():
    plays, data = ANTGAN(**parts()), {**batch(), "mask": torch.ones(2, 1, 4, 4)}
    assert plays.translate(data, plays.forward(data))["normal"].item() == 0


def test_all_else_is_cyclegan():
    data = batch()
    ant, cycle = ANTGAN(**parts(), lambda_=3, identity=0.1), CycleGAN(**parts(), lambda_=3, identity=0.1)
    terms = ant.translate(data, ant.forward(data))
    assert list(terms) == ["gan", "cycle", "identity", "normal"]
    for name, value in cycle.translate(data, cycle.forward(data)).items():
        torch.testing.assert_close(terms[name], value)
    torch.testing.assert_close(ant.discriminate(data, ant.forward(data)), cycle.discriminate(data, cycle.forward(data)))
    assert [(p.name, p.networks) for p in ant.players] == [(p.name, p.networks) for p in cycle.players]


def test_the_discriminators_and_the_other_masks_know_nothing_of_it():
    plays, data = ANTGAN(**parts()), batch()
    assert "other_mask" not in data
    without = {key: value for key, value in data.items() if key != "mask"}
    torch.testing.assert_close(
        plays.discriminate(without, plays.forward(without)), plays.discriminate(data, plays.forward(data))
    )


def test_it_reaches_the_way_to_healthy_alone():
    plays, data = ANTGAN(**parts()), batch()
    plays.translate(data, plays.forward(data))["normal"].backward()
    reached = {name for name, net in plays.networks.items() if any(p.grad is not None for p in net.parameters())}
    assert reached == {"healthy_generator"}


def test_the_shortcut_starts_from_the_input():
    # tanh(f(x) + x) on [−1, 1]: a last layer of zero leaves tanh(x).
    G = JohnsonGenerator(filters=2, residual_blocks=1, output="shortcut")
    nn.init.zeros_(G.last.weight)
    nn.init.zeros_(G.last.bias)
    x = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    torch.testing.assert_close(2 * G(x) - 1, torch.tanh(2 * x - 1))


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="lambda_norm"):
        ANTGAN(**parts(), lambda_norm=1)
