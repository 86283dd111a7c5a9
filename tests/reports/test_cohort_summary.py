"""One picture of a preprocessed cohort."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pipeline.mosaic import LESION_COLOUR, PANEL_PIXELS, TITLE_HEIGHT
from pipeline.preprocessing.cohort_format import Subject
from pipeline.preprocessing.splits import SPLITS
from pipeline.reports.cohort_summary import SUBJECTS_SHOWN, cohort_summary


def lay(directory: Path, count: int) -> list[Subject]:
    """Subjects of 32 × 32 × 4 in RAS; the lesion of slice 2 is larger than that of slice 1, both at anterior right."""
    subjects = []
    for number in range(count):
        image = np.full((32, 32, 4), 0.2, np.float32)
        image[..., 0], image[..., -1] = 0.0, 1.0
        mask = np.zeros((32, 32, 4), np.uint8)
        mask[26:28, 26:28, 1] = mask[20:30, 20:30, 2] = 1
        for kind, voxels in (("images", image), ("masks", mask)):
            (directory / kind).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), directory / kind / f"{number}.nii.gz")
        subject = Subject(
            subject=str(number),
            patient=str(number),
            split=SPLITS[number % 3],
            images=f"images/{number}.nii.gz",
            masks=f"masks/{number}.nii.gz",
            spacing_mm=(1.0, 1.0, 1.0),
            labels=["healthy", "pathological", "pathological", "healthy"],
            lesion_mm2=mask.sum(axis=(0, 1)).astype(float).tolist(),
        )
        subjects.append(subject)
    return subjects


def panels(directory: Path) -> np.ndarray:
    """The picture's panels, shape (rows, columns, PANEL_PIXELS, PANEL_PIXELS, 3)."""
    with Image.open(directory / "summary.png") as picture:
        body = np.asarray(picture)[TITLE_HEIGHT:-TITLE_HEIGHT]
    rows = len(body) // PANEL_PIXELS
    return body.reshape(rows, PANEL_PIXELS, 4, PANEL_PIXELS, 3).swapaxes(1, 2)


def test_a_row_shows_lowest_slice_largest_lesion_its_mask_and_highest_slice(tmp_path: Path) -> None:
    cohort_summary(tmp_path, lay(tmp_path, 1))
    lowest, lesion, outlined, highest = panels(tmp_path)[0]
    assert not lowest.any()
    assert (lesion == 51).all()
    assert (highest == 255).all()
    yellow = np.abs(outlined.astype(int) - LESION_COLOUR).sum(axis=2) < 60
    rows, columns = np.nonzero(yellow)
    assert rows.max() < PANEL_PIXELS / 2  # anterior: above the middle
    assert columns.max() < PANEL_PIXELS / 2  # right: at the picture's left
    assert rows.max() - rows.min() == pytest.approx(10 * PANEL_PIXELS / 32, abs=6)  # that of slice 2


@pytest.mark.parametrize(("count", "shown"), [(2, 2), (8, 8), (9, 8), (17, 8), (30, 8)])
def test_large_cohorts_are_shown_by_some_of_their_subjects(count: int, shown: int, tmp_path: Path) -> None:
    assert SUBJECTS_SHOWN == 8
    cohort_summary(tmp_path, lay(tmp_path, count))
    assert len(panels(tmp_path)) == shown


def test_the_same_cohort_gives_the_same_bytes(tmp_path: Path) -> None:
    subjects = lay(tmp_path, 3)
    cohort_summary(tmp_path, subjects)
    first = (tmp_path / "summary.png").read_bytes()
    cohort_summary(tmp_path, subjects)
    assert (tmp_path / "summary.png").read_bytes() == first
