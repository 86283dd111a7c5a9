"""The slices that detectors are compared on, and what makes an anomaly map of them: trained networks and controls."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.bundles import Bundle, read_config
from pipeline.evaluation.volumes import HEALTHY, PATHOLOGICAL, read_volume
from pipeline.inference import load_predictor
from pipeline.launch import check_unseen
from pipeline.metrics.anomaly import Residual, anomaly_map
from pipeline.networks import Reconstruction, SearchedReconstruction
from pipeline.preprocessing.foreground import AIR
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset, images_of

POOLED = "all"
HEIGHTS = 4  # parts of a slab, from below, each with a mean brain of its own
AT_ONCE = 256
LEARNED = ", learned from masks"  # ends the name of a control that did


@dataclass(frozen=True)
class Setting:
    """What all detectors of a study share.

    Attributes:
        cohort: folder made by `preprocess`.
        grid: of networks, maps and masks.
        residual: how a pixel's difference counts, see `anomaly_map`.
        smooth: pixels that differences are averaged over, likewise.
        sources: patterns of patients' names by source of data.
        device: where to compute.
    """

    cohort: Path
    grid: Grid
    residual: Residual
    smooth: int
    sources: Mapping[str, str]
    device: str

    @classmethod
    def of(cls, run: Bundle, cohort: Path, sources: Mapping[str, str], device: str) -> "Setting":
        """As a run was trained."""
        settings = read_config(run.config("train"))
        grid = Grid(settings["spacing_mm"], tuple(settings["size"]))
        return cls(cohort, grid, settings["residual"], settings["smooth"], sources, device)

    def slices(self, split: str, *labels: str) -> "Slices":
        """The slices of a split with one of the labels; with any of them if none is given."""
        return Slices(self, SliceDataset(self.cohort, split, self.grid, labels or (PATHOLOGICAL, HEALTHY)))

    def compared(self, image: Tensor, healthy: Tensor) -> Tensor:
        """The anomaly map of images and their healthy reconstructions, zero in air."""
        return anomaly_map(image, healthy, self.residual, self.smooth) * (image > AIR)


class Slices:
    """The slices of one split on the networks' grid.

    Args:
        setting: of the study.
        dataset: the slices.
    """

    def __init__(self, setting: Setting, dataset: SliceDataset) -> None:
        self.setting = setting
        self.dataset = dataset
        self.patients = np.array(dataset.patients)

    @cached_property
    def images(self) -> Tensor:
        """In [0, 1], shape (N, 1, H, W)."""
        return images_of(self.dataset)

    @cached_property
    def lesions(self) -> Tensor:
        """Bool, of the same shape."""
        return torch.from_numpy(np.array(self.dataset.masks, dtype=bool))

    @property
    def tissue(self) -> Tensor:
        """Head or body, bool, of the same shape: the pixels that are measured."""
        return self.images > AIR

    @cached_property
    def heights(self) -> Tensor:
        """Which of `HEIGHTS` parts of its slab each slice lies in, shape (N,)."""
        parts = [
            place * HEIGHTS // len(subject.labels)
            for subject, places in zip(self.dataset.subjects, self.dataset.places, strict=True)
            for place in places
        ]
        return torch.tensor(parts)

    def groups(self) -> dict[str, Tensor]:
        """Which slices are of each source of data, and of all, bool, shape (N,); sources without any are left out."""
        found = {POOLED: torch.ones(len(self.patients), dtype=torch.bool)}
        for name, pattern in self.setting.sources.items():
            members = torch.tensor([fnmatchcase(patient, pattern) for patient in self.patients])
            if members.any():
                found[name] = members
        return found

    def by_scan(self) -> list[slice]:
        """The slices of each scan."""
        ends = np.cumsum([0, *map(len, self.dataset.places)])
        return [slice(int(first), int(end)) for first, end in pairwise(ends)]


@dataclass(frozen=True)
class Found:
    """What a detector says of slices.

    Attributes:
        maps: higher where a pixel is more anomalous, shape (N, 1, H, W), zero in air.
        scores: of each slice as a whole, shape (N,).
    """

    maps: Tensor
    scores: Tensor


Detect = Callable[[Slices], Found]


@dataclass(frozen=True)
class Network:
    """A trained detector.

    Attributes:
        network: see `pipeline.networks.anomaly`.
        device: where it computes.
    """

    network: Reconstruction | SearchedReconstruction
    device: torch.device

    @torch.inference_mode()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Healthy reconstructions of images (N, 1, H, W), on the CPU."""
        return torch.cat([self.network(part.to(self.device)).float().cpu() for part in images.split(AT_ONCE)])

    @torch.inference_mode()
    def __call__(self, slices: Slices) -> Found:
        """Its maps, and its own scores."""
        explained = [self.network.explain(part.to(self.device)) for part in slices.images.split(AT_ONCE)]
        healthy, scores = (torch.cat([each.float().cpu() for each in found]) for found in zip(*explained, strict=True))
        return Found(slices.setting.compared(slices.images, healthy), scores[:, 0])

    def inversion(self, healthy: Slices) -> dict[str, float]:
        """How well and how fast held-out healthy slices are brought back from the latent space.

        Returns:
            `error`, the mean absolute difference of head or body in % of the window; `milliseconds` a slice.
        """
        self.reconstruct(healthy.images[:AT_ONCE])  # what is only slow at first
        start = time.perf_counter()
        made = self.reconstruct(healthy.images)
        seconds = time.perf_counter() - start
        error = float((healthy.images - made).abs()[healthy.tissue].mean())
        return {"error": 100 * error, "milliseconds": 1000 * seconds / len(made)}


def trained_network(run: Bundle, device: str) -> Network:
    """The network of a run of the bundle."""
    predictor, _ = load_predictor(run, "segmenter", device)
    return Network(predictor.detector, predictor.device)


def searching(run: Bundle, device: str) -> Network:
    """AnoGAN of the GAN of an f-AnoGAN: the same generator and discriminator, and a search in place of the encoder."""
    of_encoder = trained_network(run, device)
    settings, network = read_config(run.config("train")), of_encoder.network
    if network.critic is None:
        raise ValueError(f"{run.root}: holds no discriminator, expected one whose features are searched with")
    search = SearchedReconstruction(
        network.generator,
        network.critic,
        settings["code_size"],
        settings["size"],
        settings["search_steps"],
        settings["search_rate"],
        settings["search_weight"],
    )
    return Network(search.to(of_encoder.device).eval(), of_encoder.device)


def intensity(slices: Slices) -> Found:
    """The windowed intensity itself: what is bright is a lesion."""
    return _of_maps(slices, slices.setting.compared(slices.images, torch.zeros_like(slices.images)))


def ranks(slices: Slices) -> Tensor:
    """The rank of each pixel's intensity among those of its scan's head or body, in (0, 1], 0 in air."""
    found, tissue = torch.zeros_like(slices.images), slices.tissue
    for scan in slices.by_scan():
        values = slices.images[scan][tissue[scan]]
        order = values.argsort().argsort().float()
        found[scan] = torch.zeros_like(slices.images[scan]).masked_scatter(tissue[scan], (order + 1) / len(order))
    return found


def equalised(slices: Slices) -> Found:
    """The intensity's rank (Meissen et al. 2021): no window, no scanner."""
    found = ranks(slices)
    return _of_maps(slices, slices.setting.compared(found, torch.zeros_like(found)) * slices.tissue)


def mean_brain(setting: Setting) -> Detect:
    """The difference to the mean of the healthy training slices, of the same part of the slab."""
    training = setting.slices("training", HEALTHY)
    overall = training.images.mean(dim=0)
    means = torch.stack(
        [
            training.images[training.heights == part].mean(dim=0) if (training.heights == part).any() else overall
            for part in range(HEIGHTS)
        ]
    )
    return lambda slices: _of_maps(slices, setting.compared(slices.images, means[slices.heights]))


def translated(bundle: Bundle, setting: Setting) -> Detect:
    """The difference to what a translator's bundle makes of the whole slab."""
    check_unseen(bundle, setting.cohort, "test")
    translator, _ = load_predictor(bundle, "translator", setting.device)

    def detect(slices: Slices) -> Found:
        healthy = []
        for subject, places in zip(slices.dataset.subjects, slices.dataset.places, strict=True):
            volume = read_volume(setting.cohort, subject, PATHOLOGICAL, HEALTHY)
            twin = volume.slab_image + translator.residual(volume.slab_image[:, None], volume.voxel_mm)
            chosen = torch.from_numpy(twin[places, None]).clamp(0, 1)
            healthy.append(setting.grid.images(chosen, subject.pixel_mm))
        return _of_maps(slices, setting.compared(slices.images, torch.cat(healthy)))

    return detect


def _of_maps(slices: Slices, maps: Tensor) -> Found:
    """A slice's score is its map's mean over head or body."""
    tissue = slices.tissue
    pixels = tissue.sum(dim=(1, 2, 3)).clamp_min(1)
    return Found(maps, (maps * tissue).sum(dim=(1, 2, 3)) / pixels)


def controls(setting: Setting, translator: Bundle | None) -> dict[str, Callable[[], Detect]]:
    """What learns next to nothing about health, and what learned it from masks, by name."""
    made: dict[str, Callable[[], Detect]] = {
        "intensity": lambda: intensity,
        "equalised intensity": lambda: equalised,
        "mean healthy brain": lambda: mean_brain(setting),
    }
    if translator is not None:
        made[f"{translator.root.name}{LEARNED}"] = lambda: translated(translator, setting)
    return made
