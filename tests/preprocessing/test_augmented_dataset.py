"""Augmentations as additional training data: as many samples as they are, repeatable, in range."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.preprocessing.augmented_dataset import AUGMENTATIONS, AugmentedDataset


class Slices(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = torch.linspace(0, 1, 40 * 40).reshape(1, 40, 40)
        return {"image": image, "target": torch.tensor([float(index)])}


def draws(augmentation: str, count: int = 40) -> list[Tensor]:
    torch.manual_seed(0)
    dataset = AugmentedDataset(Slices(), augmentation)
    assert len(dataset) == 3
    samples = [dataset[2] for _ in range(count)]
    assert {float(sample["target"]) for sample in samples} == {2.0}
    return [sample["image"] for sample in samples]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_about_half_are_as_they_are_and_all_are_images(augmentation: str) -> None:
    found = draws(augmentation)
    original = Slices()[0]["image"]
    assert 8 <= sum(torch.equal(image, original) for image in found) <= 32
    for image in found:
        assert image.shape == (1, 40, 40)
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
    assert all(torch.equal(one, other) for one, other in zip(found, draws(augmentation), strict=True))


def test_random_erasing_replaces_a_rectangle_by_random_values() -> None:
    original = Slices()[0]["image"]
    changed = [(image != original)[0] for image in draws("erasing") if not torch.equal(image, original)]
    for mask in changed:
        rows, columns = (mask.any(dim=axis).nonzero().flatten() for axis in (1, 0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.float().mean() > 0.95
        assert 0.015 < mask.float().mean() < 0.45
