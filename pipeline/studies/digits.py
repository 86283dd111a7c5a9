"""Handwritten digits as a set of ten modes, which a classifier tells apart."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.methods.duiit import PredictionLoss
from pipeline.methods.multi_task import MultiTask
from pipeline.metrics.generation import frechet_distance
from pipeline.networks import ScoreResNet
from pipeline.phantoms.cluttered import SIDE, Digits, read_digits, scikit_digits
from pipeline.studies.feature_network import FeatureNetwork, read_score_network
from pipeline.studies.training import trained
from pipeline.training.single import Schedule

MODES = 10
SIZE = (32, 32)
# From this probability on, the classifier is sure.
SURE = 0.9
# A digit is covered if so many of its fair share of the images are surely it.
LEAST_SHARE = 0.1
HELD_OUT = 0.2
CLASSIFIER_FILTERS = 8
CLASSIFIER_ITERATIONS = 400


class DigitDataset(Dataset[dict[str, Tensor]]):
    """Digits of 32×32 pixels, with their class.

    Args:
        images: in [0, 1], shape (N, 1, 32, 32).
        labels: 0 to 9, shape (N,).
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`image` (1, 32, 32), and `target` (1,), its class."""
        return {"image": self.images[index], "target": self.labels[index : index + 1].float()}


def digit_sets(file: Path | None) -> tuple[DigitDataset, DigitDataset]:
    """Training and held-out digits.

    Args:
        file: as `read_digits` takes it; None takes those of scikit-learn.
    """
    digits: Digits = scikit_digits() if file is None else read_digits(file)
    margin = (SIZE[0] - SIDE) // 2
    images = torch.from_numpy(np.pad(digits.images, ((0, 0), (margin, margin), (margin, margin)))) / 255
    order = np.random.default_rng(0).permutation(len(images))
    last = round(HELD_OUT * len(order))
    held_out, training = (
        DigitDataset(images[part, None], torch.from_numpy(digits.labels[part])) for part in (order[:last], order[last:])
    )
    return training, held_out


def digit_network(folder: Path, training: DigitDataset, device: torch.device) -> FeatureNetwork:
    """A classifier of digits, trained in a folder if it is not there."""
    network = trained(
        folder,
        lambda: MultiTask(
            ScoreResNet(filters=CLASSIFIER_FILTERS, blocks=1, classes=[str(digit) for digit in range(MODES)]),
            loss=PredictionLoss("classification", "mean"),
        ),
        lambda: training,
        CLASSIFIER_ITERATIONS,
        0,
        device,
        schedule=Schedule(batch_size=64, decay="late linear"),
    )
    return FeatureNetwork("a residual network trained to tell digits", partial(read_score_network, network), device)


def digit_coverage(network: FeatureNetwork, images: Tensor, real: Tensor) -> dict[str, float]:
    """How many digits images show, how many of them surely show one, and how like real ones they are.

    Args:
        network: tells digits.
        images: (N, 1, 32, 32).
        real: held-out digits, of the same shape.

    Returns:
        `digits`, 0 to 10; `sure`, the share of images of which the network is sure; `fid`, of its features.
    """
    features, probabilities = network(images)
    probability, digit = probabilities.max(dim=1)
    counts = torch.bincount(digit[probability >= SURE], minlength=MODES)
    return {
        "digits": float((counts >= LEAST_SHARE * len(images) / MODES).sum()),
        "sure": float((probability >= SURE).float().mean()),
        "fid": frechet_distance(features, network(real)[0]),
    }
