"""A network of half-slices in use: it is shown what training shows, and its halves are joined on the scan's grid."""

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.evaluation.predictions import of_volume, shown_to
from pipeline.evaluation.volumes import read_volume
from pipeline.inference import Inputs, Segmenter
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.half_slices import HalfSliceDataset, HalfSliceRule
from pipeline.preprocessing.slab import WHOLE
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import read_nifti

GRID = Grid(2.0, (64, 128), halves=True)
SLICES = 4


class Above(nn.Module):
    """Logits that are positive where the first standardised sequence is above a level; it keeps what it was shown."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level
        self.shown: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shown.append(image.clone())
        return 20 * (image[:, :1] - self.level)


@pytest.fixture(scope="module", params=[1.0, 2.0], ids=["1 mm", "2 mm"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of two sequences, of a brain that is tilted and lies off the centre, and a cohort of them."""
    root = tmp_path_factory.mktemp("use")
    mm = request.param
    height, width = round(192 / mm), round(224 / mm)
    h, w = np.meshgrid(
        (np.arange(height) - (height - 1) / 2) * mm - 4, (np.arange(width) - (width - 1) / 2) * mm, indexing="ij"
    )
    tilt = math.radians(5)
    radius = ((h * math.cos(tilt) + w * math.sin(tilt)) / 68) ** 2 + (
        (w * math.cos(tilt) - h * math.sin(tilt)) / 84
    ) ** 2
    brain = np.where(radius < 1, 500 + 100 * np.cos(4 * radius), 0)
    image = np.stack([brain + (brain > 0) * 5 * place for place in range(SLICES)], axis=2)
    mask = np.zeros(image.shape, np.uint8)
    mask[round(80 / mm) : round(112 / mm), round(120 / mm) : round(140 / mm), 1:3] = 1
    image[mask > 0] += 300
    for name, voxels in (("FLAIR", image), ("T1w", np.where(image > 0, 300 + image / 2, 0)), ("mask", mask)):
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.diag([mm, mm, 5, 1])), root / f"{name}.nii")
    (root / "scans.csv").write_text(
        "subject,FLAIR,T1w,mask,split\n" + "".join(f"p{n},FLAIR.nii,T1w.nii,mask.nii,training\n" for n in range(1))
    )
    preprocess(root / "scans.csv", root / "cohort", Settings(slab=WHOLE, channels=("FLAIR", "T1w")), workers=1)
    return root


def segmenter(level: float = 0.0, **options) -> Segmenter:
    given = {"grid": GRID, "channels": ("FLAIR", "T1w"), "batch_size": 3, **options}
    return Segmenter(Above(level), window=WindowRule(), **given)


def inputs(folder: Path) -> Inputs:
    return Inputs(read_nifti(folder / "FLAIR.nii"), channels={"T1w": read_nifti(folder / "T1w.nii")})


def test_training_and_use_show_the_same_pixels(folder):
    rule = HalfSliceRule(least_brain=0.01, least_lesion=1e-6)
    data = HalfSliceDataset(folder / "cohort", "training", GRID, ("healthy", "pathological"), rule=rule)
    assert data.places == [[place for place in range(SLICES) for _ in range(2)]]
    used = segmenter()
    used(inputs(folder))
    # Left halves of a batch, then its right halves.
    shown = used.runner.network.shown
    left, right = torch.cat(shown[0::2]), torch.cat(shown[1::2])
    for index in range(len(data)):
        half = (left, right)[index % 2][index // 2]
        torch.testing.assert_close(data[index]["image"], half, atol=2e-3, rtol=0)


def test_the_halves_joined_cover_the_whole_slice_and_a_lesion_across_the_line_is_one(folder):
    scan = inputs(folder)
    found = segmenter(level=2.5)(scan).main.voxels
    mask = np.asarray(nib.load(folder / "mask.nii").dataobj) > 0
    assert found.shape == mask.shape
    assert 2 * ((found > 0) & mask).sum() / (found.sum() + mask.sum()) > 0.95
    everything = segmenter(level=-50)(scan)
    assert np.array_equal(everything.main.voxels > 0, everything.region)


def test_evaluation_shows_it_all_slices_of_the_slab(folder):
    cohort = folder / "cohort"
    data = HalfSliceDataset(cohort, "training", GRID)
    volume = read_volume(cohort, data.subjects[0])
    shown, chosen = shown_to(segmenter(), volume)
    assert (len(shown), chosen, len(of_volume(volume).places)) == (SLICES, [1, 2], 2)


def test_a_head_that_is_longer_than_a_canvas_is_covered_by_several(folder):
    everything = segmenter(level=-50, grid=Grid(2.0, (64, 64), halves=True))(inputs(folder))
    assert np.array_equal(everything.main.voxels > 0, everything.region)


def test_networks_that_see_neighbouring_slices_are_refused():
    with pytest.raises(UsageError, match="half-slices: found a network that sees neighbouring slices"):
        segmenter(neighbours=1)
