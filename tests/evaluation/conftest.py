"""A cohort of coarse phantoms, small enough to train a judge on in seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest
import torch

from pipeline.phantoms import brain_phantom
from pipeline.preprocessing.cohort import Settings, preprocess

SUBJECTS = 8


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients for training, one for validation and three for the test, with known truth."""
    folder = tmp_path_factory.mktemp("cohort")
    raw = folder / "raw"
    for number in range(SUBJECTS):
        phantom = brain_phantom(number, shape=(38, 48, 12), spacing_mm=(4.0, 4.0, 10.0))
        label = f"sub-{number}"
        for path, voxels in (
            (f"{label}/anat/{label}_FLAIR.nii.gz", phantom.image),
            (f"derivatives/manual/{label}/anat/{label}_label-lesion_mask.nii.gz", phantom.lesion),
            (f"derivatives/truth/{label}/anat/{label}_desc-healthy_FLAIR.nii.gz", phantom.healthy),
        ):
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, phantom.affine), raw / path)
    preprocess(raw, folder / "cohort", Settings(split=(0.5, 0.125, 0.375)), workers=1)
    return folder / "cohort"


@pytest.fixture
def run_with_epochs(laptop_run: Path, tmp_path: Path) -> Callable[[], Path]:
    """A run that kept two epochs: the first is the identity, which changes nothing; the second is what was trained."""

    def make() -> Path:
        run = Path(shutil.copytree(laptop_run, tmp_path / "run"))
        weights = run / "models" / "model.pt"
        trained = torch.load(weights, weights_only=True)
        torch.save(
            {name: torch.zeros_like(tensor) for name, tensor in trained.items()},
            weights.with_name("model_epoch0001.pt"),
        )
        torch.save(trained, weights.with_name("model_epoch0002.pt"))
        return run

    return make
