"""Scans small enough for tests, and stand-ins for trained networks whose effect is known."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.inference import Inputs, Preparation, Result, Translator
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import Window, WindowRule
from pipeline.scans import Scan, read_nifti

HIGH = 1000.0


@dataclass(frozen=True)
class Twin:
    """A translator's result by what tests ask of it."""

    result: Result

    @property
    def scan(self) -> Scan:
        return self.result.scan

    @property
    def stored(self) -> np.ndarray:
        return self.result.main.voxels

    @property
    def stored_anomaly(self) -> np.ndarray:
        return self.result.first("difference").voxels

    @property
    def anomaly(self) -> np.ndarray:
        return self.stored_anomaly.astype(np.float32) * np.float32(self.scan.slope)

    @property
    def uncertainty(self) -> np.ndarray:
        return self.result.first("map").voxels

    @property
    def edited(self) -> np.ndarray:
        return self.result.region

    @property
    def window(self) -> Window:
        return self.result.window

    @property
    def notes(self) -> list[str]:
        return self.result.notes

    @property
    def steps(self) -> list[dict[str, Any]]:
        return self.result.steps


class Synthesizer(Translator):
    """A translator that may also be called with a scan, and then gives its twin."""

    def __call__(
        self,
        scan: Any,
        mask: Scan | None = None,
        steps: Preparation | None = None,
        uncertainty: bool = False,
        **options: Any,
    ) -> Any:
        if isinstance(scan, Inputs):
            return super().__call__(scan)
        self.uncertainty = uncertainty
        return Twin(super().__call__(Inputs(scan, mask=mask, steps=steps or Preparation(), **options)))


class Darken(nn.Module):
    """Takes a share of the intensity away wherever the image is bright: a lesion remover that can be calculated."""

    def __init__(self, above: float = 0.6, share: float = 0.5) -> None:
        super().__init__()
        self.above, self.share = above, share

    def forward(self, image: Tensor) -> Tensor:
        return torch.where(image > self.above, image * (1 - self.share), image)


class Identity(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image


@pytest.fixture
def head() -> np.ndarray:
    """Intensities (20, 24, 10): air 0, an ellipsoid of tissue around 400, a lesion of 800 in the middle of it."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in (20, 24, 10)), indexing="ij"))
    tissue = (grid**2).sum(axis=0) < 0.8
    lesion = (grid**2).sum(axis=0) < 0.05
    noise = np.random.default_rng(0).integers(-40, 40, tissue.shape)
    return (tissue * (400 + noise) + lesion * (400 - noise)).astype(np.int16)


@pytest.fixture
def write_scan(tmp_path: Path) -> Callable[..., Path]:
    """Write voxels as NIfTI with an affine, codes and an optional scaling."""

    def write(
        voxels: np.ndarray,
        name: str = "scan.nii.gz",
        affine: np.ndarray | None = None,
        scaling: tuple[float, float] = (1.0, 0.0),
    ) -> Path:
        image = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 1.0, 1.0]) if affine is None else affine)
        image.header.set_xyzt_units("mm", "sec")
        image.set_qform(image.affine, code=1)
        image.set_sform(image.affine, code=4)
        image.header.set_slope_inter(*scaling)
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def scan(head: np.ndarray, write_scan: Callable[..., Path]) -> Scan:
    return read_nifti(write_scan(head))


def synthesizer(network: nn.Module, spacing_mm: float = 1.0, size: tuple[int, int] = (32, 32)) -> Synthesizer:
    """A synthesizer whose window is [0, HIGH]."""
    return Synthesizer(network, Grid(spacing_mm, size), WindowRule(fixed=(0, HIGH)), batch_size=3)


@pytest.fixture
def make_synthesizer() -> Callable[..., Translator]:
    return synthesizer


@pytest.fixture
def darken() -> nn.Module:
    return Darken()


@pytest.fixture
def identity() -> nn.Module:
    return Identity()
