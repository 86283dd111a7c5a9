"""A study's networks: trained once, and taken up where they were stopped."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import CycleGAN, ImagePool
from pipeline.networks import JohnsonGenerator, PatchGANDiscriminator, UNetSegmentor
from pipeline.studies.enhancement import MixupSegmentation
from pipeline.studies.training import trained, trained_exports
from pipeline.training.single import Schedule


@pytest.fixture
def slices() -> list[dict[str, Tensor]]:
    """Ten noisy slices with a bright square: two batches."""
    draw = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:16, 8:16] = 1
    return [{"image": 0.5 * mask + 0.1 * torch.rand(1, 32, 32, generator=draw), "mask": mask} for _ in range(10)]


def weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in network.parameters()]).detach()


def train(folder: Path, slices: list[dict[str, Tensor]], iterations: int = 5, seed: int = 0) -> nn.Module:
    return trained(
        folder,
        # Mixup draws random numbers, which a resumed training has to go on with.
        lambda: MixupSegmentation(UNetSegmentor(filters=4), "ce+mixup"),
        lambda: slices,  # type: ignore[arg-type, return-value]
        iterations,
        seed,
        torch.device("cpu"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_stopped_training_goes_on_and_ends_with_the_same_weights(
    slices: list[dict[str, Tensor]], tmp_path: Path, epochs_trained: Callable[..., list[int]], epoch: int
) -> None:
    whole = train(tmp_path / "whole", slices)
    epochs_trained(stop_after=epoch)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", slices)
    assert not (tmp_path / "stopped" / "trained.json").exists()
    rest = epochs_trained()
    resumed = train(tmp_path / "stopped", slices)
    assert rest == list(range(epoch + 1, 4))  # 5 iterations are 3 whole epochs of 2
    assert torch.equal(weights(resumed), weights(whole))


def test_what_is_finished_is_not_trained_again(
    slices: list[dict[str, Tensor]], tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    first = train(tmp_path, slices, iterations=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "trained.json"]
    again = epochs_trained()
    second = train(tmp_path, slices, iterations=1)
    assert again == []
    assert torch.equal(weights(first), weights(second))
    assert not second.training


def test_each_player_of_a_game_has_an_optimiser_and_all_exports_are_kept(
    tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    generators = []

    def build() -> CycleGAN:
        built = [JohnsonGenerator(filters=2, residual_blocks=1) for _ in range(2)]
        generators.append([weights(network).clone() for network in built])
        discriminators = [PatchGANDiscriminator(2) for _ in range(2)]
        return CycleGAN(*built, *discriminators, ImagePool(0), ImagePool(0))

    draw = torch.Generator().manual_seed(0)
    images = [{name: torch.rand(1, 32, 32, generator=draw) for name in ("image", "healthy")} for _ in range(2)]
    schedule = Schedule(batch_size=1, betas=(0.5, 0.999), rates={"discriminators": 0.0})

    def train() -> dict[str, nn.Module]:
        return trained_exports(tmp_path, build, lambda: images, 2, 0, torch.device("cpu"), schedule=schedule)  # type: ignore[arg-type, return-value]

    first = train()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cycle.pt", "model.pt", "trained.json"]
    assert list(first) == ["healthy", "cycle"]
    for export, before in zip(first.values(), generators[0], strict=True):
        assert not torch.equal(weights(export), before)
    again = epochs_trained()
    second = train()
    assert again == []
    for export, other in zip(first.values(), second.values(), strict=True):
        assert torch.equal(weights(export), weights(other))


def test_another_seed_gives_another_network(slices: list[dict[str, Tensor]], tmp_path: Path) -> None:
    one, other = (train(tmp_path / str(seed), slices, iterations=1, seed=seed) for seed in (0, 1))
    assert not torch.equal(weights(one), weights(other))
