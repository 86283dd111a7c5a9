"""Pairs of channels: the same person and place, in the order asked for; masks and sketches as sources."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.pairs import PairedDataset, edges
from pipeline.preprocessing.slab import WHOLE
from pipeline.preprocessing.window import WindowRule

GRID = Grid(2.0, (32, 32))
SLICES = 2
LEVEL = {"T1w": 100, "T2w": 200, "FLAIR": 300}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients in three modalities, whose brightness is 100, 200 and 300, and 10 more in the second patient."""
    root = tmp_path_factory.mktemp("pairs")
    rows = [f"subject,{','.join(LEVEL)},mask,split"]
    mask = np.zeros((32, 32, SLICES), np.uint8)
    mask[10:16, 10:16] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([2.0, 2, 5, 1])), root / "mask.nii")
    for number in range(2):
        for name, level in LEVEL.items():
            image = np.zeros(mask.shape, np.float32)
            image[4:-4, 4:-4] = level + 10 * number
            nib.save(nib.Nifti1Image(image, np.diag([2.0, 2, 5, 1])), root / f"{name}{number}.nii")
        files = ",".join(f"{name}{number}.nii" for name in LEVEL)
        rows.append(f"s{number},{files},mask.nii,training")
    (root / "scans.csv").write_text("\n".join(rows))
    settings = Settings(slab=WHOLE, channels=list(LEVEL), window=WindowRule(fixed=(0, 1000)))
    preprocess(root / "scans.csv", root / "cohort", settings, workers=1)
    return root / "cohort"


def pairs(cohort: Path, *sources: str, target: str = "FLAIR") -> PairedDataset:
    return PairedDataset(cohort, "training", GRID, sources, target)


def test_both_images_are_of_one_person_and_sources_come_in_their_order(cohort: Path) -> None:
    dataset = pairs(cohort, "T2w", "T1w")
    assert len(dataset) == 2 * SLICES
    for index, patient in enumerate(dataset.slices.patients):
        sample, more = dataset[index], 0.01 * int(patient[-1])
        assert sample["image"].shape == (2, 32, 32)
        middle = (*sample["image"][:, 16, 16], sample["target_image"][0, 16, 16])
        np.testing.assert_allclose(middle, [0.2 + more, 0.1 + more, 0.3 + more], atol=1e-3)


def test_a_mask_and_a_sketch_of_the_target_are_sources_too(cohort: Path) -> None:
    sample = pairs(cohort, "edges", "mask")[0]
    sketch, mask = sample["image"]
    assert torch.equal(mask, sample["mask"][0])
    assert torch.equal(sketch, edges(sample["target_image"])[0])
    assert set(sketch.unique().tolist()) == {0.0, 1.0}
    # The square's outline, not its inside.
    assert sketch.sum() > 4 * 20
    assert not sketch[8:24, 8:24].any()


def test_scans_that_lack_a_channel_are_left_out(cohort: Path, tmp_path: Path) -> None:
    content = json.loads((cohort / "cohort.json").read_text())
    folder = shutil.copytree(cohort, tmp_path / "fewer")
    content["subjects"][0]["channels"].pop("T2w")
    (folder / "cohort.json").write_text(json.dumps(content))
    assert len(pairs(folder, "T2w")) == SLICES
    assert len(pairs(folder, "T1w")) == 2 * SLICES


@pytest.mark.parametrize("sources", [(), ("FLAIR",), ("T1w", "FLAIR")])
def test_a_target_is_no_source_of_itself(cohort: Path, sources: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="for the target modality FLAIR, expected at least one"):
        pairs(cohort, *sources)
