"""What the engine asks of every method: a new one is tested by being exported, with the networks that it takes."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import pipeline.methods
from pipeline.bundles import list_bundles, read_config
from pipeline.methods import Method

CLASSES = {
    name: value
    for name in pipeline.methods.__all__
    if inspect.isclass(value := getattr(pipeline.methods, name))
    and value is not Method
    and inspect.isfunction(getattr(value, "forward", None))
    and not issubclass(value, nn.Module)
}
# Each method as the first bundle that trains it plays it, or a preset with a method of its own; with small networks.
CONFIGS = {
    config["method"]["_target_"].rpartition(".")[2]: config
    for bundle in reversed(list_bundles())
    if bundle.trainable
    for overlay in ({}, *(read_config(bundle.config(preset)) for preset in bundle.presets))
    if not overlay or "method" in overlay
    for config in ({**read_config(bundle.config("train")), **overlay},)
}


@pytest.fixture(params=CLASSES)
def method(request: pytest.FixtureRequest) -> Any:
    from monai.bundle import ConfigParser

    config = dict(CONFIGS[request.param])
    for name, value in config.items():
        if name.endswith("filters"):
            config[name] = [4] * len(value) if isinstance(value, list) else 4
        elif name.endswith("blocks"):
            config[name] = 1
        elif name == "gan_steps":
            config[name] = 100  # of those that are looked at
    if request.param == "Segmentation":
        config["neighbours"] = 0  # the batch has single slices
    if request.param == "ProgressiveGAN":
        config["method"] = {**config["method"], "iterations": 9}  # of no cohort's length
    if "steps" in config["method"]:
        config["method"] = {**config["method"], "steps": 9}  # of no cohort's length, either
    torch.manual_seed(0)
    return ConfigParser({**config, "size": [32, 32]}).get_parsed_content("method")


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two pathological slices, beside what two domains, a scorer, other modalities and a filler need."""
    torch.manual_seed(1)
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:14, 8:14] = 1
    return {
        "image": torch.rand(2, 1, 32, 32),
        "mask": mask,
        "healthy": torch.rand(2, 1, 32, 32),
        "healthy_mask": mask.flip(2),
        "other_mask": mask.flip(3),
        "target": torch.tensor([[40.0], [60.0]]),
        "pathology": torch.zeros(2, 1),
        "target_image": torch.rand(2, 1, 32, 32),
        "class": torch.ones(2, 1),
        "image_MR": torch.rand(2, 1, 32, 32),
        "target_MR": torch.tensor([[30.0], [50.0]]),
        "image_source": torch.rand(2, 1, 32, 32),
        "mask_source": mask.flip(2),
        "shown": torch.cat([torch.rand(2, 3, 32, 32), mask.expand(2, 3, 32, 32)], dim=1).repeat(1, 2, 1, 1),
    }


def losses(method: Any, batch: dict[str, torch.Tensor]) -> dict[str, Callable[[], dict[str, torch.Tensor]]]:
    shared = method.forward(batch)
    return {player.name: (lambda player=player: player.loss(batch, shared)) for player in method.players}


def test_every_method_is_trained_by_a_bundle():
    assert set(CLASSES) == set(CONFIGS)


def test_players_have_names_of_their_own_and_networks_that_exist(method):
    names = [player.name for player in method.players]
    assert len(set(names)) == len(names) > 0
    for player in method.players:
        assert player.networks
        assert set(player.networks) <= set(method.networks)


def test_no_network_is_trained_by_two_players_and_none_with_parameters_by_nobody(method):
    owners = [name for player in method.players for name in player.networks]
    assert len(set(owners)) == len(owners)
    with_parameters = {name for name, network in method.networks.items() if list(network.parameters())}
    assert with_parameters <= set(owners)


def test_exports_are_made_of_parts_that_a_checkpoint_keeps(method):
    assert method.exports
    kept = {id(parameter) for network in method.networks.values() for parameter in network.parameters()}
    for export in method.exports.values():
        assert isinstance(export, nn.Module)
        assert {id(parameter) for parameter in export.parameters()} <= kept


def test_losses_are_named_finite_scalars_and_reach_owned_parameters_when_the_others_are_frozen(method, batch):
    for player in method.players:
        owned = {id(p) for name in player.networks for p in method.networks[name].parameters()}
        everything = {id(p): p for network in method.networks.values() for p in network.parameters()}
        for key, parameter in everything.items():  # as the engine does
            parameter.requires_grad_(key in owned)
            parameter.grad = None
        terms = losses(method, batch)[player.name]()
        assert terms
        for name, term in terms.items():
            assert term.shape == ()
            assert term.isfinite(), name
        sum(terms.values()).backward()
        reached = {key for key, parameter in everything.items() if parameter.grad is not None}
        assert reached
        assert reached <= owned


def test_whether_a_player_plays_depends_on_the_iteration_alone(method):
    for player in method.players:
        plays = [player.plays(iteration) for iteration in range(300)]
        assert any(plays)
        assert plays == [player.plays(iteration) for iteration in range(300)]
