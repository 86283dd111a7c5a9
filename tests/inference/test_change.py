"""Amounts of change are counted in millilitres of the scan's own voxels."""

from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import pytest

from pipeline.inference.change import amounts, cut_off, lesion_mask
from pipeline.preprocessing.window import Window
from pipeline.scans import Scan

WINDOW = Window(0, 1000)


@dataclass(frozen=True)
class Change:
    """A scan, what was made of it, and where it may be edited."""

    scan: Scan
    stored: np.ndarray
    edited: np.ndarray

    @property
    def anomaly(self) -> np.ndarray:
        return (self.scan.stored.astype(np.float32) - self.stored) * np.float32(self.scan.slope)

    @property
    def mask(self) -> np.ndarray:
        return lesion_mask(self.anomaly, WINDOW, self.scan)

    @property
    def amounts(self) -> dict[str, float | None]:
        return {
            figure.name: figure.value for figure in amounts(self.anomaly, self.edited, self.mask, WINDOW, self.scan)
        }

    def cut_off(self, mask: np.ndarray) -> str | None:
        return cut_off(self.scan, self.edited, mask)


@pytest.fixture
def twin(scan: Scan) -> Change:
    """Voxels of 1 × 2 × 5 mm, a window of 1000: a cube made darker, a plate brighter, a speck darker, a cube less."""
    header = scan.header.copy()
    for write in (header.set_qform, header.set_sform):
        write(np.diag([1.0, 2.0, 5.0, 1.0]), 1)
    scan = replace(scan, stored=np.full((20, 24, 10), 500, dtype=np.int16), header=header)
    stored = scan.stored.copy()
    stored[2:6, 2:6, 2:4] -= 150  # 32 voxels of 10 mm³
    stored[10:14, 10:14, 5] += 150  # 16
    stored[18, 20, 8] -= 400  # 1: below 0.05 ml
    stored[14:18, 2:6, 7] -= 99  # less than a tenth of the window
    edited = np.zeros(scan.shape, dtype=bool)
    edited[:, :, :9] = True
    return Change(scan, stored, edited)


def test_amounts_are_those_worked_out_by_hand(twin: Change) -> None:
    assert twin.amounts == pytest.approx(
        {
            "ChangedMl": 0.49,
            "RemovedMl": 0.33,
            "AddedMl": 0.16,
            "LesionMl": 0.48,
            "EditedMl": 43.2,
            "ChangedPercent": 100 * 49 / 4320,
            "MeanChangePercent": 100 * (48 * 0.15 + 0.4 + 16 * 0.099) / 4320,
        }
    )


def test_the_mask_holds_islands_brighter_and_darker_and_no_speck(twin: Change) -> None:
    mask = twin.mask
    assert mask[2:6, 2:6, 2:4].all()
    assert mask[10:14, 10:14, 5].all()
    assert mask.sum() == 48


def test_a_sheared_grid_counts_its_true_volume(twin: Change) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape(twin.scan.shape)
    header.set_sform(np.array([[1, 0, 0.5, 0], [0, 2, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]]), 1)
    sheared = replace(twin, scan=replace(twin.scan, header=header))
    assert sheared.amounts["ChangedMl"] == pytest.approx(0.49)


def test_nothing_edited_is_nothing_changed(twin: Change) -> None:
    same = replace(twin, stored=twin.scan.stored, edited=np.zeros(twin.scan.shape, dtype=bool))
    assert set(same.amounts.values()) == {0.0}


def test_disease_that_reaches_the_end_of_the_edited_slices_gives_a_warning(twin: Change) -> None:
    mask = np.zeros(twin.scan.shape, dtype=bool)
    mask[5, 5:10, 4] = True
    assert twin.cut_off(mask) is None
    mask[5, 5, 8] = True  # the last slice that may be edited, of ten: a fifth of the largest area
    assert twin.cut_off(mask) is None
    mask[5, 6, 8] = True
    assert "--whole" in str(twin.cut_off(mask))


def test_the_end_of_the_scan_cuts_nothing_off(twin: Change) -> None:
    whole = replace(twin, edited=np.ones(twin.scan.shape, dtype=bool))
    assert whole.cut_off(np.ones(twin.scan.shape, dtype=bool)) is None
