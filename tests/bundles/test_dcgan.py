"""The bundle's defaults are Radford's settings; each preset changes what it says and goes on from the others."""

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser
from torch.optim import Adam

from pipeline.bundles import find_bundle, read_config
from pipeline.inference import load_predictor
from pipeline.launch import train
from pipeline.methods import GAN
from pipeline.networks import (
    CodedGenerator,
    CodeReader,
    DCGANDiscriminator,
    DCGANGenerator,
    LaplacianDiscriminator,
    LaplacianGenerator,
    MLPDiscriminator,
    MLPGenerator,
    ProgressiveDiscriminator,
    ProgressiveGenerator,
)
from pipeline.objectives import NonSaturating


def parsed(*presets: str, **settings: Any) -> ConfigParser:
    bundle = find_bundle("dcgan")
    config = read_config(bundle.config("train"))
    for preset in presets:
        config |= read_config(bundle.config(preset))
    return ConfigParser({**config, **settings})


def test_the_settings_are_radford_s() -> None:
    parser = parsed()
    expected = {"batch_size": 128, "rate": 2e-4, "latent": 100, "size": [64, 64], "filters": 128}
    assert {key: parser[key] for key in expected} == expected
    method: Any = parser.get_parsed_content("method")
    assert type(method) is GAN
    assert type(method.objective) is NonSaturating
    assert (method.condition, method.joint, method.unroll) == ("none", False, 0)
    assert [type(network) for network in method.networks.values()] == [DCGANGenerator, DCGANDiscriminator]
    assert method.networks["discriminator"].ties_samples  # batch norm
    assert [player.name for player in method.players] == ["discriminator", "generator"]
    assert all(player.plays(iteration) for player in method.players for iteration in range(10))
    for optimizer in parser.get_parsed_content("optimizers").values():
        assert type(optimizer) is Adam
        assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (2e-4, (0.5, 0.999))


@pytest.mark.parametrize(
    ("preset", "condition", "joint", "networks"),
    [
        ("conditional", "class", False, [DCGANGenerator, DCGANDiscriminator]),
        ("masked", "mask", False, [DCGANGenerator, DCGANDiscriminator]),
        ("joint", "none", True, [DCGANGenerator, DCGANDiscriminator]),
        ("mlp", "none", False, [MLPGenerator, MLPDiscriminator]),
        ("laplacian", "none", False, [LaplacianGenerator, LaplacianDiscriminator]),
        ("infogan", "none", False, [CodedGenerator, DCGANDiscriminator, CodeReader]),
    ],
)
def test_a_preset_over_the_laptop_s_is_the_game_that_it_is_named_for(
    preset: str, condition: str, joint: bool, networks: list[type]
) -> None:
    method: Any = parsed("laptop", preset).get_parsed_content("method")
    assert (method.condition, method.joint) == (condition, joint)
    assert [type(network) for network in method.networks.values()] == networks


def test_infogan_s_reader_learns_with_the_generator() -> None:
    parser = parsed("laptop", "infogan")
    method: Any = parser.get_parsed_content("method")
    (group,) = parser.get_parsed_content("optimizers")["generator"].param_groups
    learned = {id(weight) for name in ("generator", "reader") for weight in method.networks[name].parameters()}
    assert {id(weight) for weight in group["params"]} == learned


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["progressive", "infogan"])
def test_a_run_of_a_family_is_a_sampler(preset: str, phantom_cohort: Path, tmp_path: Path) -> None:
    """Those whose presets reach into the training's other parts: its length, and what the optimiser holds."""
    settings = {"size": [32, 32], "spacing_mm": 8.0, "batch_size": 8, "epochs": 2, "amp": None, "device_name": "cpu"}
    train(find_bundle("dcgan"), phantom_cohort, tmp_path / "run", ["laptop", preset], settings)
    sampler, _ = load_predictor(find_bundle(str(tmp_path / "run")), "sampler", "cpu")
    assert sampler.sample(3, seed=0).shape == (3, 32, 32)
    if preset == "progressive":
        assert float(sampler.network.grown) == 4  # type: ignore[arg-type]


def test_growing_is_spread_over_the_whole_training(phantom_cohort: Path, tmp_path: Path) -> None:
    folders = {"dataset_dir": str(phantom_cohort), "output_dir": str(tmp_path)}
    parser = parsed("laptop", "progressive", epochs=7, batch_size=10, **folders)
    method: Any = parser.get_parsed_content("method")
    steps = len(parser.get_parsed_content("train::dataloader"))
    assert method.growth.iterations == 7 * steps
    assert [type(method.networks[name]) for name in ("generator", "discriminator")] == [
        ProgressiveGenerator,
        ProgressiveDiscriminator,
    ]
    assert method.G.coarsest == (4, 4)
    for optimizer in parser.get_parsed_content("optimizers").values():
        # Karras et al. 2018, Section A.1.
        assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (1e-3, (0.0, 0.99))


def test_a_penalty_of_single_samples_refuses_what_ties_them_together() -> None:
    with pytest.raises(Exception, match="method") as refused:
        parsed(objective="wasserstein_gp").get_parsed_content("method")
    assert "set discriminator_norm to none or instance" in str(refused.value.__cause__ or refused.value)
    assert parsed(objective="wasserstein_gp", discriminator_norm="none").get_parsed_content("method")
