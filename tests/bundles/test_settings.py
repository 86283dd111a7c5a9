"""The papers' settings are the adversarial bundles' defaults; DCGAN, GVS, GenSeg and DUIIT have files of their own.

Where a paper is silent (PHS-GAN's optimiser, rate, batch and epochs), the field's habit for least-squares translation.
"""

from typing import Any

import pytest
from monai.bundle import ConfigParser
from torch import nn
from torch.optim import Adam

from pipeline.bundles import find_bundle, list_bundles, read_config
from pipeline.methods import ANTGAN, VAGAN, ConditionalGAN, CycleGAN, PairedPHSGAN, PairedTranslation, UnpairedPHSGAN
from pipeline.networks import (
    JohnsonGenerator,
    MapCritic,
    MapGenerator,
    PatchGANDiscriminator,
    PHSDiscriminator,
    PHSGenerator,
    Pix2PixUNet,
    ResidualUNet,
)
from pipeline.objectives import LeastSquares, NonSaturating, WassersteinGP

PHS_NETWORKS = {
    "generator": PHSGenerator,
    "reconstructor": PHSGenerator,
    "segmentor": ResidualUNet,
    "image_discriminator": PHSDiscriminator,
}
CYCLE_NETWORKS = {
    "healthy_generator": JohnsonGenerator,
    "pathological_generator": JohnsonGenerator,
    "healthy_discriminator": PatchGANDiscriminator,
    "pathological_discriminator": PatchGANDiscriminator,
}
# Slices of 208×160 as the paper prints them: the grid is (right, anterior), the paper's height is anterior.
PHS = {
    "batch_size": 4,
    "epochs": 100,
    "rate": 2e-4,
    "size": [160, 208],
    "spacing_mm": 1.0,
    "filters": 32,
    "residual_blocks": 6,
    "discriminator_filters": [32, 128, 256, 512],
    "output": "sigmoid",
}
CYCLE = {
    "batch_size": 1,
    "epochs": 200,
    "rate": 2e-4,
    "size": [240, 240],
    "spacing_mm": 1.0,
    "pool_size": 50,
    "filters": 64,
    "residual_blocks": 9,
    "discriminator_filters": 64,
    "upsampling": "transposed",
}
PAPERS: dict[str, dict[str, Any]] = {
    "phs_gan_paired": {
        "method": PairedPHSGAN,
        "networks": PHS_NETWORKS,
        "players": ["image_discriminator", "translators"],
        "objective": LeastSquares,
        "betas": (0.5, 0.999),
        "weights": {"lambda1": 10.0, "lambda2": 1.0, "lambda3": 10.0},
        "settings": PHS,
    },
    "phs_gan_unpaired": {
        "method": UnpairedPHSGAN,
        "networks": {**PHS_NETWORKS, "mask_discriminator": PHSDiscriminator},
        "players": ["image_discriminator", "mask_discriminator", "translators"],
        "objective": LeastSquares,
        "betas": (0.5, 0.999),
        "weights": {"lambda1": 10.0, "lambda2": 2.0, "lambda3": 10.0},
        "settings": PHS,
    },
    "conditional_gan": {
        "method": ConditionalGAN,
        "networks": {"generator": PHSGenerator, "discriminator": PHSDiscriminator},
        "players": ["discriminator", "generator"],
        "objective": LeastSquares,
        "betas": (0.5, 0.999),
        "weights": {},
        "settings": PHS,
    },
    "cyclegan": {
        "method": CycleGAN,
        "networks": CYCLE_NETWORKS,
        "players": ["generators", "discriminators"],
        "objective": LeastSquares,
        "betas": (0.5, 0.999),
        # The objective halves both players' losses; CycleGAN halves the discriminators' alone.
        "weights": {"lambda_": 10.0, "identity": 0.5, "lambda_gan": 2.0},
        "settings": {**CYCLE, "output": "image", "back_output": "image"},
    },
    "ant_gan": {
        "method": ANTGAN,
        "networks": CYCLE_NETWORKS,
        "players": ["generators", "discriminators"],
        "objective": LeastSquares,
        "betas": (0.5, 0.999),
        "weights": {"lambda_": 10.0, "identity": 0.5, "lambda_gan": 2.0, "lambda_normal": 10.0},
        "settings": {**CYCLE, "output": "shortcut", "back_output": "image"},
    },
    "pix2pix": {
        "method": PairedTranslation,
        "networks": {"generator": Pix2PixUNet, "discriminator": PatchGANDiscriminator},
        "players": ["discriminator", "generator"],
        "objective": NonSaturating,
        "betas": (0.5, 0.999),
        "weights": {"lambda_gan": 1.0, "lambda_l1": 100.0, "conditional": True},
        "settings": {
            "batch_size": 1,
            "epochs": 200,
            "rate": 2e-4,
            "size": [256, 256],
            "filters": 64,
            "levels": 8,
            "dropout": 0.5,
            "discriminator_filters": 64,
            "strided": 3,
        },
    },
    "va_gan": {
        "method": VAGAN,
        "networks": {"generator": MapGenerator, "critic": MapCritic},
        "players": ["critic", "generator"],
        "objective": WassersteinGP,
        "betas": (0.0, 0.9),
        "weights": {"lambda_": 100.0},
        "settings": {
            "batch_size": 8,
            "epochs": 100,
            "rate": 1e-4,
            "size": [240, 240],
            "spacing_mm": 1.0,
            "filters": 32,
            "critic_filters": 16,
            "output": "shortcut",
        },
    },
}


ELSEWHERE = ("dcgan", "gvs", "genseg", "duiit")  # held to their papers by files of their own


@pytest.fixture(scope="module", params=PAPERS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def parser(name: str) -> ConfigParser:
    return ConfigParser(read_config(find_bundle(name).config("train")))


@pytest.fixture(scope="module")
def method(parser: ConfigParser) -> Any:
    return parser.get_parsed_content("method")


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_every_bundle_that_follows_a_paper_is_held_to_its_settings():
    """The others' cards say that no paper prescribes theirs."""
    of_none = {
        bundle.name
        for bundle in list_bundles()
        if "No paper prescribes these settings" in (bundle.root / "docs" / "README.md").read_text()
    }
    assert {bundle.name for bundle in list_bundles() if bundle.trainable} == {*PAPERS, *ELSEWHERE} | of_none
    assert not of_none & {*PAPERS, *ELSEWHERE}


def test_the_settings_are_the_paper_s(name, parser):
    expected = PAPERS[name]["settings"]
    assert {key: parser[key] for key in expected} == expected


def test_what_departs_from_the_papers_is_off(parser):
    assert (parser["average_decay"], parser["spectral_norm"], parser["amp"]) == (None, False, None)
    assert (parser["accumulate"], parser["fraction"]) == (1, 1.0)


def test_the_method_plays_with_the_paper_s_weights(name, method):
    assert type(method) is PAPERS[name]["method"]
    expected = PAPERS[name]["weights"]
    assert {key: getattr(method, key) for key in expected} == expected


def test_the_objective_is_the_paper_s(name, method):
    assert type(method.objective) is PAPERS[name]["objective"]
    if isinstance(method.objective, WassersteinGP):
        assert method.objective.weight == 10.0


def test_the_networks_are_the_paper_s(name, method):
    expected = PAPERS[name]["networks"]
    assert {key: type(method.networks[key]) for key in expected} == expected
    assert set(method.networks) - set(expected) <= {"healthy_pool", "pathological_pool"}


def test_the_players_take_turns_in_the_paper_s_order(name, method):
    assert [player.name for player in method.players] == PAPERS[name]["players"]


def test_adam_has_the_paper_s_betas_and_rate(name, parser):
    optimizers = parser.get_parsed_content("optimizers")
    assert list(optimizers) != []
    for optimizer in optimizers.values():
        assert type(optimizer) is Adam
        assert tuple(optimizer.defaults["betas"]) == PAPERS[name]["betas"]
        assert optimizer.defaults["lr"] == PAPERS[name]["settings"]["rate"]
        assert optimizer.defaults["weight_decay"] == 0


def test_rates_decay_linearly_in_the_second_half(parser):
    epochs, rate = parser["epochs"], parser["rate"]
    for schedule in parser.get_parsed_content("schedulers").values():
        rates = []
        for _ in range(epochs):
            rates.append(schedule.get_last_lr()[0])
            schedule.optimizer.step()
            schedule.step()
        half = epochs // 2
        assert rates[: half + 1] == [rate] * (half + 1)
        assert rates[half:] == pytest.approx([rate * (1 - epoch / half) for epoch in range(half)])


@pytest.mark.parametrize("name", ["phs_gan_paired", "phs_gan_unpaired", "conditional_gan"], indirect=True)
def test_phs_gan_s_networks_have_the_sizes_of_tables_2_to_4(method):
    sizes = {"generator": 1_961_217, "reconstructor": 1_962_785}
    sizes |= dict.fromkeys(("discriminator", "image_discriminator", "mask_discriminator"), 2_698_465)
    for key, network in method.networks.items():
        assert key == "segmentor" or count(network) == sizes[key]


@pytest.mark.parametrize("name", ["phs_gan_paired", "phs_gan_unpaired", "conditional_gan"], indirect=True)
def test_table_4_s_sigmoid_is_a_setting_that_least_squares_alone_allows(name, method):
    def scores(**settings: Any) -> list[bool]:
        parser = ConfigParser(read_config(find_bundle(name).config("train")))
        for key, value in settings.items():
            parser[key] = value
        networks = parser.get_parsed_content("method").networks
        return [any(isinstance(m, nn.Sigmoid) for m in D.modules()) for key, D in networks.items() if "discr" in key]

    assert not any(scores())
    assert all(scores(discriminator_sigmoid=True))
    with pytest.raises(Exception, match="method") as refused:
        scores(discriminator_sigmoid=True, objective="hinge")
    assert "needs the objective least_squares, found Hinge" in str(refused.value.__cause__ or refused.value)


@pytest.mark.parametrize("name", ["cyclegan", "ant_gan"], indirect=True)
def test_cyclegan_s_networks_are_resnet_9_and_the_70_by_70_patchgan(method):
    # Each convolution but the last: kernel² · in · out weights, and a bias, a scale and a shift for each channel.
    normed = [(49, 1, 64), (9, 64, 128), (9, 128, 256), *[(9, 256, 256)] * 18, (9, 256, 128), (9, 128, 64)]
    resnet_9 = sum(kernel * before * after + 3 * after for kernel, before, after in normed) + 49 * 64 + 1
    assert resnet_9 == 11_376_129
    for key in ("healthy_generator", "pathological_generator"):
        assert count(method.networks[key]) == resnet_9
    for key in ("healthy_discriminator", "pathological_discriminator"):
        assert count(method.networks[key]) == 2_764_481


@pytest.mark.parametrize("name", ["cyclegan", "ant_gan"], indirect=True)
def test_pools_hold_50_images_of_the_grid(method):
    for key in ("healthy_pool", "pathological_pool"):
        assert method.networks[key].images.shape == (50, 1, 240, 240)


def test_only_ant_gan_s_way_to_healthy_has_the_shortcut():
    for name, outputs in (("cyclegan", ("image", "image")), ("ant_gan", ("shortcut", "image"))):
        networks = ConfigParser(read_config(find_bundle(name).config("train"))).get_parsed_content("method").networks
        assert tuple(networks[f"{key}_generator"].output for key in ("healthy", "pathological")) == outputs


@pytest.mark.parametrize("name", ["va_gan"], indirect=True)
def test_va_gan_s_critic_takes_5_steps_and_100_in_the_first_25_and_at_every_100th(method):
    critic, generator = method.players
    steps, since = [], 0
    for iteration in range(25 * 100 + 75 * 5 + 100 + 99 * 5 + 100 + 10):
        assert critic.plays(iteration)
        since += 1
        if generator.plays(iteration):
            steps.append(since)
            since = 0
    assert steps == [*[100] * 25, *[5] * 75, 100, *[5] * 99, 100, 5, 5]


@pytest.mark.parametrize(
    "name", ["phs_gan_paired", "phs_gan_unpaired", "conditional_gan", "cyclegan", "ant_gan"], indirect=True
)
def test_elsewhere_each_player_plays_at_every_iteration(method):
    assert all(player.plays(iteration) for player in method.players for iteration in range(20))
