"""Networks whose features tell how like real images translated ones are: FID and inception score (DUIIT, Table 5)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import ResNet
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from pipeline.errors import UsageError
from pipeline.evaluation.volumes import HEALTHY, PATHOLOGICAL
from pipeline.files import sha256
from pipeline.methods.duiit import PredictionLoss
from pipeline.methods.multi_task import MultiTask
from pipeline.metrics.generation import frechet_distance, inception_score
from pipeline.networks import ScoreResNet
from pipeline.preprocessing.augmentation import Augmentation
from pipeline.preprocessing.slices import SliceDataset
from pipeline.studies.training import trained
from pipeline.training.checkpoint import load_tensors
from pipeline.training.single import Schedule

QUARTERS = 4
AT_ONCE = 32
# As torchvision's weights want photographs.
SIDE, MEAN, DEVIATION = 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FeatureNetwork:
    """What FID and inception score are taken of.

    Attributes:
        name: for the table.
        read: images (B, 1, H, W) in [0, 1] to features (B, F) and logits (B, K).
        device: where it computes.
    """

    name: str
    read: Callable[[Tensor], tuple[Tensor, Tensor]]
    device: torch.device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, F) and probabilities (N, K) of images (N, 1, H, W), on the CPU."""
        read = [self.read(part.to(self.device)) for part in images.split(AT_ONCE)]
        features, logits = (torch.cat([each.float().cpu() for each in parts]) for parts in zip(*read, strict=True))
        return features, logits.softmax(dim=1)


class KindDataset(Dataset[dict[str, Tensor]]):
    """Slices of several modalities, whose target is their kind: which modality, and which quarter of its targets.

    Args:
        modalities: slices with targets, by name.
    """

    def __init__(self, modalities: Mapping[str, SliceDataset]) -> None:
        self._slices = [(slices, index) for slices in modalities.values() for index in range(len(slices))]
        self.classes = [f"{name}, quarter {quarter + 1}" for name in modalities for quarter in range(QUARTERS)]
        self._kinds: list[int] = []
        for number, slices in enumerate(modalities.values()):
            targets = [float(slices[index]["target"]) for index in range(len(slices))]
            ends = np.quantile(targets, np.linspace(0, 1, QUARTERS + 1)[1:-1])
            self._kinds += (QUARTERS * number + np.searchsorted(ends, targets)).tolist()

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`image` (1, H, W), and `target` (1,), the index of a class."""
        slices, place = self._slices[index]
        return {"image": slices[place]["image"], "target": torch.tensor([float(self._kinds[index])])}


class PlaceDataset(Dataset[dict[str, Tensor]]):
    """Slices whose target is their kind: which quarter of their slab they are of, and whether they have a lesion.

    Args:
        slices: healthy and pathological ones.
        augment: what moves and brightens each slice as it is taken; None leaves them.
    """

    classes = tuple(
        f"quarter {quarter + 1}, {label}" for quarter in range(QUARTERS) for label in (HEALTHY, PATHOLOGICAL)
    )

    def __init__(self, slices: SliceDataset, augment: Augmentation | None = None) -> None:
        self._slices, self._augment = slices, augment
        self.kinds = [
            2 * min(QUARTERS - 1, QUARTERS * place // len(subject.labels)) + (subject.labels[place] == PATHOLOGICAL)
            for subject, places in zip(slices.subjects, slices.places, strict=True)
            for place in places
        ]

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`image` (1, H, W), and `target` (1,), the index of a class."""
        image, mask = (self._slices[index][name] for name in ("image", "mask"))
        if self._augment is not None:
            image, _ = self._augment(image, mask)
        return {"image": image, "target": torch.tensor([float(self.kinds[index])])}


def of_cohort(
    folder: Path, modalities: Mapping[str, SliceDataset], filters: int, iterations: int, device: torch.device
) -> FeatureNetwork:
    """A network trained on a cohort's real slices to tell their modality and the quarter of their target.

    Args:
        folder: of the training, see `trained`.
        modalities: training slices by modality.
        filters: of the residual network's first stage.
        iterations: about how many.
        device: where to compute.
    """
    asked = "which modality and which quarter of the target each is of"
    return _of_kinds(folder, KindDataset(modalities), asked, filters, iterations, device)


def of_places(
    folder: Path, slices: SliceDataset, filters: int, iterations: int, device: torch.device
) -> FeatureNetwork:
    """A network trained on a cohort's real slices to tell where in the slab each is and whether it has a lesion.

    Slices are turned, bent and brightened a little as it learns: there are few people to learn from.

    Args:
        folder: of the training, see `trained`.
        slices: training slices.
        filters: of the residual network's first stage.
        iterations: about how many.
        device: where to compute.
    """
    asked = "which quarter of the slab each is of and whether it has a lesion"
    moved = Augmentation(rotation_degrees=10, warp_px=2, flips=False)
    return _of_kinds(folder, PlaceDataset(slices, moved), asked, filters, iterations, device)


def _of_kinds(
    folder: Path,
    slices: KindDataset | PlaceDataset,
    asked: str,
    filters: int,
    iterations: int,
    device: torch.device,
) -> FeatureNetwork:
    loss = PredictionLoss("classification", "mean")
    network = trained(
        folder,
        lambda: MultiTask(ScoreResNet(filters=filters, blocks=1, classes=list(slices.classes)), loss=loss),
        lambda: slices,
        iterations,
        0,
        device,
        schedule=Schedule(decay="late linear"),
    )
    name = (
        f"a residual network ({8 * filters} features) trained on the {len(slices)} real training slices to tell "
        f"{asked} ({len(slices.classes)} classes)"
    )
    return FeatureNetwork(name, partial(read_score_network, network), device)


def read_score_network(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits of a network that ends in a linear layer `fc`."""
    features = network.features(images)
    return features, network.fc(features)


def of_photographs(weights: Path, device: torch.device) -> FeatureNetwork:
    """ResNet-50 with ImageNet weights from a file, as torchvision names them (`resnet50-….pth`).

    Grey slices are shown to it in three channels, 224×224 pixels, normalised as photographs. It was never shown a scan.

    Raises:
        UsageError: if the file holds other weights.
    """
    network = ImageNetResNet()
    try:
        network.load_state_dict(load_tensors(weights))
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"{weights}: holds other weights, expected torchvision's of ResNet-50, 1000 classes; give that file"
        ) from error
    network.to(device).eval()
    mean, deviation = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))

    def sized(images: Tensor) -> Tensor:
        grey = interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
        return (grey.expand(-1, 3, -1, -1) - mean) / deviation

    name = f"ResNet-50 with ImageNet weights ({weights.name}, SHA-256 {sha256(weights)[:12]}…), trained on photographs"
    return FeatureNetwork(name, lambda images: read_score_network(network, sized(images)), device)


class ImageNetResNet(ResNet):
    """ResNet-50 for 1000 classes of photographs, whose parameters have the names and shapes that torchvision's have."""

    def __init__(self) -> None:
        super().__init__(
            "bottleneck",
            layers=[3, 4, 6, 3],
            block_inplanes=[64, 128, 256, 512],
            spatial_dims=2,
            n_input_channels=3,
            conv1_t_stride=2,
            num_classes=1000,
            bias_downsample=False,
        )

    def features(self, image: Tensor) -> Tensor:
        """What the last layer `fc` sees of photographs (B, 3, H, W), (B, 2048)."""
        stem: Tensor = self.maxpool(self.act(self.bn1(self.conv1(image))))
        features: Tensor = self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(stem))))).flatten(1)
        return features


def quality(network: FeatureNetwork, generated: Tensor, real: Tensor, splits: int) -> dict[str, float | int]:
    """FID of generated images against as many real ones, and their inception score.

    Args:
        network: see `FeatureNetwork`.
        generated: images (N, 1, H, W), of which the first are compared where there are more than real ones.
        real: images (M, 1, H, W).
        splits: parts of the inception score.

    Returns:
        `fid`, `is`, `is_parts_sd`, its deviation over parts, and `images`, how many were compared.
    """
    count = min(len(generated), len(real))
    features, probabilities = network(generated[:count])
    mean, deviation = inception_score(probabilities, min(splits, count))
    return {
        "fid": frechet_distance(features, network(real[:count])[0]),
        "is": mean,
        "is_parts_sd": deviation,
        "images": count,
    }


def halves(slices: Sequence[SliceDataset], seed: int) -> tuple[Tensor, Tensor]:
    """All images of some datasets, in two halves of different patients, each in an order drawn from a seed."""
    patients = sorted({patient for each in slices for patient in each.patients})
    first = set(np.random.default_rng(seed).permutation(patients)[: len(patients) // 2].tolist())
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for each in slices:
        for index, patient in enumerate(each.patients):
            sides[patient not in first].append(each[index]["image"])
    if not all(sides):
        raise UsageError(f"found {len(patients)} patient(s) of the target modality, expected at least 2 to compare")
    return shuffled(sides[0], seed), shuffled(sides[1], seed)


def shuffled(images: Sequence[Tensor], seed: int) -> Tensor:
    """Images (1, H, W) as one tensor (N, 1, H, W), in an order drawn from a seed."""
    order = np.random.default_rng(seed).permutation(len(images))
    return torch.stack([images[index] for index in order])
