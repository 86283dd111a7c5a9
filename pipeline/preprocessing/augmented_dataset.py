"""Augmentations that DUIIT compares itself with (Section 4.3): traditional ones, AutoAugment and Random Erasing.

They are kornia's (extra `augmentation`). AutoAugment's policy is the one that its authors found for photographs
(ImageNet): to search one on a cohort takes thousands of trainings, and nobody did that here.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


def _simple() -> nn.Module:
    """Flip, translation, rotation, crop (by scaling), brightness and contrast, as commonly used."""
    from kornia import augmentation

    return nn.Sequential(
        augmentation.RandomHorizontalFlip(0.5),
        augmentation.RandomAffine(15.0, translate=(0.1, 0.1), scale=(0.9, 1.2), p=1.0),
        augmentation.RandomBrightness((0.8, 1.2), p=0.5),
        augmentation.RandomContrast((0.8, 1.2), p=0.5),
    )


class _Auto(nn.Module):
    def __init__(self) -> None:
        from kornia.augmentation.auto import AutoAugment

        super().__init__()
        self.policy = AutoAugment("imagenet")

    def forward(self, image: Tensor) -> Tensor:
        """Of its operations, those on colours take three channels, and do nothing to grey ones."""
        augmented: Tensor = self.policy(image.expand(-1, 3, -1, -1))
        return augmented.mean(dim=1, keepdim=True)


class _Erasing(nn.Module):
    """A rectangle of random values, of the area and ratio of Zhong et al. (2020)."""

    def __init__(self) -> None:
        from kornia import augmentation

        super().__init__()
        self.erase = augmentation.RandomErasing(scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), p=1.0)

    def forward(self, image: Tensor) -> Tensor:
        kept: Tensor = self.erase(torch.ones_like(image))
        return image * kept + torch.rand_like(image) * (1 - kept)


# From images (B, 1, H, W) in [0, 1] to others.
AUGMENTATIONS: dict[str, Callable[[], nn.Module]] = {"simple": _simple, "auto": _Auto, "erasing": _Erasing}


def available() -> bool:
    """Whether kornia is installed."""
    return find_spec("kornia") is not None


class AugmentedDataset(Dataset[dict[str, Tensor]]):
    """The samples of a dataset, each as it is or, as often, augmented: augmented ones are additional training data.

    Draws come from torch's global random state, which checkpoints keep.

    Args:
        dataset: its samples have an `image` (1, H, W) in [0, 1], which is augmented alone.
        augmentation: a key of `AUGMENTATIONS`.

    Raises:
        ImportError: if kornia is not installed, see `available`.
    """

    def __init__(self, dataset: Dataset[dict[str, Tensor]], augmentation: str) -> None:
        self.dataset = dataset
        self.augment = AUGMENTATIONS[augmentation]()

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # of those that are given here each has a length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """As the dataset's."""
        sample = self.dataset[index]
        if torch.rand(()) < 0.5:
            return sample
        return {**sample, "image": self.augment(sample["image"][None])[0].clamp(0, 1)}
