"""What the tests of the commands share: the command line in this process, a head, and runs whose effect is known."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.bundles import bundles_folder
from pipeline.cli.main import main


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Call the command line in this process."""

    def start(*arguments: object) -> Answer:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Answer(int(stop.value.code or 0), captured.out, captured.err)

    return start


@pytest.fixture
def voxels() -> np.ndarray:
    """A head of some 400 with a lesion of some 900, int16, shape (40, 48, 8)."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in (40, 48, 8)), indexing="ij"))
    noise = np.random.default_rng(0).integers(0, 100, grid.shape[1:])
    tissue, lesion = ((grid**2).sum(axis=0) < size for size in (0.8, 0.06))
    return (tissue * (350 + noise) + lesion * 500).astype(np.int16)


@pytest.fixture
def lesion(voxels: np.ndarray) -> np.ndarray:
    return (voxels > 700).astype(np.uint8)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write voxels as NIfTI."""

    def save(name: str, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
        image = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 3.0, 1.0]) if affine is None else affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A bundle's folder as a run of it, with other settings and the weights of a small network that is given."""

    def make(bundle: str, network: torch.nn.Module, **settings: Any) -> Path:
        folder = tmp_path_factory.mktemp("runs") / bundle
        shutil.copytree(bundles_folder() / bundle / "configs", folder / "configs")
        path = folder / "configs" / "inference.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        (folder / "models").mkdir()
        torch.save(network.state_dict(), folder / "models" / "model.pt")
        return folder

    return make


@pytest.fixture(scope="session")
def segmenter_run(make_run: Callable[..., Path]) -> Path:
    """A run whose network has learned to find what is brighter than the head around it."""
    from pipeline.networks import UNetSegmentor

    torch.manual_seed(0)
    network = UNetSegmentor(filters=4)
    return make_run("unet_segmentation", fitted(network), filters=4, spacing_mm=1.0, size=[48, 48], **WINDOW)


@pytest.fixture(scope="session")
def scorer_run(make_run: Callable[..., Path]) -> Path:
    """A run whose network answers 50 for whatever it is shown."""
    from pipeline.networks import ScoreResNet

    torch.manual_seed(0)
    network = ScoreResNet(filters=4, blocks=1, mean=50, deviation=15)
    torch.nn.init.zeros_(network.fc.weight)
    settings = {"filters": 4, "blocks": 1, "target_mean": 50, "target_deviation": 15}
    return make_run("age_regression", network, spacing_mm=2.0, size=[32, 32], **settings, **WINDOW)


WINDOW = {"fixed_window": [0, 1000], "slab_mm": None}


def fitted(network: Any) -> Any:
    """Trained for a moment on bright blobs in ellipses."""
    row, column = torch.meshgrid(torch.linspace(-1.2, 1.2, 48), torch.linspace(-1, 1, 48), indexing="ij")
    head = (row**2 + column**2 < 0.8).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for step in range(80):
        masks = (row**2 + column**2 < 0.1 * (step % 2) * torch.rand(4, 1, 1, 1)).float()
        size = 0.4 + 0.6 * torch.rand(4, 1, 1, 1)
        images = head * (row**2 + column**2 < 0.8 * size) * (0.35 + 0.1 * torch.rand(4, 1, 48, 48)) + 0.5 * masks
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()
