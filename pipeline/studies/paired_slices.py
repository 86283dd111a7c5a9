"""What the studies of translation share: pairs of slices in memory, small networks, and how a translation is scored."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.bundles import read_config
from pipeline.errors import UsageError
from pipeline.evaluation.controls import HISTOGRAM, INTENSITY, SOURCE, fitted_histogram, fitted_intensities
from pipeline.evaluation.volumes import cohort_grid
from pipeline.files import written_aside
from pipeline.methods import ConditionalGAN, CycleGAN, ImagePool, Method, PairedTranslation
from pipeline.metrics import psnr, ssim
from pipeline.metrics.contrast import lesion_difference, paired_contrast_sums
from pipeline.mosaic import body_box, grey, mosaic, outlined, save_png
from pipeline.networks import MapGenerator, PatchGANDiscriminator
from pipeline.preprocessing.foreground import AIR
from pipeline.preprocessing.pairs import PairedDataset
from pipeline.studies.pictures import spread
from pipeline.studies.study import once
from pipeline.studies.training import trained_exports
from pipeline.training.single import Schedule

Sample = dict[str, Tensor]
Output = Literal["image", "residual"]
AT_ONCE = 16  # slices
FAINT = 1e-6


@dataclass(frozen=True)
class Scale:
    """How large networks and trainings are; a laptop's size by default.

    Args:
        spacing_mm: of pixels.
        iterations: of each training.
        filters: of generators, `MapGenerator`: a U-Net whose skips start at full resolution, which pix2pix's own do
            not, so that it learns as much in a few hundred iterations as that one in many more.
        discriminator_filters: of the patch discriminators.
        batch_size: slices in a step.
        rate: of Adam, for generators.
        discriminator_rate: of Adam, for discriminators.
        pool_size: images that CycleGAN's discriminators are shown again.
    """

    spacing_mm: float = 4.0
    iterations: int = 300
    filters: int = 8
    discriminator_filters: int = 16
    batch_size: int = 8
    rate: float = 2e-3
    discriminator_rate: float = 5e-4
    pool_size: int = 50

    @property
    def schedule(self) -> Schedule:
        """Adam as adversarial networks are trained, the rate constant for half of the epochs and then linear."""
        rates = dict.fromkeys(("discriminator", "discriminators"), self.discriminator_rate)
        return Schedule(self.batch_size, self.rate, "late linear", betas=(0.5, 0.999), rates=rates)

    def generator(self, in_channels: int = 1, output: Output = "image") -> MapGenerator:
        """The same one for all that are compared."""
        return MapGenerator(self.filters, output, in_channels)

    def discriminator(self, in_channels: int = 1, strided: int = 2, whole_image: bool = False) -> PatchGANDiscriminator:
        """Of 34×34 pixels, which are 14 cm at 4 mm, unless told otherwise."""
        filters = self.discriminator_filters
        return PatchGANDiscriminator(filters, in_channels=in_channels, strided=strided, whole_image=whole_image)

    def cycle_gan(self, size: Sequence[int]) -> CycleGAN:
        """Without identity loss, which compares images of different modalities."""
        return CycleGAN(
            self.generator(),
            self.generator(),
            self.discriminator(),
            self.discriminator(),
            ImagePool(self.pool_size, (1, *size)),
            ImagePool(self.pool_size, (1, *size)),
            identity=0.0,
        )

    def regression(self) -> PairedTranslation:
        """The L1 term alone."""
        return PairedTranslation(self.generator(), lambda_gan=0.0)

    def self_regularised(self, weight: float) -> ConditionalGAN:
        """Eq. 8 with least squares."""
        return ConditionalGAN(self.generator(), self.discriminator(), lambda_self=weight)


@dataclass(frozen=True)
class Pairs(Dataset[Sample]):
    """Pairs of slices in memory.

    Attributes:
        image: x, shape (N, C, H, W) in [0, 1].
        target_image: y, shape (N, 1, H, W).
        mask: lesion in {0, 1}, as y.
        patients: whose each slice is.
        spacing_mm: of pixels.
    """

    image: Tensor
    target_image: Tensor
    mask: Tensor
    patients: list[str] = field(repr=False)
    spacing_mm: float

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> Sample:
        return {"image": self.image[index], "target_image": self.target_image[index], "mask": self.mask[index]}

    @property
    def foreground(self) -> Tensor:
        """Where either image shows anything, bool, shape (N, 1, H, W)."""
        return (self.target_image > AIR) | (self.image > AIR).any(dim=1, keepdim=True)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the slices."""
        height, width = self.image.shape[2:]
        return height, width

    def chosen(self, indices: Sequence[int]) -> "Pairs":
        """Some of the slices."""
        rows = list(indices)
        return replace(
            self,
            image=self.image[rows],
            target_image=self.target_image[rows],
            mask=self.mask[rows],
            patients=[self.patients[row] for row in rows],
        )


def read_pairs(cohort: Path, split: str, spacing_mm: float, sources: Sequence[str], target: str) -> Pairs:
    """All pairs of a split, on the smallest canvas that holds the cohort's slices.

    Raises:
        UsageError: if there is none, or as `PairedDataset`.
    """
    data = PairedDataset(cohort, split, cohort_grid(cohort, spacing_mm), sources, target)
    if not len(data):
        raise UsageError(f"{cohort}: found no slice in the {split} split, expected some; choose another split")
    samples = [data[index] for index in range(len(data))]
    images, targets, masks = (torch.stack([each[key] for each in samples]) for key in ("image", "target_image", "mask"))
    return Pairs(images, targets, masks, data.slices.patients, spacing_mm)


class Unpaired(Dataset[Sample]):
    """Each source slice beside a target slice of anybody: `image` and `healthy`, as unpaired methods call them.

    The other is drawn anew each time, from torch's global random state, which checkpoints keep.

    Args:
        sources: slices of the source domain; their first channel.
        targets: slices of the target domain.
    """

    def __init__(self, sources: Tensor, targets: Tensor) -> None:
        self.sources, self.targets = sources[:, :1], targets

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Sample:
        return {"image": self.sources[index], "healthy": self.targets[int(torch.randint(len(self.targets), ()))]}


@torch.inference_mode()
def translated(network: nn.Module, images: Tensor) -> Tensor:
    """What a network makes of slices, in [0, 1], on the CPU."""
    device = next(network.parameters()).device
    parts = [network(part.to(device)).float().cpu().clamp(0, 1) for part in images.split(AT_ONCE)]
    return torch.cat(parts)


def intensity_controls(training: Pairs) -> dict[str, Callable[[Tensor], Tensor]]:
    """The source as it is, and the two maps of its intensities that the training pairs give, of the first source."""

    def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
        inside = training.foreground
        return [(training.image[:, :1][inside].numpy(), training.target_image[inside].numpy())]

    def through(by: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensor], Tensor]:
        return lambda images: torch.where(images[:, :1] > AIR, torch.from_numpy(by(images[:, :1].numpy())), 0.0)

    return {
        SOURCE: lambda images: images[:, :1],
        HISTOGRAM: through(fitted_histogram(pairs())),
        INTENSITY: through(fitted_intensities(pairs())),
    }


METRICS = {
    "psnr": ("PSNR, dB ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "contrast": ("lesion contrast, % of the window", 1),
    "sharpness": ("sharpness", 2),
}
DEFINITIONS = (
    "PSNR and SSIM against the person's own image of the target modality, over head or body, mean of slices, then of "
    "patients. Lesion contrast: mean of all lesions − mean of the tissue 5 to 15 mm around them; what is kept of it is "
    "seen beside that of the target itself. Sharpness: mean gradient over head or body, divided by that of the target; "
    "below 1 is blur, which PSNR does not punish."
)


def scores(made: Tensor, pairs: Pairs) -> dict[str, float | None]:
    """`METRICS` of a translation of all pairs; None is what cannot be said: contrast without a lesion.

    Args:
        made: in [0, 1], shape (N, 1, H, W).
        pairs: with the truth.
    """
    inside, y = pairs.foreground, pairs.target_image
    by_slice = pd.DataFrame(
        {"patient": pairs.patients, "psnr": psnr(made, y, inside).numpy(), "ssim": ssim(made, y, inside).numpy()}
    )
    means = by_slice.groupby("patient")[["psnr", "ssim"]].mean().mean()
    sums = paired_contrast_sums(made, y, pairs.mask > 0, inside, (pairs.spacing_mm, pairs.spacing_mm))
    contrast = 100 * lesion_difference(pd.DataFrame(sums), "translated")
    return {
        "psnr": float(means["psnr"]),
        "ssim": float(means["ssim"]),
        "contrast": None if math.isnan(contrast) else contrast,
        "sharpness": _gradient(made, inside) / max(_gradient(y, inside), FAINT),
    }


def control_scores(training: Pairs, measured: Pairs) -> list[dict[str, Any]]:
    """Rows of a table: the target itself, of which PSNR and SSIM say nothing, and each of the controls."""
    known = {**scores(measured.target_image, measured), "psnr": None, "ssim": None}
    controls = intensity_controls(training).items()
    return [
        {"row": "the target itself", **known},
        *({"row": name, **scores(make(measured.image), measured)} for name, make in controls),
    ]


def _gradient(images: Tensor, inside: Tensor) -> float:
    """Mean absolute difference of neighbours of which both lie inside."""
    rows, columns = images.diff(dim=2).abs(), images.diff(dim=3).abs()
    both_rows, both_columns = inside[:, :, 1:] & inside[:, :, :-1], inside[:, :, :, 1:] & inside[:, :, :, :-1]
    return float(torch.cat((rows[both_rows], columns[both_columns])).mean())


class Translations:
    """The trainings of a study, each done once: its scores, and some of what it makes, are kept beside its weights.

    Args:
        folder: of the study; `results/` holds the scores, `shown/` slices of the first seed, `trainings/` the weights,
            which are needed no more once the others are there.
        measured: what the translators are measured on.
        scale: of networks and trainings.
        device: where to compute.
    """

    def __init__(self, folder: Path, measured: Pairs, scale: Scale, device: torch.device) -> None:
        self.folder, self.measured, self.scale, self.device = folder, measured, scale, device
        self.rows = shown_rows(measured)

    def result(
        self,
        keys: dict[str, Any],
        build: Callable[[], Method],
        dataset: Dataset[Sample],
        score: Callable[[Tensor, Mapping[str, nn.Module]], dict[str, Any]],
    ) -> dict[str, Any]:
        """A row of the results: the keys, the seconds that training took, and scores; trained first if it is not there.

        Args:
            keys: what tells the row apart, with `seed`.
            build: makes the method.
            dataset: training pairs, or what is made of them.
            score: from translations of all that is measured, and the method's exports, to numbers.
        """
        stem = self.stem(keys)
        path = self.folder / "results" / f"{stem}.json"
        shown = self._shown(stem)
        if not path.is_file() or (keys["seed"] == 0 and not shown.is_file()):
            start = perf_counter()
            place, scale = self.folder / "trainings" / stem, self.scale
            exports = trained_exports(
                place, build, lambda: dataset, scale.iterations, keys["seed"], self.device, schedule=scale.schedule
            )
            seconds = perf_counter() - start
            made = translated(next(iter(exports.values())), self.measured.image)
            if keys["seed"] == 0:
                with written_aside(shown) as aside, aside.open("wb") as file:
                    np.savez_compressed(file, made=made[self.rows].numpy())
            once(path, lambda: {**keys, "seconds": seconds, **score(made, exports)})
        return read_config(path)

    def scores(self, made: Tensor, exports: Mapping[str, nn.Module]) -> dict[str, Any]:
        """`METRICS` of translations of all that is measured, whatever made them."""
        del exports
        return scores(made, self.measured)

    @staticmethod
    def stem(keys: Mapping[str, Any]) -> str:
        """What the files of a row are called."""
        return re.sub(r"[^\w.=+-]+", "_", "_".join(f"{name}={value}" for name, value in keys.items()))

    def _shown(self, stem: str) -> Path:
        return self.folder / "shown" / f"{stem}.npz"

    def write_pictures(self, columns: Mapping[str, Mapping[str, Any]], legend: str) -> None:
        """Write `pictures.png`: source, what some rows of the first seed made of it, and the target, lesion outlined.

        Args:
            columns: keys of the rows by heading.
            legend: below.
        """
        made = {}
        for heading, keys in columns.items():
            with np.load(self._shown(self.stem(keys))) as stored:
                made[heading] = stored["made"][:, 0]
        pictures = []
        for place, row in enumerate(self.rows):
            box = body_box(self.measured.foreground[row, 0].numpy())
            source, target, mask = (
                images[row, 0].numpy()[box]
                for images in (self.measured.image, self.measured.target_image, self.measured.mask)
            )
            pictures.append(
                [grey(source), *(grey(images[place][box]) for images in made.values()), outlined(target, mask)]
            )
        save_png(self.folder / "pictures.png", mosaic(["source", *made, "target"], pictures, legend))


def shown_rows(pairs: Pairs) -> list[int]:
    """For some patients the slice with the largest lesion."""
    areas = pairs.mask.sum(dim=(1, 2, 3))
    largest: dict[str, int] = {}
    for row, patient in enumerate(pairs.patients):
        if patient not in largest or areas[row] > areas[largest[patient]]:
            largest[patient] = row
    return spread(list(largest.values()))


def about(training: Pairs, measured: Pairs, scale: Scale, split: str, seeds: int, what: str = "Trained on") -> str:
    """What the table was measured on, in a sentence that begins with what was done with the training slices."""
    height, width = training.size
    patients = [len(set(pairs.patients)) for pairs in (training, measured)]
    return (
        f"{what} {len(training)} slices of {patients[0]} patients, measured on {len(measured)} of {patients[1]} "
        f"{split} patients, {height}×{width} pixels of {scale.spacing_mm:g} mm; mean ± standard deviation over "
        f"{seeds} training{'s' if seeds > 1 else ''} of {scale.iterations} iterations of {scale.batch_size} slices, "
        f"U-Net of {scale.filters} filters. The papers' networks are larger and are trained for longer."
    )


def settings_of(scale: Scale) -> dict[str, Any]:
    """A scale as `study.json` holds it."""
    return {f"scale_{name}": value for name, value in vars(scale).items()}
