"""Training and use show a network the same pixels of the same slices."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.inference import Inputs, Translator
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.slices import SliceDataset
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import read_nifti


class Recorder(nn.Module):
    """Changes nothing and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shown.append(image)
        return image


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0], ids="pixels of {} mm".format)
@pytest.mark.parametrize("shape", [(30, 26), (48, 48), (80, 60)], ids=["padded", "exact", "cropped"])
def test_a_network_sees_in_use_what_training_showed_it(
    shape: tuple[int, int], spacing_mm: float, tmp_path: Path
) -> None:
    voxels = np.zeros((*shape, 4), np.int16)
    right, anterior = (slice(side // 2 - 10, side // 2 + 9) for side in shape)
    voxels[right, anterior] = np.random.default_rng(0).integers(200, 1000, (19, 19, 4))
    nib.save(nib.Nifti1Image(voxels, np.diag([spacing_mm, spacing_mm, 5, 1])), tmp_path / "scan.nii")
    (tmp_path / "scans.csv").write_text("image,split\nscan.nii,training\n")
    settings = Settings(slab=Slab(thickness_mm=None), healthy=True)
    preprocess(tmp_path / "scans.csv", tmp_path / "cohort", settings, workers=1)
    grid, network = Grid(1.0, (48, 48)), Recorder()
    Translator(network, grid, WindowRule())(Inputs(read_nifti(tmp_path / "scan.nii")))
    training = SliceDataset(tmp_path / "cohort", "training", grid, labels=("healthy",))
    expected = torch.stack([item["image"] for item in training])
    torch.testing.assert_close(torch.cat(network.shown), expected, atol=1e-4, rtol=0)
