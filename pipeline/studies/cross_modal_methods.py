"""The methods that `study cross-modal` compares on one split: DUIIT, its baselines (Section 4.3), and controls.

All have the same predictor, batch, learning rates and number of steps; the translators are those of the bundle `duiit`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.bundles import find_bundle
from pipeline.errors import UsageError
from pipeline.evaluation.controls import MEAN
from pipeline.methods.base import Method
from pipeline.methods.dann import DANN
from pipeline.methods.duiit import PredictionLoss
from pipeline.methods.multi_task import MultiTask
from pipeline.networks import ScoreResNet, SourceTranslators
from pipeline.preprocessing.augmented_dataset import AugmentedDataset, available
from pipeline.preprocessing.cohort_format import read_cohort
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.modalities import LABELS, ModalityDataset
from pipeline.preprocessing.slices import SliceDataset
from pipeline.studies.cross_modal_tables import (
    AUGMENTED,
    CHANCE,
    CYCLE_GAN,
    DOMAIN_ADAPTATION,
    MULTI_TASK,
    OURS,
    POOLED,
    TARGET_ONLY,
    TRANSFER,
)
from pipeline.studies.study import file_name
from pipeline.studies.training import run_trained, trained
from pipeline.training.checkpoint import load_tensors
from pipeline.training.single import Schedule

BUNDLE = "duiit"
# λ of Eq. 3 for means over the batch and errors in deviations of the target: 0.001 for sums over 4 images of ages that
# deviate by 15 years.
LAMBDA = 0.9
AT_ONCE = 32


@dataclass(frozen=True)
class Scale:
    """Sizes of a study; the defaults are the paper's, as far as it tells them.

    Args:
        spacing_mm: pixel of the one grid that all modalities are brought to.
        size: its pixels.
        filters, block, predictor_blocks, first_stride: of the predictor; the defaults are ResNet-50.
        translator_filters, residual_blocks, upsampling: of the translators.
        discriminator_filters: of the discriminators.
        batch_size: slices of the target modality in a step, and as many of each source.
        epochs: of the target modality's slices.
        average_decay: of the moving average of all weights that is measured; None has none.
        lambda_: λ of Eq. 3.
        reduction: of Eq. 2 over a batch; with `mean`, errors are counted in deviations of the target.
        is_splits: parts of the inception score.
        feature_steps: of the training of the feature network.
    """

    spacing_mm: float = 1.0
    size: tuple[int, int] = (256, 256)
    filters: int = 64
    block: str = "bottleneck"
    predictor_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    first_stride: int = 2
    translator_filters: int = 64
    residual_blocks: int | None = None
    upsampling: str = "transposed"
    discriminator_filters: int = 64
    batch_size: int = 1
    epochs: int = 200
    average_decay: float | None = None
    lambda_: float = 0.001
    reduction: str = "sum"
    is_splits: int = 10
    feature_steps: int = 20_000


PAPER = Scale()
PRESETS = {
    "laptop": Scale(
        spacing_mm=4.0,
        size=(64, 64),
        filters=8,
        block="basic",
        predictor_blocks=(1, 1, 1, 1),
        first_stride=1,
        translator_filters=8,
        residual_blocks=3,
        upsampling="bilinear",
        discriminator_filters=8,
        batch_size=4,
        epochs=10,
        average_decay=0.98,
        lambda_=LAMBDA,
        reduction="mean",
        is_splits=4,
        feature_steps=400,
    )
}


class Split:
    """One split of the target modality, and what is trained on it.

    Args:
        cohort: its joined cohort.
        folder: of the study.
        seed: of split and trainings.
        scale: sizes.
        device: where to compute; `device_name` as the user named it.
        target_labels: as in `cross_modal`.
    """

    def __init__(
        self,
        cohort: Path,
        folder: Path,
        seed: int,
        scale: Scale,
        device: torch.device,
        device_name: str,
        target_labels: bool,
    ) -> None:
        self.cohort, self.folder, self.seed, self.scale = cohort, folder, seed, scale
        self.device, self.device_name, self.target_labels = device, device_name, target_labels
        self.grid = Grid(scale.spacing_mm, scale.size)
        self.target, *self.sources = read_cohort(cohort).channels

    @cached_property
    def slices(self) -> ModalityDataset:
        """The training slices: an epoch is one of the target modality's, with one of each source beside them."""
        slices = ModalityDataset(self.cohort, "training", self.grid, self.target, self.sources)
        if slices.target.classes:
            raise UsageError(
                f"{self.cohort}: has the classes {', '.join(slices.target.classes)} as target, expected numbers, whose "
                "squared errors are compared; preprocess with --target of another column"
            )
        return slices

    def held_out(self, split: str) -> SliceDataset:
        """The target modality's slices of another split."""
        return SliceDataset(self.cohort, split, self.grid, LABELS, channels=[self.target])

    @cached_property
    def targets(self) -> Tensor:
        """Of the target modality's training slices, shape (N,)."""
        return torch.cat([self.slices.target[index]["target"] for index in range(len(self.slices))])

    @property
    def mean(self) -> float:
        """Of `targets`."""
        return float(self.targets.mean())

    @property
    def deviation(self) -> float:
        """Of `targets`."""
        deviation = float(self.targets.std())
        if not deviation > 0:
            raise UsageError(f"{self.cohort}: all targets are {self.mean:g}, expected different ones to learn from")
        return deviation

    @property
    def loss(self) -> PredictionLoss:
        """L of Eq. 2, of all methods."""
        return PredictionLoss(reduction="mean", deviation=self.deviation)

    @property
    def steps(self) -> int:
        """Of each training."""
        return self.scale.epochs * -(-len(self.slices) // self.scale.batch_size)

    def predictor(self) -> ScoreResNet:
        """P, not trained."""
        scale = self.scale
        return ScoreResNet(
            filters=scale.filters,
            blocks=scale.predictor_blocks,
            mean=self.mean,
            deviation=self.deviation,
            block=scale.block,  # type: ignore[arg-type]  # one of the two, by PRESETS
            first_stride=scale.first_stride,
        )

    def trained(self, name: str, build: Callable[[], Method], data: Dataset[dict[str, Tensor]]) -> nn.Module:
        """The network of a method of one player, trained as long as all others are."""
        scale = self.scale
        schedule = Schedule(scale.batch_size, decay="late linear", average_decay=scale.average_decay)
        run = self.folder / "runs" / f"{file_name(name)}_split={self.seed}"
        return trained(run, build, lambda: data, self.steps, self.seed, self.device, schedule=schedule)

    def run(self, sources: Sequence[str], guided: bool) -> Path:
        """A finished run of the bundle."""
        scale, kind = self.scale, OURS if guided else CYCLE_GAN
        settings: dict[str, Any] = {
            "target_modality": self.target,
            "sources": list(sources),
            "guided": guided,
            "seed": self.seed,
            "device_name": self.device_name,
            "target_mean": self.mean,
            "target_deviation": self.deviation,
            "loss_deviation": self.deviation if scale.reduction == "mean" else 1.0,
            "lambda": scale.lambda_,
            "validate_every": scale.epochs,
            "channels_last": True,  # a fifth faster on a CPU
            **{
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(scale).items()
                if name not in {"lambda_", "is_splits", "feature_steps"}
            },
        }
        run = self.folder / "runs" / f"{file_name(_named(kind, sources))}_split={self.seed}"
        return run_trained(find_bundle(BUNDLE), self.cohort, run, (), settings).root

    def translators(self, sources: Sequence[str], guided: bool) -> SourceTranslators:
        """G of each source, trained."""
        scale = self.scale
        translators = SourceTranslators(
            list(sources), scale.size, scale.translator_filters, scale.residual_blocks, scale.upsampling
        )
        translators.load_state_dict(load_tensors(self.run(sources, guided) / "models" / "translators.pt"))
        return translators.to(self.device).eval()


@dataclass(frozen=True)
class Row:
    """One method of the tables.

    Attributes:
        kind: one of the names that `cross_modal_tables` has.
        sources: modalities that it learns from, beside the target modality.
        predict: gives the answers to slices, and is trained first.
    """

    kind: str
    sources: tuple[str, ...]
    predict: Callable[[Split, "Row"], Callable[[SliceDataset], Tensor]]

    @property
    def name(self) -> str:
        """In tables and files."""
        return _named(self.kind, self.sources)


def _named(kind: str, sources: Sequence[str]) -> str:
    return f"{kind}: {' + '.join(sources)}" if sources else kind


def rows_of(sources: Sequence[str]) -> list[Row]:
    """All methods and controls, for some source modalities; without kornia no augmentations are among them."""
    several = [tuple(sources)] if len(sources) > 1 else []
    single = [(source,) for source in sources]
    return [
        Row(TARGET_ONLY, (), _target_only),
        *(Row(OURS, each, _ours) for each in [*single, *several]),
        *(
            Row(kind, each, predict)
            for each in single
            for kind, predict in (
                (TRANSFER, _transferred),
                (MULTI_TASK, _multi_task),
                (DOMAIN_ADAPTATION, _adapted),
                (CYCLE_GAN, _translated_first),
                (POOLED, _pooled),
            )
        ),
        *(Row(kind, (), partial(_augmented, augmentation)) for kind, augmentation in AUGMENTED.items() if available()),
        Row(MEAN, (), _mean),
        Row(CHANCE, (), _chance),
    ]


def _answers(network: nn.Module, device: torch.device) -> Callable[[SliceDataset], Tensor]:
    """A network's answers (N,) to slices."""

    @torch.no_grad()
    def answer(slices: SliceDataset) -> Tensor:
        images = images_of(slices, range(len(slices)))
        return torch.cat([network(part.to(device))[:, 0].cpu() for part in images.split(AT_ONCE)])

    return answer


def _ours(split: Split, row: Row) -> Callable[[SliceDataset], Tensor]:
    """DUIIT: translators and predictor trained jointly (Eq. 3)."""
    predictor = split.predictor()
    predictor.load_state_dict(load_tensors(split.run(row.sources, guided=True) / "models" / "model.pt"))
    return _answers(predictor.to(split.device).eval(), split.device)


def _target_only(split: Split, row: Row) -> Callable[[SliceDataset], Tensor]:
    def build() -> Method:
        return MultiTask(split.predictor(), loss=split.loss)

    return _answers(split.trained(row.name, build, split.slices.target), split.device)


def _transferred(split: Split, row: Row) -> Callable[[SliceDataset], Tensor]:
    """Transfer learning: pretrained on the source as long as it is trained on the target."""
    before = split.trained(
        f"pretrained {row.name}",
        lambda: MultiTask(split.predictor(), loss=split.loss),
        split.slices.sources[row.sources[0]],
    )

    def build() -> Method:
        predictor = split.predictor()
        predictor.load_state_dict(before.state_dict())
        return MultiTask(predictor, loss=split.loss)

    return _answers(split.trained(row.name, build, split.slices.target), split.device)


def _multi_task(split: Split, row: Row) -> Callable[[SliceDataset], Tensor]:
    def build() -> Method:
        return MultiTask(split.predictor(), row.sources, split.loss)

    return _answers(split.trained(row.name, build, split.slices), split.device)


def _adapted(split: Split, row: Row) -> Callable[[SliceDataset], Tensor]:
    """Domain adaptation by DANN."""

    def build() -> Method:
        return DANN(split.predictor(), row.sources, split.steps, split.loss, split.target_labels)

    return _answers(split.trained(row.name, build, split.slices), split.device)


def _pooled(split: Split, row: Row) -> Callable[[SliceDataset], Tensor]:
    """A control: source images as they are among those of the target modality."""

    def build() -> Method:
        return MultiTask(split.predictor(), row.sources, split.loss, own_heads=False)

    return _answers(split.trained(row.name, build, split.slices), split.device)


def _translated_first(split: Split, row: Row) -> Callable[[SliceDataset], Tensor]:
    """CycleGAN, and then a predictor from real and translated images together."""
    (source,) = row.sources
    translator = split.translators(row.sources, guided=False)[source]
    slices = ModalityDataset(split.cohort, "training", split.grid, split.target, row.sources)
    slices.sources[source] = _Translated(slices.sources[source], translator, split.device)  # type: ignore[assignment]

    def build() -> Method:
        return MultiTask(split.predictor(), row.sources, split.loss, own_heads=False)

    return _answers(split.trained(f"predictor after {row.name}", build, slices), split.device)


def _augmented(augmentation: str, split: Split, row: Row) -> Callable[[SliceDataset], Tensor]:
    data = AugmentedDataset(split.slices.target, augmentation)
    return _answers(split.trained(row.name, lambda: MultiTask(split.predictor(), loss=split.loss), data), split.device)


def _mean(split: Split, row: Row) -> Callable[[SliceDataset], Tensor]:
    """A control: the training targets' mean."""
    del row
    return lambda slices: torch.full((len(slices),), split.mean)


def _chance(split: Split, row: Row) -> Callable[[SliceDataset], Tensor]:
    """A control: for each slice the target of some training slice."""
    del row
    draw = torch.Generator().manual_seed(split.seed)
    return lambda slices: split.targets[torch.randint(len(split.targets), (len(slices),), generator=draw)]


class _Translated(Dataset[dict[str, Tensor]]):
    """Slices of a source, translated once, with their targets."""

    def __init__(self, slices: SliceDataset, translator: nn.Module, device: torch.device) -> None:
        self.slices = slices
        self.patients = slices.patients
        self.images = translated(translator, images_of(slices, range(len(slices))), device)

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {**self.slices[index], "image": self.images[index]}


def images_of(slices: SliceDataset, places: Iterable[int]) -> Tensor:
    """Some slices' images, (N, 1, H, W)."""
    return torch.stack([slices[int(place)]["image"] for place in places])


@torch.no_grad()
def translated(translator: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Images (N, 1, H, W) in [0, 1], translated, on the CPU."""
    return torch.cat([translator(part.to(device)).clamp(0, 1).cpu() for part in images.split(AT_ONCE)])
