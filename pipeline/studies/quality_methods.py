"""What `study quality` compares: restorations that are trained, and controls that are not (survey, Section 5.3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.methods.restoration import Restoration
from pipeline.networks import FeatureDecoder, FeatureEncoder, PatchGANDiscriminator, RestorationUNet
from pipeline.phantoms.small_lesions import small_lesions
from pipeline.preprocessing.degradation import Degradation, Noise, ThickSlices, Undersampling
from pipeline.preprocessing.degraded import DegradedDataset, Run
from pipeline.preprocessing.foreground import AIR
from pipeline.preprocessing.grid import Grid
from pipeline.studies.training import trained
from pipeline.training.single import Schedule

STRIDE = 16
AT_ONCE = 16
L1, ADVERSARIAL, WASSERSTEIN = "L1", "adversarial + L1", "Wasserstein + perceptual"
NON_LOCAL_MEANS = "non-local means"
# Pixels of a patch, and how far away others like it are looked for; strengths in units of the noise.
PATCH, SEARCHED = 5, 6
STRENGTHS = (0.4, 0.6, 0.8, 1.0, 1.2)
TUNED_ON = 12
# Of Adam: where networks play against each other, little momentum.
BETAS = {L1: (0.9, 0.999), ADVERSARIAL: (0.5, 0.999), WASSERSTEIN: (0.5, 0.9)}
# λ₁ where λ₂, or λ_φ, is 1.
ADVERSARIAL_WEIGHT, WASSERSTEIN_WEIGHT = 0.01, 0.001


@dataclass(frozen=True)
class Scale:
    """Sizes of a study; the defaults fit a laptop.

    Args:
        spacing_mm: pixel of the grid, on which the images are degraded and restored.
        field_mm: side of the square canvas.
        filters: of the generator's first stage.
        discriminator_filters: of the discriminator's first layer.
        feature_filters: of the perceptual term's encoder.
        steps: of the generator; whole epochs are trained.
        feature_steps: of the encoder, before.
        batch_size: slices in a step.
        critic_steps: of the Wasserstein critic, for each step of the generator; 4 in Yang et al.
        judge_filters: of the network whose features the Fréchet distance is taken of.
        judge_steps: of its training.
        noise: standard deviation of the noise, as a share of the window.
        fraction: share of k-space lines that is measured.
        centre: share of lines that is measured around the middle.
        group: thin slices of a thick one.
        thickest_mm: of thin slices.
        planted: lesions in each scan.
    """

    spacing_mm: float = 4.0
    field_mm: float = 240.0
    filters: int = 8
    discriminator_filters: int = 16
    feature_filters: int = 16
    steps: int = 80
    feature_steps: int = 60
    batch_size: int = 8
    critic_steps: int = 2
    judge_filters: int = 8
    judge_steps: int = 200
    noise: float = 0.08
    fraction: float = 0.3
    centre: float = 0.08
    group: int = 5
    thickest_mm: float = 2.0
    planted: int = 6

    @property
    def grid(self) -> Grid:
        """The canvas, of sides that the networks can halve four times."""
        side = STRIDE * max(2, round(self.field_mm / self.spacing_mm / STRIDE))
        return Grid(self.spacing_mm, (side, side))


@dataclass(frozen=True)
class Task:
    """One way in which images are made worse.

    Attributes:
        name: in tables and files.
        degraded: what the table calls the images that nothing was done to.
        neighbours: slices above and below that networks see.
        degradation: by the study's scale.
        beside: whether networks are tried with a second contrast, too, where the cohort has one.
    """

    name: str
    degraded: str
    neighbours: int
    degradation: Callable[[Scale], Degradation]
    beside: bool = False


TASKS = {
    task.name: task
    for task in (
        Task("denoise", "noisy", 0, lambda scale: Noise((scale.noise, scale.noise))),
        Task(
            "k-space",
            "zero-filled",
            0,
            lambda scale: Undersampling((scale.fraction, scale.fraction), scale.centre),
            beside=True,
        ),
        # From a thin slice at the border of a thick one to the middle of the next: half of a group of 5.
        Task("super-resolution", "bicubic", 3, lambda scale: ThickSlices(scale.group, thickest_mm=scale.thickest_mm)),
    )
}


@dataclass
class Setting:
    """One task on one cohort, and what is trained for it.

    Args:
        task: what is done to the images.
        cohort: folder made by `preprocess`.
        folder: of the study.
        channels: the one to restore, then one that networks may be shown as it is.
        split: that is measured.
        scale: sizes.
        device: where to compute.
    """

    task: Task
    cohort: Path
    folder: Path
    channels: Sequence[str]
    split: str
    scale: Scale
    device: torch.device
    _data: dict[tuple[str, int], DegradedDataset] = field(default_factory=dict, init=False)
    _planted: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False)

    def slices(self, split: str, channels: int = 1) -> DegradedDataset:
        """Degraded slices with the first so many channels; those that are not trained on have fixed draws."""
        key = split, channels
        if key not in self._data:
            self._data[key] = DegradedDataset(
                self.cohort,
                split,
                self.scale.grid,
                self.task.degradation(self.scale),
                self.channels[:channels],
                self.task.neighbours,
                fixed=split != "training",
            )
        return self._data[key]

    def planted(self, number: int, run: Run, given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What is planted in a scan, and to which lesion each voxel belongs, (S, 1, H, W); the same for all rows.

        Args:
            number: of the scan in the split, which with `Scale.planted` is the seed.
            run: its slices.
            given: as `DegradedDataset.scan` gives them.
        """
        if number not in self._planted:
            mm = self.scale.spacing_mm
            made = small_lesions(
                given["target_image"][:, 0].numpy(),
                given["mask"][:, 0].numpy() > 0,
                (run.subject.spacing_mm[0], mm, mm),
                self.scale.planted,
                np.random.default_rng([number, self.scale.planted]),
            )
            added, numbers = (torch.from_numpy(one)[:, None] for one in made)
            self._planted[number] = added, numbers
        return self._planted[number]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the restoration.
        channels: how many it is shown, of `Setting.channels`.
        restore: makes, for a seed, what restores network inputs (N, C, H, W) to slices (N, 1, H, W) in [0, 1].
        seeded: whether a seed changes it.
    """

    name: str
    channels: int
    restore: Callable[[Setting, int], Callable[[Tensor], Tensor]]
    seeded: bool = True


def rows_of(setting: Setting) -> list[Row]:
    """All restorations of a task; those that are shown the second channel where there is one."""
    controls = [Row(setting.task.degraded, 1, _degraded, seeded=False)]
    if setting.task.name == "denoise":
        controls.append(Row(NON_LOCAL_MEANS, 1, _non_local_means, seeded=False))
    methods = [Row(name, 1, partial(_trained, name, 1)) for name in (L1, ADVERSARIAL, WASSERSTEIN)]
    if setting.task.beside and len(setting.channels) > 1:
        methods += [
            Row(f"{name}, with {setting.channels[1]}", 2, partial(_trained, name, 2)) for name in (L1, ADVERSARIAL)
        ]
    return [*controls, *methods]


def _degraded(setting: Setting, seed: int) -> Callable[[Tensor], Tensor]:
    """A control: nothing is done."""
    del seed
    middle = setting.task.neighbours
    return lambda images: images[:, middle : middle + 1]


def _non_local_means(setting: Setting, seed: int) -> Callable[[Tensor], Tensor]:
    """A control (Buades et al. 2005), told the noise's true level; its strength is the best on some training slices."""
    del seed
    level = setting.scale.noise
    slices = setting.slices("training")
    shown = [slices[int(place)] for place in np.linspace(0, len(slices) - 1, TUNED_ON)]
    images, truth = (torch.stack([sample[name] for sample in shown]) for name in ("image", "target_image"))

    def error(strength: float) -> float:
        inside = truth > AIR
        return float((_denoised(images, level, strength) - truth)[inside].square().mean())

    best = min(STRENGTHS, key=error)
    return lambda images: _denoised(images, level, best)


def _denoised(images: Tensor, level: float, strength: float) -> Tensor:
    """By non-local means, without the noise's share in the magnitude: √(m² − level²)."""
    from skimage.restoration import denoise_nl_means

    made = [
        denoise_nl_means(
            one.numpy(), patch_size=PATCH, patch_distance=SEARCHED, h=strength * level, sigma=level, fast_mode=True
        )
        for one in images[:, 0]
    ]
    means = torch.from_numpy(np.stack(made)).float()[:, None]
    return (means.square() - level**2).clamp_min(0).sqrt().clamp(0, 1)


def _trained(name: str, channels: int, setting: Setting, seed: int) -> Callable[[Tensor], Tensor]:
    """A network, trained now or before."""
    scale = setting.scale
    steps = scale.steps
    if name == WASSERSTEIN:
        steps = scale.feature_steps + scale.critic_steps * scale.steps
    file = f"{setting.task.name}_{name}_{channels}".replace(" ", "-").replace("+", "and")
    network = trained(
        setting.folder / "runs" / f"{file}_seed={seed}",
        lambda: method_of(name, channels, setting.task, scale),
        lambda: setting.slices("training", channels),
        steps,
        seed,
        setting.device,
        schedule=Schedule(scale.batch_size, betas=BETAS[name], decay="late linear"),
    )
    return partial(restored, network, device=setting.device)


def method_of(name: str, channels: int, task: Task, scale: Scale) -> Restoration:
    """The method of a row, with the first weights of its networks."""
    generator = RestorationUNet(channels, task.neighbours, scale.filters)
    if name == L1:
        return Restoration(generator, lambda_gan=0.0, lambda_l1=1.0)
    if name == ADVERSARIAL:
        shown = channels * (2 * task.neighbours + 1)
        discriminator = PatchGANDiscriminator(scale.discriminator_filters, in_channels=shown + 1, strided=2)
        return Restoration(generator, discriminator, lambda_gan=ADVERSARIAL_WEIGHT, lambda_l1=1.0)
    return Restoration(
        generator,
        PatchGANDiscriminator(scale.discriminator_filters, strided=2),
        FeatureEncoder(scale.feature_filters),
        FeatureDecoder(scale.feature_filters),
        objective="wasserstein_gp",
        lambda_gan=WASSERSTEIN_WEIGHT,
        lambda_l1=0.0,
        lambda_features=1.0,
        conditional=False,
        critic_steps=scale.critic_steps,
        feature_steps=scale.feature_steps,
    )


@torch.no_grad()
def restored(network: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """What a network makes of its inputs, in [0, 1], on the CPU."""
    return torch.cat([network(part.to(device)).float().cpu().clamp(0, 1) for part in images.split(AT_ONCE)])
