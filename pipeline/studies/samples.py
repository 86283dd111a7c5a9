"""Families of generators at equal time: what their images are worth (survey, Sections 2.2, 2.4 and 5.1).

A perceptron, DCGAN, a Laplacian pyramid, progressive growing and InfoGAN learn from the same slices for the same time.
Their images are held against real slices of other people, beside real ones, the training slices themselves and a
Gaussian of principal components; their latent spaces are looked at; and a classifier learns from real slices with and
without made ones.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.bundles import find_bundle
from pipeline.devices import pick_device
from pipeline.errors import UsageError
from pipeline.evaluation.volumes import HEALTHY, PATHOLOGICAL
from pipeline.methods import Segmentation
from pipeline.metrics.anomaly import auroc
from pipeline.metrics.generation import frechet_distance, inception_score
from pipeline.metrics.nearest import copying, nearest, precision_recall
from pipeline.mosaic import grey, mosaic, outlined, save_png
from pipeline.networks import UNetSegmentor
from pipeline.networks.dcgan import with_class
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset, images_of
from pipeline.studies.families import Families
from pipeline.studies.feature_network import FeatureNetwork, PlaceDataset, of_places, shuffled
from pipeline.studies.latent_space import Generator, direction, halfway, moved, signed, told, walk
from pipeline.studies.saliency import Classification, SliceClassifier
from pipeline.studies.study import by_row, file_name, once, open_study, over_seeds, rows_of, trainings_of, write_study
from pipeline.studies.training import trained

logger = logging.getLogger(__name__)

BUNDLE = "dcgan"
PERCEPTRON, DCGAN, PYRAMID = "perceptron", "DCGAN", "Laplacian pyramid"
PROGRESSIVE, INFO_GAN = "progressive growing", "InfoGAN"
# The presets of the bundle that make an arm of it.
ARMS: dict[str, tuple[str, ...]] = {
    PERCEPTRON: ("mlp",),
    DCGAN: (),
    PYRAMID: ("laplacian",),
    PROGRESSIVE: ("progressive",),
    INFO_GAN: ("infogan",),
}
CONDITIONAL = ("conditional",)
OTHERS, TRAINING = "real slices of other people", "the training slices themselves"
COMPONENTS = "Gaussian of principal components"
OTHER_SPLIT = {"validation": "test", "test": "validation"}
OF_STUDY = ("epochs", "seed", "fraction", "labels", "condition", "joint", "amp")

QUALITY = {
    "fid": ("FID ↓", 2),
    "is": ("IS ↑", 2),
    "precision": ("precision ↑", 3),
    "recall": ("recall ↑", 3),
    "copying": ("copying (0.5 is new)", 3),
    "seconds": ("seconds", 0),
    "iterations": ("steps", 0),
}
LATENT = {
    "ends": ("images", 3),
    "walk": ("halfway on a walk", 3),
    "cross_fade": ("halfway by cross-fading", 3),
}
SIGN = {
    "drawn": ("as drawn", 3),
    "added": ("lesion added ↑", 3),
    "taken away": ("lesion taken away ↓", 3),
    "random": ("random direction", 3),
}
HELP = {"auroc": ("AUROC ↑", 3)}
REAL_ONLY, WITH_SAMPLES, WITH_COMPONENTS = (
    "real slices",
    "real slices and as many of a class-conditional DCGAN",
    "real slices and as many of a Gaussian of each class",
)
# A laptop's size: three seeds of all families within an hour on two cores.
LAPTOP: dict[str, Any] = {"size": [32, 32], "spacing_mm": 7.0}
MOST_COMPARED, CODES = 1000, 10
MOST_COMPONENTS, SHOWN, STEPS = 64, 8, 8
FEATURE_FILTERS, FEATURE_STEPS = 8, 1200
DETECTOR_FILTERS, DETECTOR_STEPS, CLASSIFIER_STEPS = 8, 600, 400
LEGEND = "SYNTHETIC images of no person; not for diagnosis"


def samples(
    cohort: Path,
    folder: Path,
    seconds: float = 30.0,
    seeds: int = 3,
    presets: Sequence[str] = ("laptop",),
    overrides: dict[str, Any] | None = None,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Train each family for about the same time with each seed, and measure its images and its latent space.

    How many epochs the time is enough for is measured once for each family, before its trainings, so that trainings of
    one family are equally long whatever else the machine does. `samples.png`, `nearest.png`, `walk.png`,
    `arithmetic.png` and `codes.png` show the images of seed 0.

    Started again, it skips what is finished and goes on with a training that was stopped; seeds may be added then, all
    else stays.

    Args:
        cohort: folder made by `preprocess`, with masks.
        folder: of the study.
        seconds: of each training.
        seeds: trainings of each family, with the seeds 0, 1, ….
        presets: names of `bundle.presets`, laid under those that make a family.
        overrides: settings over `LAPTOP`, the same for all.
        split: patients whose slices are the real ones; those of the other of `validation` and `test` are the control.
        device: where to compute.

    Returns:
        The tables, in Markdown.

    Raises:
        UsageError: if a setting makes no sense here, or the folder holds another study.
    """
    bundle, overrides = find_bundle(BUNDLE), {**LAPTOP, **(overrides or {})}
    _check(presets, overrides)
    families = Families(bundle, presets, overrides, folder, seconds, pick_device(device))
    study = _Study(families, cohort, folder, split)
    open_study(
        folder,
        {"study": "samples", **trainings_of(bundle, cohort, presets, overrides, split), "seconds": seconds},
    )
    results: list[dict[str, Any]] = []
    for seed in range(seeds):
        parts = dict.fromkeys((OTHERS, TRAINING, COMPONENTS, *ARMS), study.row)
        parts |= dict.fromkeys((REAL_ONLY, WITH_SAMPLES, WITH_COMPONENTS), study.helped)
        results += [
            once(folder / "results" / f"{file_name(name)}_seed={seed}.json", partial(part, name, seed))
            for name, part in parts.items()
        ]
    study.pictures()
    frame = over_seeds(results, ["row"], [*QUALITY, *LATENT, *SIGN, *HELP, "told", "told_of_noise"])
    page = _page(frame, study, seeds)
    write_study(folder, page, frame, results, lambda path: _figure(frame).savefig(path, dpi=150))
    return page


def _check(presets: Sequence[str], overrides: dict[str, Any]) -> None:
    """Refuse what cannot be studied, before anything is written."""
    for name in {*overrides} & {*OF_STUDY}:
        raise UsageError(f"--set {name}: is set by the study itself; leave it out, and see its own options")
    for name in {*presets} & {preset for arm in (*ARMS.values(), CONDITIONAL) for preset in arm}:
        raise UsageError(f"--preset {name}: is an arm of the study itself; leave it out")


class _Study:
    """What the parts of a study share, and what is read and trained once."""

    def __init__(self, families: Families, cohort: Path, folder: Path, split: str) -> None:
        self.families, self.cohort, self.folder, self.split = families, cohort, folder, split
        self.device, self.settings = families.device, families.settings()
        self._slices: dict[str, SliceDataset] = {}

    def slices(self, split: str) -> SliceDataset:
        """Healthy and pathological slices of a split, as the generators see them."""
        if split not in self._slices:
            grid = Grid(self.settings["spacing_mm"], tuple(self.settings["size"]))
            self._slices[split] = SliceDataset(self.cohort, split, grid, (HEALTHY, PATHOLOGICAL))
        return self._slices[split]

    @cached_property
    def learned(self) -> SliceDataset:
        """The training slices."""
        return self.slices("training")

    @cached_property
    def training(self) -> Tensor:
        """The training slices, shape (N, 1, H, W)."""
        return images_of(self.learned)

    @cached_property
    def real(self) -> Tensor:
        """What all images are held against, in an order drawn once."""
        return shuffled(list(images_of(self.slices(self.split))), 0)[:MOST_COMPARED]

    @cached_property
    def network(self) -> FeatureNetwork:
        """What all distances are of."""
        run = self.folder / "runs" / "feature_network"
        return of_places(run, self.learned, FEATURE_FILTERS, FEATURE_STEPS, self.device)

    @property
    def accuracy(self) -> float:
        """Of that network, on slices that it did not learn from."""
        held = self.slices(self.split)
        _, probabilities = self.network(images_of(held))
        return float((probabilities.argmax(dim=1) == torch.tensor(PlaceDataset(held).kinds)).double().mean())

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """Of the training slices and of `real`."""
        return {"training": self.network(self.training)[0], "real": self.network(self.real)[0]}

    @cached_property
    def detector(self) -> Callable[[Tensor], Tensor]:
        """An independent segmentor, trained on the real training slices: images to lesion masks, bool."""
        network = trained(
            self.folder / "runs" / "detector",
            lambda: Segmentation(UNetSegmentor(filters=DETECTOR_FILTERS)),
            lambda: self.learned,
            DETECTOR_STEPS,
            0,
            self.device,
        )

        @torch.inference_mode()
        def found(images: Tensor) -> Tensor:
            return torch.cat([network(part.to(self.device)).cpu() > 0 for part in images.split(64)])

        return found

    def generator(self, arm: str, seed: int) -> Generator:
        """What a family's training made."""
        return self.families.generator(ARMS[arm], self.learned, seed)

    def row(self, name: str, seed: int) -> dict[str, Any]:
        """The figures of a family or of a control, from as many images as there are real ones."""
        count = len(self.real)
        if name in ARMS:
            taken = self.families.taken(ARMS[name], self.learned, seed)
            generator = self.generator(name, seed)
            return {
                **self._quality(name, seed, generator(generator.draw(count, seed))),
                "seconds": taken,
                "iterations": self.families.steps(ARMS[name], self.learned),
                **self._latent(generator, seed),
            }
        if name == COMPONENTS:
            return self._quality(name, seed, components(self.training, count, seed))
        slices = self.training if name == TRAINING else images_of(self.slices(OTHER_SPLIT[self.split]))
        return self._quality(name, seed, shuffled(list(slices), seed)[:count])

    def _quality(self, name: str, seed: int, images: Tensor) -> dict[str, Any]:
        features, probabilities = self.network(images.clamp(0, 1))
        precision, recall = precision_recall(features, self.features["real"])
        return {
            "row": name,
            "seed": seed,
            "images": len(images),
            "fid": frechet_distance(features, self.features["real"][: len(features)]),
            "is": inception_score(probabilities, min(4, len(images)))[0],
            "precision": precision,
            "recall": recall,
            "copying": copying(features, self.features["training"], self.features["real"]),
        }

    def _latent(self, generator: Generator, seed: int) -> dict[str, float]:
        """How the latent space is: walks, the direction of a lesion, and what a code tells."""
        found: dict[str, float] = halfway(generator, lambda x: self.network(x)[0], self.features["real"], seed)
        by = direction(generator, self.area, seed)
        if by is not None:
            found |= {
                name: float((areas > 0).double().mean())
                for name, areas in signed(generator, self.area, by, seed + 1000).items()
            }
        latents = generator.draw(MOST_COMPARED, seed)
        _, probabilities = self.network(generator(latents))
        # InfoGAN's category is the largest of its first numbers; in the others these are noise like any other.
        found["told"] = told(latents[:, :CODES].argmax(dim=1), probabilities)
        found["told_of_noise"] = told(latents[:, -CODES:].argmax(dim=1), probabilities)
        return found

    def area(self, images: Tensor) -> Tensor:
        """How many pixels of each image the detector takes for lesion."""
        return self.detector(images).flatten(1).sum(dim=1).float()

    def helped(self, name: str, seed: int) -> dict[str, Any]:
        """How well a classifier tells slices with a lesion that learned from real slices, and from made ones too."""
        real, present = self.training, _present(self.learned)
        images, classes = [real], [present]
        for label in (False, True) if name != REAL_ONLY else ():
            count = int((present == label).sum())
            images.append(self._made(name, label, real[present == label], seed))
            classes.append(torch.full((count,), label))
        data = _Labelled(torch.cat(images), torch.cat(classes))
        network = trained(
            self.folder / "runs" / f"classifier_{file_name(name)}_seed={seed}",
            lambda: Classification(SliceClassifier()),
            lambda: data,
            CLASSIFIER_STEPS,
            seed,
            self.device,
        )
        held = self.slices(self.split)
        with torch.inference_mode():
            scores = torch.cat([network(part.to(self.device)).cpu() for part in images_of(held).split(64)])
        return {
            "row": name,
            "seed": seed,
            "slices": len(data),
            "auroc": auroc(scores, _present(held)[:, None]),
        }

    def _made(self, name: str, label: bool, like: Tensor, seed: int) -> Tensor:
        """As many images of a class as there are real ones."""
        if name == WITH_COMPONENTS:
            return components(like, len(like), 2 * seed + label)
        generator = self.families.generator(CONDITIONAL, self.learned, seed)
        latents = generator.draw(len(like), 2 * seed + label)
        return generator(with_class(latents, torch.full((len(like),), int(label))))

    def pictures(self) -> None:
        """What seed 0 made."""
        made = {arm: self.generator(arm, 0) for arm in ARMS}
        drawn = {arm: generator(generator.draw(SHOWN, 0)) for arm, generator in made.items()}
        shown = [self.real, components(self.training, SHOWN, 0), *drawn.values()]
        legend = f"From above: {'; '.join(('real', COMPONENTS, *ARMS))}. {LEGEND}"
        rows = [_greys(images[:SHOWN]) for images in shown]
        save_png(self.folder / "samples.png", mosaic([""] * SHOWN, rows, legend))
        rows = []
        for images in drawn.values():
            _, places = nearest(self.network(images)[0], self.features["training"])
            pairs = zip(_greys(images), _greys(self.training[places]), strict=True)
            rows.append([panel for pair in pairs for panel in pair][:SHOWN])
        titles = ["sample", "nearest training slice"] * (SHOWN // 2)
        legend = f"From above: {'; '.join(ARMS)}. {LEGEND}"
        save_png(self.folder / "nearest.png", mosaic(titles, rows, legend))
        rows = []
        for generator in made.values():
            one, other = generator.draw(2, 1).chunk(2)
            rows.append(_greys(generator(torch.cat([walk(one, other, at) for at in np.linspace(0, 1, STEPS)]))))
        save_png(self.folder / "walk.png", mosaic([""] * STEPS, rows, legend))
        self._signed_picture(made[DCGAN])
        codes = made[INFO_GAN].draw(1, 2).repeat(CODES * 5, 1)
        codes[:, :CODES] = torch.eye(CODES).repeat_interleave(5, dim=0)
        codes[:, CODES] = torch.linspace(-2, 2, 5).repeat(CODES)
        panels = _greys(made[INFO_GAN](codes))
        rows = [panels[first : first + 5] for first in range(0, len(panels), 5)]
        legend = f"InfoGAN: a category in each row, the first number from −2 to 2 along it. {LEGEND}"
        save_png(self.folder / "codes.png", mosaic([""] * 5, rows, legend))

    def _signed_picture(self, generator: Generator) -> None:
        """Some images of DCGAN with the direction of a lesion taken away and added, and what is found in each."""
        by = direction(generator, self.area, 0)
        if by is None:
            return
        latents = generator.draw(5, 3)
        columns = [generator(each) for each in (moved(latents, by, -1), latents, moved(latents, by, 1))]
        panels = [
            [outlined(image[0].numpy(), mask[0].numpy()) for image, mask in zip(x, self.detector(x), strict=True)]
            for x in columns
        ]
        rows = [list(row) for row in zip(*panels, strict=True)]
        titles = ["lesion taken away", "as drawn", "lesion added"]
        save_png(self.folder / "arithmetic.png", mosaic(titles, rows, f"Outlined: what the detector finds. {LEGEND}"))


class _Labelled(Dataset[dict[str, Tensor]]):
    """Images and whether they have a lesion, as `Classification` is given them."""

    def __init__(self, images: Tensor, present: Tensor) -> None:
        self._images, self._present = images, present.float()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`image` (1, H, W), and `mask` (1, 1, 1), whose maximum is the class."""
        return {"image": self._images[index], "mask": self._present[index].reshape(1, 1, 1)}


def components(training: Tensor, count: int, seed: int) -> Tensor:
    """Images drawn from a Gaussian of the principal components of others: a control that learns in one step.

    Args:
        training: images (N, 1, H, W).
        count: how many to draw.
        seed: of the draws.

    Returns:
        Images (count, 1, H, W), clipped to [0, 1].
    """
    mean = training.mean(dim=0)
    _, deviations, directions = torch.linalg.svd((training - mean).flatten(1), full_matrices=False)
    kept = min(MOST_COMPONENTS, len(deviations))
    noise = torch.randn(count, kept, generator=torch.Generator().manual_seed(seed))
    drawn: Tensor = noise * (deviations[:kept] / (len(training) - 1) ** 0.5) @ directions[:kept]
    images: Tensor = (mean + drawn.reshape(count, *mean.shape)).clamp(0, 1)
    return images


def _present(slices: SliceDataset) -> Tensor:
    return torch.from_numpy(slices.masks.reshape(len(slices), -1).any(axis=1))


def _greys(images: Tensor) -> list[NDArray[np.uint8]]:
    return [grey(image[0].numpy()) for image in images]


def _page(frame: pd.DataFrame, study: _Study, seeds: int) -> str:
    settings, told_by, noise = study.settings, by_row(frame, "told"), by_row(frame, "told_of_noise")
    over = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "**One seed, so without deviation**"
    about = (
        f"{over}. {len(study.real)} images of each kind against as many real slices of the {study.split} patients, "
        f"{'×'.join(map(str, settings['size']))} pixels of {settings['spacing_mm']:g} mm; learned from "
        f"{len(study.learned)} training slices for about {study.families.seconds:g} s each. Features are those of "
        f"{study.network.name}, {study.accuracy:.0%} of the real ones right; figures of other networks do not compare. "
        f"*{OTHERS}* are those of the "
        f"{OTHER_SPLIT[study.split]} patients: what no generator can be expected to be better than. *{TRAINING}*: what "
        f"a generator that copies would make. *{COMPONENTS}*: {MOST_COMPONENTS} at most. Precision and recall with 3 "
        "neighbours; copying: how often an image lies closer to the training slices than a real one of other people."
    )
    codes = (
        f"A category of InfoGAN tells {told_by[INFO_GAN]:.2f} bits of the class that the feature network sees; as many "
        f"numbers of its noise {noise[INFO_GAN]:.2f}, the same numbers of DCGAN {told_by[DCGAN]:.2f}."
    )
    manifold = (
        "### The latent space\n\nShare of images that lie in the manifold of real ones, as they are and halfway "
        "between two:"
    )
    sign = (
        "Share of images in which an independent segmentor finds a lesion, as the direction *lesion present* − "
        "*absent* is added to the latent or taken away (–: it finds none in any image):"
    )
    classifier = f"Trained for {CLASSIFIER_STEPS} steps each, tested on all slices of the {study.split} patients."
    return "\n\n".join(
        [
            rows_of(frame, [OTHERS, TRAINING, COMPONENTS, *ARMS], QUALITY),
            about,
            manifold,
            rows_of(frame, [*ARMS], LATENT),
            sign,
            rows_of(frame, [*ARMS], SIGN),
            codes,
            "### Does a classifier of lesion presence learn more with them?",
            rows_of(frame, [REAL_ONLY, WITH_SAMPLES, WITH_COMPONENTS], HELP),
            classifier,
            _verdict(frame),
        ]
    )


def _verdict(frame: pd.DataFrame) -> str:
    """Who is best, controls included, in words."""
    fid, auroc = by_row(frame, "fid"), by_row(frame, "auroc")
    best = min((COMPONENTS, *ARMS), key=lambda name: fid[name])
    helped = max((REAL_ONLY, WITH_SAMPLES, WITH_COMPONENTS), key=lambda name: auroc[name])
    won = " **The control wins.**" if best == COMPONENTS else ""
    return (
        f"- FID: {best}, {fid[best]:.2f}; real slices of other people {fid[OTHERS]:.2f}.{won}\n"
        f"- The classifier is best with {helped}, {auroc[helped]:.3f}; without made ones {auroc[REAL_ONLY]:.3f}."
    )


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    bars, scatter = figure.subplots(1, 2)
    names = [OTHERS, TRAINING, COMPONENTS, *ARMS]
    columns = {
        name: by_row(frame, name) for name in ("fid", "fid_sd", "precision", "precision_sd", "recall", "recall_sd")
    }
    for number, name in enumerate(names):
        of = {column: values[name] for column, values in columns.items()}
        bars.barh(number, of["fid"], xerr=of["fid_sd"], color=f"C{number}")
        scatter.errorbar(
            of["recall"], of["precision"], xerr=of["recall_sd"], yerr=of["precision_sd"], marker="o", capsize=2,
            color=f"C{number}", label=name,
        )  # fmt: skip
    bars.set_yticks(range(len(names)), names)
    bars.invert_yaxis()
    bars.set_xlabel("FID")
    scatter.set_xlabel("recall")
    scatter.set_ylabel("precision")
    scatter.legend(fontsize="small")
    return figure
