"""Half-slices: how a volume is halved and standardised, and which halves belong to which domain."""

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.few_labels import FewLabelsDataset
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.half_slices import HalfSliceDataset, HalfSliceRule, Halves, halved, without_air
from pipeline.preprocessing.slab import WHOLE
from pipeline.preprocessing.slices import SliceDataset

GRID = Grid(2.0, (64, 128), halves=True)
SHAPE, SLICES = (96, 112), 6
PATIENTS = 4
BIG, SMALL = 6, 2  # pixels of 2 mm: 2.3 % and 0.2 % of a half's brain


def head(tilt: float = 0.0, shift: float = 0.0) -> np.ndarray:
    """A brain without skull in [0, 1], brighter in its middle, shape (right, anterior)."""
    h, w = np.meshgrid(np.arange(SHAPE[0]) - 47.5 - shift, np.arange(SHAPE[1]) - 55.5, indexing="ij")
    across, along = h * math.cos(tilt) + w * math.sin(tilt), -h * math.sin(tilt) + w * math.cos(tilt)
    radius = (across / 34) ** 2 + (along / 42) ** 2
    return np.where(radius < 1, 0.4 + 0.2 * np.cos(3 * radius) + 0.1 * (along > 10), 0).astype(np.float32)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patients with a big lesion left in slices 1 and 2, a small one left in 3, and a big one right in 4."""
    root = tmp_path_factory.mktemp("halves")
    rows = ["subject,image,second,mask,split"]
    for number in range(PATIENTS):
        image = np.stack([900 * head(shift=number - 1)] * SLICES, axis=2) + np.arange(SLICES)
        image[image < 50] = 0
        mask = np.zeros(image.shape, np.uint8)
        for place, right, side in ((1, False, BIG), (2, False, BIG), (3, False, SMALL), (4, True, BIG)):
            h = 66 if right else 26
            mask[h : h + side, 50 : 50 + 5 * side // 2, place] = 1
        image[mask > 0] += 100
        second = np.where(image > 0, 500 + 2 * image, 0)
        for name, voxels in (("image", image), ("second", second), ("mask", mask)):
            nib.save(
                nib.Nifti1Image(voxels.astype(np.float32), np.diag([2.0, 2, 5, 1])), root / f"p{number}_{name}.nii"
            )
        split = "validation" if number == PATIENTS - 1 else "training"
        rows.append(f"p{number},p{number}_image.nii,p{number}_second.nii,p{number}_mask.nii,{split}")
    (root / "scans.csv").write_text("\n".join(rows))
    preprocess(root / "scans.csv", root / "cohort", Settings(slab=WHOLE, channels=("image", "second")), workers=1)
    return root / "cohort"


def half_slices(cohort: Path, **options) -> HalfSliceDataset:
    return HalfSliceDataset(cohort, "training", GRID, **options)


@pytest.mark.parametrize("tilt", [0.0, 0.2, -0.3])
@pytest.mark.parametrize("position", [0.0, 3.5, -6.0])
@pytest.mark.parametrize("shape", [(96, 112), (97, 111), (120, 128)])
def test_both_halves_joined_are_the_slice_again(tilt, position, shape):
    halves = Halves(GRID, tilt, position, torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    # What is further from the line than a canvas is wide is air.
    near = (torch.arange(shape[0]) - (shape[0] - 1) / 2).abs() < 34
    slices = torch.rand(2, 3, *shape) * near[:, None]
    left, right = halves.split(slices)
    assert left.shape == right.shape == (2, 3, 64, shape[1])
    assert torch.equal(halves.joined((left, right), shape), slices)
    assert float(left.sum() + right.sum()) == pytest.approx(float(slices.sum()), rel=1e-5)


def test_halves_of_brats_are_padded_by_four_and_eight_pixels():
    grid = Grid(1.0, (128, 256), halves=True)
    halves = Halves(grid, 0.0, 0.0, torch.zeros(4, 1, 1), torch.ones(4, 1, 1))
    slices = torch.rand(1, 4, 240, 240)
    left, right = (grid.images(half, (1.0, 1.0)) for half in halves.split(slices))
    assert left.shape == right.shape == (1, 4, 128, 256)
    assert torch.equal(left[..., 4:124, 8:248], slices[..., :120, :])
    assert torch.equal(right[..., 4:124, 8:248], slices[..., 120:, :])
    for half in (left, right):
        border = half.clone()
        border[..., 4:124, 8:248] = 0
        assert not border.any()


@pytest.mark.parametrize(("tilt", "shift"), [(0.0, 0.0), (0.0, 5.0), (math.radians(9), -3.0)])
def test_the_line_follows_a_head_that_is_tilted_or_off_centre(tilt, shift):
    volume = torch.from_numpy(np.stack([head(tilt, shift)] * 4))[:, None]
    halves, brain = halved(volume, 5.0, GRID)
    left, right = halves.split(torch.from_numpy(brain[:, None].astype(np.float32)))
    assert float(left.sum()) == pytest.approx(float(right.sum()), rel=0.05)
    assert float(left.sum() + right.sum()) == brain.sum()


def test_each_sequence_is_standardised_over_the_brain_of_the_volume_and_comes_back():
    first = torch.from_numpy(np.stack([head()] * 4))
    volume = without_air(torch.stack([first, torch.where(first > 0, 0.9 - first, 0)], dim=1))
    halves, brain = halved(volume, 5.0, GRID)
    shown = halves.standardised(volume)
    pixels = shown.transpose(0, 1)[:, torch.from_numpy(brain)]
    torch.testing.assert_close(pixels.mean(dim=1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels.std(dim=1), torch.ones(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(halves.in_range(shown, volume[:, :1] > 0), volume, atol=1e-6, rtol=0)
    assert not shown[volume == 0].any(), "background stays background"


def test_around_the_head_there_is_nothing_and_what_is_dark_within_is_not_background():
    slices = torch.from_numpy(np.stack([head()] * 2))[:, None].repeat(1, 2, 1, 1)
    slices[:, :, :5] += 0.02  # noise in air
    slices[:, :, 2, 2] = 0.3  # and a speck of it
    slices[:, :, 40:44, 50:54] = 0  # fluid
    shown = without_air(slices)
    inside = torch.from_numpy(head() > 0)
    assert not shown[:, :, ~inside].any()
    assert (shown[:, 0, inside] > 0).all()
    assert torch.equal(shown[:, 1, inside], slices[:, 1, inside])


def test_a_volume_of_air_has_no_line_and_no_scale():
    halves, brain = halved(without_air(torch.zeros(3, 1, 96, 112)), 5.0, GRID)
    assert not brain.any()
    assert (halves.tilt, halves.position) == (0.0, 0.0)
    assert halves.standardised(torch.zeros(1, 96, 112)).isfinite().all()


@pytest.mark.parametrize(
    ("brain_mm2", "lesion_mm2", "label"),
    [
        (7199, 0, None),
        (7200, 0, "healthy"),
        (8000, 80, "pathological"),
        (8000, 79, None),
        (8000, 1, None),
        (7199, 700, None),
    ],
)
def test_the_paper_s_rule_counts_a_quarter_of_a_half_slice_and_a_hundredth_of_its_brain(brain_mm2, lesion_mm2, label):
    assert HalfSliceRule().label(brain_mm2, lesion_mm2, 1.0) == label
    assert HalfSliceRule().label(brain_mm2 / 4, lesion_mm2 / 4, 2.0) == label


def test_halves_are_presence_absence_or_neither(cohort):
    presence = half_slices(cohort)
    absence = half_slices(cohort, labels=("healthy",))
    assert presence.places == [[1, 2, 4]] * 3
    # Slice 3's left half has too little; of the others, what has none.
    assert absence.places == [[0, 0, 1, 2, 3, 4, 5, 5]] * 3
    assert all(presence[index]["mask"].sum() == BIG * 5 * BIG // 2 for index in range(len(presence)))
    assert not any(absence[index]["mask"].any() for index in range(len(absence)))
    assert {tuple(presence[0][name].shape) for name in ("image", "mask")} == {(2, 64, 128), (1, 64, 128)}


def test_more_brain_or_lesion_may_be_asked_for(cohort):
    assert not len(HalfSliceDataset(cohort, "validation", GRID, rule=HalfSliceRule(least_brain=0.5)))
    with pytest.raises(
        UsageError, match=r"found no pathological half-slice among the 3 training .* ask for less brain"
    ):
        HalfSliceDataset(cohort, "training", GRID, rule=HalfSliceRule(least_lesion=0.2))
    for name in ("least_brain", "least_lesion"):
        with pytest.raises(UsageError, match=f"{name} is a share between 0 and 1, found 1.5"):
            HalfSliceRule(**{name: 1.5})


def test_sequences_are_chosen_by_name_and_standardised_each(cohort):
    both, second = (half_slices(cohort, channels=names) for names in (None, ["second"]))
    assert second[0]["image"].shape == (1, 64, 128)
    torch.testing.assert_close(second[0]["image"][0], both[0]["image"][1])
    # The second is the first in other units, but for background.
    inside = both[0]["image"][0] > -3
    assert (both[0]["image"][0] - both[0]["image"][1])[inside].abs().max() < 0.1


def test_a_canvas_that_cuts_off_a_lesion_is_refused(cohort):
    with pytest.raises(UsageError, match=r"would cut off .* of its lesions"):
        HalfSliceDataset(cohort, "training", Grid(2.0, (16, 128), halves=True), rule=HalfSliceRule(least_brain=0.01))


def test_an_image_comes_back_into_the_range_of_the_cohort(cohort):
    data = half_slices(cohort, channels=["image"])
    for index in (0, len(data) - 1):
        levels = torch.from_numpy(data.images[index].astype(np.float32)) / 65535
        torch.testing.assert_close(data.in_range(index, data[index]["image"]), levels, atol=1e-5, rtol=0)


def test_few_labels_of_half_slices_are_counted_among_those_with_a_lesion(cohort):
    data = FewLabelsDataset(cohort, "training", GRID, labelled=0.33)
    assert (len(data), data.labelled.sum()) == (9, 3)
    sample = data[0]
    assert sample["image"].shape == sample["healthy"].shape == (2, 64, 128)
    assert sample["healthy"].min() < 0 < sample["healthy"].max()
    by_patient = FewLabelsDataset(cohort, "training", GRID, labelled=0.01, labelled_by="patients")
    assert by_patient.labelled.sum() == 3


def test_on_a_grid_of_whole_slices_they_are_whole_and_as_they_are(cohort):
    grid = Grid(2.0, (128, 128))
    plain, whole = SliceDataset(cohort, "training", grid), HalfSliceDataset(cohort, "training", grid)
    assert whole.places == plain.places == [[1, 2, 3, 4]] * 3
    assert torch.equal(whole[0]["image"], plain[0]["image"])
    assert torch.equal(whole.in_range(0, whole[0]["image"]), plain[0]["image"])
