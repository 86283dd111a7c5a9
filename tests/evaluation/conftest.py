"""A cohort of coarse phantoms, small enough to train a judge on in seconds."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.phantoms import brain_phantom
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule
from pipeline.synthesis import Synthesizer

SUBJECTS = 5


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training patients and three test patients, none for validation, with known truth."""
    folder = tmp_path_factory.mktemp("cohort")
    raw = folder / "raw"
    for number in range(SUBJECTS):
        phantom = brain_phantom(number, shape=(44, 52, 12), spacing_mm=(4.0, 4.0, 10.0))
        label = f"sub-{number}"
        for path, voxels in (
            (f"{label}/anat/{label}_FLAIR.nii.gz", phantom.image),
            (f"derivatives/manual/{label}/anat/{label}_label-lesion_mask.nii.gz", phantom.lesion),
            (f"derivatives/truth/{label}/anat/{label}_desc-healthy_FLAIR.nii.gz", phantom.healthy),
        ):
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, phantom.affine), raw / path)
    preprocess(raw, folder / "cohort", Settings(split=(0.4, 0.0, 0.6)), workers=1)
    return folder / "cohort"


class ToTruth(Synthesizer):
    """Knows the answers: its residual is truth − input."""

    def __init__(self, truth_by_image: dict[bytes, NDArray[np.float32]]) -> None:
        super().__init__(nn.Identity(), Grid(4.0, (48, 64)), WindowRule())
        self.truth_by_image = truth_by_image

    def residual(
        self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float]
    ) -> NDArray[np.float32]:
        return np.stack([self.truth_by_image[image.tobytes()] - image for image in windowed])
