"""Lesions by size: each voxel belongs to the class of its lesion, connected in three dimensions."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.evaluation.scores import score_methods, score_rows, score_volumes
from pipeline.metrics import METRICS
from pipeline.metrics.lesion_size import SIZES, size_classes

OF_SIZE = [METRICS[f"{what}_{size.name}"] for size in SIZES for what in ("psnr", "ssim")]


def test_the_classes_cover_all_volumes_without_gap_or_overlap() -> None:
    assert SIZES[0].least_ml == 0
    assert SIZES[-1].most_ml == math.inf
    for smaller, larger in itertools.pairwise(SIZES):
        assert smaller.most_ml == larger.least_ml


@pytest.mark.parametrize(("count", "expected"), [(9, 1), (10, 2), (99, 2), (100, 3), (999, 3), (1000, 4), (5000, 5)])
def test_a_lesion_s_volume_decides_its_class(count: int, expected: int) -> None:
    lesion = np.zeros((8, 30, 30), bool)
    lesion.ravel()[:count] = True  # a run along the last axis, continued in the next row: connected
    classes = size_classes(lesion, voxel_ml=0.01)
    assert set(np.unique(classes[lesion])) == {expected}
    assert not classes[~lesion].any()


def test_lesions_of_one_scan_have_classes_of_their_own_and_corners_connect() -> None:
    lesion = np.zeros((4, 20, 20), bool)
    lesion[:3, :6, :6] = True
    lesion[3, 6, 6] = True  # touches it by a corner
    lesion[0, 15, 15] = True
    classes = size_classes(lesion, voxel_ml=0.01)
    assert classes[3, 6, 6] == classes[0, 0, 0] == 3
    assert classes[0, 15, 15] == 1


def test_psnr_and_ssim_are_taken_over_all_voxels_of_the_class_in_a_volume() -> None:
    truth = torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    sizes = torch.zeros(3, 1, 24, 24, dtype=torch.uint8)
    sizes[0, 0, 2:4, 2:4] = 1
    sizes[:, 0, 10:20, 10:20] = 3
    twin = truth.clone()
    twin[sizes == 1] += 0.1
    twin[2][sizes[2] == 3] += 0.2
    given = {"twin": twin, "truth": truth, "sizes": sizes}
    rows = pd.DataFrame(score_rows({"method": "m", "patient": "p", "subject": "s"}, [4, 5, 6], given, OF_SIZE))
    (volume,) = score_volumes(rows, OF_SIZE).to_dict("records")
    assert volume["psnr_punctate"] == pytest.approx(20, abs=1e-4)
    assert volume["psnr_medium"] == pytest.approx(10 * math.log10(3 / 0.2**2), abs=1e-4), "not the mean of slices"
    assert 0 < volume["ssim_medium"] < 1
    assert math.isnan(volume["psnr_small"])
    assert math.isnan(volume["ssim_giant"])
    methods = score_methods(score_volumes(rows, OF_SIZE), OF_SIZE)
    assert methods["m"]["metrics"]["psnr_small"]["n"] == 0


def test_the_truth_itself_is_identical() -> None:
    truth = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    sizes = torch.ones(1, 1, 16, 16, dtype=torch.uint8)
    given = {"twin": truth, "truth": truth, "sizes": sizes}
    rows = pd.DataFrame(score_rows({"method": "m", "patient": "p", "subject": "s"}, [0], given, OF_SIZE))
    methods = score_methods(score_volumes(rows, OF_SIZE), OF_SIZE)
    assert methods["m"]["metrics"]["psnr_punctate"]["identical"] == 1
    assert methods["m"]["metrics"]["ssim_punctate"]["mean"] == pytest.approx(1)
