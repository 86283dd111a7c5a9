"""Images on demand (survey, Section 2.3, Eq. 5): of a class, for a lesion mask, or together with one, and their worth.

A GAN without condition stands beside those that are conditioned. What the images show is told by a segmentor that was
trained on real slices of all training patients: how often it finds a lesion, and whether it lies where it was asked
for. What they are worth is told by segmentors that learn from them, alone or with the real slices, and are tested on
real ones; the same slices without them, plain and augmented, are the controls. No generator knows a mask of a patient
whom its segmentor does not know.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.bundles import Bundle, find_bundle, read_config
from pipeline.devices import pick_device
from pipeline.errors import UsageError
from pipeline.inference import Sampler, Samples, load_predictor
from pipeline.methods import Segmentation
from pipeline.metrics import pooled_dice
from pipeline.mosaic import grey, mosaic, outlined, save_png
from pipeline.networks import UNetSegmentor
from pipeline.preprocessing.augmentation import Augmentation
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset, images_of
from pipeline.reports.markdown import count, table
from pipeline.studies.study import mean_sd, once, open_study, over_seeds, trainings_of, write_study
from pipeline.studies.training import run_trained, trained

logger = logging.getLogger(__name__)

BUNDLE = "dcgan"
JOINT, MASKED, CLASS, NONE = "joint", "for masks", "of a class", "unconditional"
# The preset that makes an arm of the bundle.
ARMS: dict[str, tuple[str, ...]] = {JOINT: ("joint",), MASKED: ("masked",), CLASS: ("conditional",), NONE: ()}
PAIRED = (JOINT, MASKED)  # those that give masks to learn from
DRAWN, TAUGHT = "drawn", "taught"  # what is measured
REAL, AUGMENTED = "real", "real, augmented"
WITH_REAL = " + real"
LESSONS = (REAL, AUGMENTED, *(f"{arm}{end}" for arm in PAIRED for end in ("", WITH_REAL)))
FILTERS = 16
FINDER_SEED = 1234  # trainings start from 0: who judges is none of those that are judged
WARP_MM = 5.0
# Fewer pixels than these are no finding.
LEAST_PIXELS = 3
SHOWN = 6
# Of a generator: each epoch ends in weights and curves that are written.
EPOCH_STEPS = 50
OF_STUDY = ("fraction", "seed", "epochs", "repeats", "condition", "joint", "labels", "validate_every", "workers")
METRICS = {
    "found_pathological": ("lesion found where one is asked for", 2),
    "found_healthy": ("where none is", 2),
    "agreement": ("Dice of asked for and found", 3),
    "diversity": ("diversity", 2),
    "dice": ("Dice on real slices, pooled ↑", 3),
    "dice_patients": ("mean over patients ↑", 3),
}


class Pairs(Dataset[dict[str, Tensor]]):
    """Images with their lesion masks, in memory.

    Args:
        images: in [0, 1], shape (N, 1, H, W).
        masks: in {0, 1}, of the same shape.
        augmentation: moves each pair anew; None leaves them as they are.
    """

    def __init__(self, images: Tensor, masks: Tensor, augmentation: Augmentation | None = None) -> None:
        self.images, self.masks, self.augmentation = images, masks, augmentation

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`image` and `mask`, (1, H, W)."""
        image, mask = self.images[index], self.masks[index]
        if self.augmentation is not None:
            image, mask = self.augmentation(image, mask)
        return {"image": image, "mask": mask}

    def beside(self, others: "Pairs") -> "Pairs":
        """These, and as many of the others, which come again and again where they are fewer."""
        again = torch.arange(len(self)) % len(others)
        return Pairs(torch.cat((self.images, others.images[again])), torch.cat((self.masks, others.masks[again])))


@dataclass(frozen=True)
class Lengths:
    """How much is trained and drawn.

    Args:
        steps: of each generator, about.
        iterations: of each segmentor, about.
        drawn: images of each generator.
    """

    steps: int = 600
    iterations: int = 200
    drawn: int = 600


def conditional(
    cohort: Path,
    folder: Path,
    fractions: Sequence[float] = (0.1, 1.0),
    seeds: int = 3,
    lengths: Lengths | None = None,
    presets: Sequence[str] = (),
    overrides: dict[str, Any] | None = None,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Train each arm with each share of the patients and each seed, and segmentors on what they draw.

    `runs/` holds the generators, each a bundle; `drawn.png` what those of the last share and seed 0 draw. Started
    again, it skips what is finished and goes on with a training that was stopped; fractions and seeds may be added.

    Args:
        cohort: folder made by `preprocess`, with lesion masks.
        folder: of the study.
        fractions: shares of the training patients; images of a class and unconditional ones are made of the last alone.
        seeds: trainings of each kind, with the seeds 0, 1, …, each of which draws its own patients.
        lengths: of trainings; None takes the defaults.
        presets: names of `bundle.presets`, laid over all arms.
        overrides: further ids and values, the same for all.
        split: patients to measure on.
        device: where to compute.

    Returns:
        The tables, in Markdown.

    Raises:
        UsageError: if a setting is the study's own, or the folder holds another study.
    """
    bundle, overrides, lengths = find_bundle(BUNDLE), overrides or {}, lengths or Lengths()
    own = sorted(set(overrides) & set(OF_STUDY))
    if own:
        raise UsageError(f"--set {own[0]}: is what the study itself varies or derives; leave it out")
    taken = trainings_of(bundle, cohort, presets, overrides, split)
    open_study(folder, {"study": "conditional", **taken, **vars(lengths)})
    settings = read_config(bundle.config("train"))
    for preset in presets:
        settings |= read_config(bundle.config(preset))
    world = _World(cohort, folder, bundle, presets, overrides, settings | overrides, split, lengths, device)

    def result(kind: str, of: str, fraction: float, seed: int) -> dict[str, Any]:
        def measure() -> dict[str, Any]:
            measured = (world.shown if kind == DRAWN else world.taught)(of, fraction, seed)
            return {"kind": kind, "of": of, "fraction": fraction, "seed": seed, **measured}

        return once(folder / "results" / f"{kind}_{_run_name(of)}_fraction={fraction:g}_seed={seed}.json", measure)

    # All kinds with one seed, then with the next: a study that is stopped has compared them.
    results = []
    for seed in range(seeds):
        for fraction in fractions:
            arms = ARMS if fraction == fractions[-1] else PAIRED
            results += [result(DRAWN, arm, fraction, seed) for arm in arms]
            results += [result(TAUGHT, slices, fraction, seed) for slices in LESSONS]
    real = once(
        folder / "results" / "real.json",
        lambda: {"kind": DRAWN, "of": f"real, {split}", "fraction": 1.0, "seed": 0, **world.real()},
    )
    world.draw(folder / "drawn.png", fractions[-1])
    frame = over_seeds([*results, real], ["kind", "of", "fraction"], list(METRICS))
    page = _page(frame, seeds, lengths, split, world)
    write_study(folder, page, frame, [*results, real], lambda path: _figure(frame).savefig(path, dpi=150))
    return page


@dataclass(frozen=True)
class _World:
    """What all trainings of a study share, and what is measured of them."""

    cohort: Path
    folder: Path
    bundle: Bundle
    presets: Sequence[str]
    overrides: dict[str, Any]
    settings: dict[str, Any]
    split: str
    lengths: Lengths
    device: str
    read: dict[tuple[float, int, tuple[str, ...]], SliceDataset] = field(default_factory=dict)

    @cached_property
    def target(self) -> torch.device:
        return pick_device(self.device)

    @cached_property
    def grid(self) -> Grid:
        return Grid(self.settings["spacing_mm"], self.settings["size"])

    @cached_property
    def tested(self) -> SliceDataset:
        return SliceDataset(self.cohort, self.split, self.grid)

    def slices(self, fraction: float, seed: int, *labels: str) -> SliceDataset:
        """Training slices, those with a lesion if no label is named; read once."""
        key = (fraction, seed, labels or ("pathological",))
        if key not in self.read:
            self.read[key] = SliceDataset(self.cohort, "training", self.grid, key[2], fraction, seed)
        return self.read[key]

    def pairs(self, fraction: float, seed: int) -> Pairs:
        """Real training slices with a lesion."""
        slices = self.slices(fraction, seed)
        return Pairs(images_of(slices), _masks(slices))

    def run(self, arm: str, fraction: float, seed: int) -> Bundle:
        """A trained generator; as many steps with few patients as with many."""
        labels = self.settings["labels"] if arm in (CLASS, NONE) else ["pathological"]
        count, batch = len(self.slices(fraction, seed, *labels)), self.settings["batch_size"]
        repeats = math.ceil(min(EPOCH_STEPS, self.lengths.steps) * batch / count)
        epochs = math.ceil(self.lengths.steps / math.ceil(count * repeats / batch))
        name = f"{_run_name(arm)}_fraction={fraction:g}_seed={seed}"
        own = {
            **self.overrides,
            "fraction": fraction,
            "seed": seed,
            "epochs": epochs,
            "repeats": repeats,
            "validate_every": epochs,
            # A process for a batch of small images in memory costs more than the batch.
            "workers": 0,
            "device_name": self.device,
        }
        return run_trained(self.bundle, self.cohort, self.folder / "runs" / name, [*self.presets, *ARMS[arm]], own)

    def samples(self, arm: str, fraction: float, seed: int, label: str | None = None) -> Samples:
        """What an arm draws; for masks, for those of its own training slices, mirrored at random."""
        logger.info("%s of %g of the patients, seed %d", arm, fraction, seed)
        sampler: Sampler = load_predictor(self.run(arm, fraction, seed), "sampler", self.device)[0]
        masks = None
        if arm == MASKED:
            rng = np.random.default_rng(seed)
            masks = np.asarray(self.slices(fraction, seed).masks[:, 0], np.uint8)
            masks = masks[rng.integers(len(masks), size=self.lengths.drawn)]
            mirrored = rng.random(len(masks)) < 0.5
            masks[mirrored] = masks[mirrored, ::-1]
        return sampler.draw(self.lengths.drawn, seed, label, masks)

    @cached_property
    def finder(self) -> nn.Module:
        """The segmentor that tells what images show, trained on real slices with a lesion and without."""
        slices = self.slices(1.0, 0, "pathological", "healthy")
        return self._segmentor("finder", Pairs(images_of(slices), _masks(slices)), FINDER_SEED)

    def shown(self, arm: str, fraction: float, seed: int) -> dict[str, float]:
        """How often a lesion is found in what an arm draws, whether it is the one asked for, and how images differ."""
        if arm == CLASS:
            sick, well = (self.samples(arm, fraction, seed, label) for label in ("pathological", "healthy"))
            drawn = {"found_healthy": self._found(_tensor(well.images))}
        else:
            sick, drawn = self.samples(arm, fraction, seed), {}
        images = _tensor(sick.images)
        if sick.masks is not None:
            drawn["agreement"] = pooled_dice(_predicted(self.finder, images, self.target), _tensor(sick.masks) > 0)
        real = images_of(self.slices(fraction, seed, *(self.settings["labels"] if arm == NONE else ())))
        spread = float(images.std(dim=0).mean() / real.std(dim=0).mean())
        return {"found_pathological": self._found(images), "diversity": spread, **drawn}

    def real(self) -> dict[str, float]:
        """The same of real slices of patients whom nobody was trained on."""
        images, masks = images_of(self.tested), _masks(self.tested)
        healthy = SliceDataset(self.cohort, self.split, self.grid, ("healthy",))
        return {
            "found_pathological": self._found(images),
            **({"found_healthy": self._found(images_of(healthy))} if len(healthy) else {}),
            "agreement": pooled_dice(_predicted(self.finder, images, self.target), masks > 0),
        }

    def taught(self, taught: str, fraction: float, seed: int) -> dict[str, float]:
        """How a segmentor that learns from these slices finds the lesions of real ones."""
        real = self.pairs(fraction, seed)
        if taught == REAL:
            pairs = real
        elif taught == AUGMENTED:
            pairs = Pairs(real.images, real.masks, Augmentation(warp_px=WARP_MM / self.grid.spacing_mm))
        else:
            samples = self.samples(taught.removesuffix(WITH_REAL), fraction, seed)
            pairs = Pairs(_tensor(samples.images), _tensor(samples.masks).float())
            pairs = pairs.beside(real) if taught.endswith(WITH_REAL) else pairs
        name = f"{_run_name(taught)}_fraction={fraction:g}_seed={seed}"
        predicted = _predicted(self._segmentor(name, pairs, seed), images_of(self.tested), self.target)
        lesion, patients = _masks(self.tested) > 0, np.asarray(self.tested.patients)
        each = [
            pooled_dice(predicted[mine], lesion[mine])
            for mine in (torch.from_numpy(patients == patient) for patient in sorted(set(patients)))
        ]
        return {"dice": pooled_dice(predicted, lesion), "dice_patients": float(np.mean(each)), "slices": len(pairs)}

    def draw(self, path: Path, fraction: float) -> None:
        """Real slices beside what each arm of seed 0 draws; outlines are masks that are real, given or made."""
        columns = {"real": [outlined(image[0].numpy(), mask[0].numpy()) for image, mask in self._first()]}
        for arm in ARMS:
            samples = self.samples(arm, fraction, 0)
            masks = samples.masks
            columns[arm] = [
                grey(image) if masks is None else outlined(image, masks[row])
                for row, image in enumerate(samples.images[:SHOWN])
            ]
        rows = [[column[row] for column in columns.values()] for row in range(min(map(len, columns.values())))]
        save_png(path, mosaic(list(columns), rows, "SYNTHETIC images but for the first column - not for diagnosis"))

    def _first(self) -> list[tuple[Tensor, Tensor]]:
        places = np.linspace(0, len(self.tested) - 1, SHOWN).round().astype(int)
        return [(self.tested[place]["image"], self.tested[place]["mask"]) for place in places]

    def _segmentor(self, name: str, pairs: Pairs, seed: int) -> nn.Module:
        return trained(
            self.folder / "segmentors" / name,
            lambda: Segmentation(UNetSegmentor(filters=FILTERS)),
            lambda: pairs,
            self.lengths.iterations,
            seed,
            self.target,
        )

    def _found(self, images: Tensor) -> float:
        found = _predicted(self.finder, images, self.target).flatten(1).sum(dim=1) >= LEAST_PIXELS
        return float(found.float().mean())


@torch.inference_mode()
def _predicted(segmentor: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Masks of images (N, 1, H, W), bool, on the CPU."""
    return torch.cat([segmentor(part.to(device)).cpu() > 0 for part in images.split(64)])


def _tensor(slices: Any) -> Tensor:
    """Slices (N, H, W) as (N, 1, H, W)."""
    return torch.from_numpy(slices)[:, None]


def _run_name(arm: str) -> str:
    # A run's folder is given to `sample -b`: words and no signs.
    return arm.replace(", ", "_").replace(" + ", "_and_").replace(" ", "_")


def _masks(slices: SliceDataset) -> Tensor:
    return torch.from_numpy(np.array(slices.masks)).float()


def _page(frame: pd.DataFrame, seeds: int, lengths: Lengths, split: str, world: _World) -> str:
    def rows(kind: str, *names: str) -> list[list[str]]:
        chosen = frame[frame["kind"] == kind]
        return [
            [row["of"], f"{row['fraction']:g}", *(mean_sd(row, name, METRICS[name][1]) for name in names)]
            for _, row in chosen.iterrows()
        ]

    shown, worth = ("found_pathological", "found_healthy", "agreement", "diversity"), ("dice", "dice_patients")
    grid = world.grid
    patients = count(len(set(world.tested.patients)), "patient")
    over = (
        f"Mean ± standard deviation over {seeds} trainings, on {len(world.tested)} slices with a lesion of {patients} "
        f"of the {split} split, {'×'.join(map(str, grid.size))} pixels of {grid.spacing_mm:g} mm. Generators take "
        f"{lengths.steps:,} steps and draw {lengths.drawn:,} images, segmentors (U-Net of {FILTERS} filters) "
        f"{lengths.iterations:,} steps, whatever they learn from; the patients' share is the same for both. Beside "
        "synthetic slices, as many real ones are shown."
    )
    meaning = (
        f"A lesion is found if a segmentor trained on all real training slices finds {LEAST_PIXELS} pixels and more; "
        "of images without a condition, none is asked for. Diversity is the mean deviation of a pixel over images, "
        "divided by that over the training slices."
    )
    return "\n\n".join(
        [
            table(["drawn", "patients", *(METRICS[name][0] for name in shown)], rows(DRAWN, *shown)),
            table(["segmentor taught by", "patients", *(METRICS[name][0] for name in worth)], rows(TAUGHT, *worth)),
            over,
            meaning,
        ]
    )


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    taught = frame[frame["kind"] == TAUGHT]
    figure = Figure(figsize=(6.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, group in taught.groupby("of", sort=False):
        axes.errorbar(group["fraction"], group["dice"], yerr=group["dice_sd"], marker="o", capsize=3, label=name)
    axes.set(xlabel="share of the training patients", ylabel="Dice on real slices, pooled", xscale="log")
    axes.legend(fontsize="small")
    return figure
