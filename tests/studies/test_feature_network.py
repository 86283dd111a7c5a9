"""What FID and inception score are taken of: a network of the cohort's own, or one of photographs."""

from pathlib import Path

import pytest
import torch

from pipeline.errors import UsageError
from pipeline.preprocessing.augmentation import Augmentation
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset
from pipeline.studies.feature_network import ImageNetResNet, PlaceDataset, of_photographs, quality


def test_weights_of_photographs_are_torchvisions(tmp_path: Path) -> None:
    weights = ImageNetResNet().state_dict()
    # The names and the number of parameters of torchvision's resnet50.
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.1.bias", "layer4.2.conv3.weight", "fc.bias"} < set(
        weights
    )
    assert sum(parameter.numel() for parameter in ImageNetResNet().parameters()) == 25_557_032
    torch.save(weights, tmp_path / "resnet50.pth")
    network = of_photographs(tmp_path / "resnet50.pth", torch.device("cpu"))
    features, probabilities = network(torch.rand(2, 1, 32, 32))
    assert (features.shape, probabilities.shape) == ((2, 2048), (2, 1000))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2))
    assert "resnet50.pth" in network.name


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="holds other weights, expected torchvision's of ResNet-50"):
        of_photographs(tmp_path / "other.pth", torch.device("cpu"))


def test_images_are_compared_with_as_many_real_ones() -> None:
    from pipeline.studies.feature_network import FeatureNetwork

    def read(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means = images.mean(dim=(1, 2, 3))[:, None]
        return torch.cat([means, images[:, 0, 0, :1]], dim=1), torch.cat([means, 1 - means], dim=1)

    torch.manual_seed(0)
    network = FeatureNetwork("means", read, torch.device("cpu"))
    real = torch.rand(30, 1, 8, 8)
    same, dark = quality(network, real[:20], real[10:], 2), quality(network, real[:20] / 4, real[10:], 2)
    assert same["images"] == dark["images"] == 20
    assert same["fid"] < 0.1 * dark["fid"]


def test_the_kind_of_a_slice_is_its_quarter_of_the_slab_and_whether_it_has_a_lesion(phantom_cohort: Path) -> None:
    slices = SliceDataset(phantom_cohort, "training", Grid(4.0, (48, 64)), ("healthy", "pathological"))
    kinds = PlaceDataset(slices)
    assert kinds.classes[:3] == ("quarter 1, healthy", "quarter 1, pathological", "quarter 2, healthy")
    places = [place for of_subject in slices.places for place in of_subject]
    for index, place in enumerate(places):
        quarter, present = divmod(kinds.kinds[index], 2)
        assert quarter == place // 3  # of 12 slices
        assert present == bool(slices.masks[index].any())
    sample = kinds[0]
    assert torch.equal(sample["image"], slices[0]["image"])
    assert sample["target"].tolist() == [kinds.kinds[0]]
    moved = PlaceDataset(slices, Augmentation(flips=False))[0]
    assert moved["image"].shape == sample["image"].shape
    assert not torch.equal(moved["image"], sample["image"])
    assert torch.equal(moved["target"], sample["target"])
