"""Both domains at once: what lies beside a pathological slice, and whose it is."""

from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.two_domains import TwoDomainDataset

GRID = Grid(2.0, (32, 32))
SIDE, SLICES = 32, 8
SCANS = (
    "sub-0",
    "sub-1",
    "sub-2_ses-1",
    "sub-2_ses-2",
    "sub-3",
    "sub-4",
    "sub-5",
    "sub-6",
)  # the third patient was scanned twice
SPLITS = ("training",) * 6 + ("validation", "test")


def write(root: Path, lesions: dict[str, range], splits: tuple[str, ...] = SPLITS) -> Path:
    """Scans in which every value tells whose they are.

    Scan k has its lesion at column 2k of the slices of `lesions` and nowhere else; its tissue's values name the scan
    and the slice. The last row of each slice is bright, so that all scans have one window.
    """
    rows = ["subject,image,mask,split"]
    for number, (name, split) in enumerate(zip(lesions, splits, strict=True)):
        image = np.zeros((SIDE, SIDE, SLICES), np.float32)
        image[:24] = 100 * (number + 1) + np.arange(SLICES)  # beyond it is air
        image[-1] = 1000
        mask = np.zeros(image.shape, np.uint8)
        for place in lesions[name]:
            mask[4:20, 2 * number, place] = 1
        for kind, voxels in (("image", image), ("mask", mask)):
            nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 5, 1])), root / f"{name}_{kind}.nii")
        rows.append(f"{name},{name}_image.nii,{name}_mask.nii,{split}")
    (root / "scans.csv").write_text("\n".join(rows))
    preprocess(root / "scans.csv", root / "out", Settings(slab=Slab(thickness_mm=None)), workers=1)
    return root / "out"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven patients, five of them for training; the lesion of scan k covers slices k % 3 to k % 3 + 3."""
    lesions = {name: range(number % 3, number % 3 + 4) for number, name in enumerate(SCANS)}
    return write(tmp_path_factory.mktemp("domains"), lesions)


def patient_of_mask(mask: Tensor) -> str:
    """Whose it is, by the column of its lesion."""
    (column,) = set(mask[0].nonzero()[:, 1].tolist())
    return SCANS[column // 2].split("_")[0]


def scan_and_slice(image: Tensor) -> tuple[str, int]:
    """Which scan and slice an image is, by its tissue's value."""
    value = round(float(image[0, 8, 8]) * 1000)
    return SCANS[value // 100 - 1], value % 100


def test_the_cohort_tells_whose_each_slice_is(cohort):
    dataset = TwoDomainDataset(cohort, "training", GRID)
    assert set(dataset.pathological.patients) == {"sub-0", "sub-1", "sub-2", "sub-3", "sub-4"}
    for place, patient in enumerate(dataset.pathological.patients):
        scan, _ = scan_and_slice(dataset[place]["image"])
        assert scan.split("_")[0] == patient_of_mask(dataset[place]["mask"]) == patient


def test_one_item_for_each_pathological_slice_with_its_own_mask(cohort):
    dataset = TwoDomainDataset(cohort, "training", GRID)
    assert len(dataset) == len(dataset.pathological) == 6 * 4
    for place in range(len(dataset)):
        item, alone = dataset[place], dataset.pathological[place]
        assert torch.equal(item["image"], alone["image"])
        assert torch.equal(item["mask"], alone["mask"])
        assert item["mask"].sum() == 16
        assert set(item) == {"image", "mask", "healthy", "other_mask"}
        assert all(tensor.shape == (1, *GRID.size) and tensor.dtype is torch.float32 for tensor in item.values())


def test_a_mask_beside_an_image_is_never_of_the_same_patient(cohort):
    """PHS-GAN, Section 3.4: 'a pathological image x_p and a mask m_p come from different volumes'."""
    torch.manual_seed(0)
    dataset = TwoDomainDataset(cohort, "training", GRID)
    pairs = Counter(
        (patient, patient_of_mask(dataset[place]["other_mask"]))
        for _ in range(100)
        for place, patient in enumerate(dataset.pathological.patients)
    )
    assert all(patient != other for patient, other in pairs)
    # Every other patient's masks are drawn, each about as often as it has slices: the third has twice as many.
    patients = {"sub-0", "sub-1", "sub-2", "sub-3", "sub-4"}
    assert set(pairs) == {(patient, other) for patient in patients for other in patients - {patient}}
    assert 0.35 < pairs["sub-0", "sub-1"] / pairs["sub-0", "sub-2"] < 0.7
    assert 0.7 < pairs["sub-0", "sub-1"] / pairs["sub-0", "sub-3"] < 1.4


def test_a_second_scan_of_a_patient_is_not_another_patient(cohort):
    torch.manual_seed(0)
    dataset = TwoDomainDataset(cohort, "training", GRID)
    places = [place for place, patient in enumerate(dataset.pathological.patients) if patient == "sub-2"]
    assert {scan_and_slice(dataset[place]["image"])[0] for place in places} == {"sub-2_ses-1", "sub-2_ses-2"}
    assert "sub-2" not in {patient_of_mask(dataset[place]["other_mask"]) for _ in range(50) for place in places}


def test_a_healthy_slice_is_one_where_its_patient_has_no_lesion(cohort):
    torch.manual_seed(0)
    dataset = TwoDomainDataset(cohort, "training", GRID)
    drawn = {scan_and_slice(dataset[place % len(dataset)]["healthy"]) for place in range(600)}
    healthy = {
        (scan, place)
        for number, scan in enumerate(SCANS[:6])
        for place in range(SLICES)
        if not number % 3 <= place < number % 3 + 4
    }
    assert drawn == healthy


def test_nothing_comes_from_another_split(cohort):
    torch.manual_seed(0)
    dataset = TwoDomainDataset(cohort, "training", GRID)
    seen = {scan_and_slice(dataset[place % 24][key])[0] for place in range(400) for key in ("image", "healthy")}
    assert seen == set(SCANS[:6])


def test_what_lies_beside_a_slice_is_drawn_anew_each_time(cohort):
    torch.manual_seed(0)
    dataset = TwoDomainDataset(cohort, "training", GRID)
    items = [dataset[0] for _ in range(30)]
    assert len({scan_and_slice(item["healthy"]) for item in items}) > 5
    assert len({patient_of_mask(item["other_mask"]) for item in items}) > 2


def test_draws_follow_torchs_random_state_which_checkpoints_keep(cohort):
    dataset = TwoDomainDataset(cohort, "training", GRID)

    def epoch() -> list[tuple]:
        items = [dataset[place] for place in range(len(dataset))]
        return [(scan_and_slice(item["healthy"]), patient_of_mask(item["other_mask"])) for item in items]

    torch.manual_seed(7)
    first, state, second = epoch(), torch.get_rng_state(), epoch()
    assert first != second
    torch.manual_seed(7)
    np.random.default_rng(1)
    assert epoch() == first
    torch.set_rng_state(state)
    assert epoch() == second
    torch.manual_seed(8)
    assert epoch() != first


def test_a_fraction_takes_whole_patients_in_both_domains(cohort):
    torch.manual_seed(0)
    dataset = TwoDomainDataset(cohort, "training", GRID, fraction=0.4, seed=3)
    patients = set(dataset.pathological.patients)
    assert len(patients) == 2 < len({scan.split("_")[0] for scan in SCANS[:6]})
    assert set(dataset.healthy.patients) == patients
    for place in range(200):
        item = dataset[place % len(dataset)]
        assert scan_and_slice(item["healthy"])[0].split("_")[0] in patients
        assert patient_of_mask(item["other_mask"]) in patients
    other_seeds = [TwoDomainDataset(cohort, "training", GRID, 0.4, seed).pathological.patients for seed in range(8)]
    assert len({tuple(sorted(set(patients))) for patients in other_seeds}) > 1


def test_one_patient_alone_has_no_other_whose_mask_could_be_taken(cohort):
    alone = r"found pathological slices of sub-\d alone in the training split, expected at least 2 patients"
    with pytest.raises(UsageError, match=alone) as caught:
        TwoDomainDataset(cohort, "training", GRID, fraction=0.2)
    assert "\n" not in str(caught.value)
    assert str(cohort) in str(caught.value)


def test_two_scans_of_one_patient_are_one_patient_too(tmp_path):
    lesions = {
        "sub-a_ses-1": range(3),
        "sub-a_ses-2": range(3),
        "sub-b": range(0),
        "sub-c": range(3),
        "sub-d": range(3),
    }
    cohort = write(tmp_path, lesions, ("training", "training", "training", "validation", "test"))
    with pytest.raises(UsageError, match="found pathological slices of sub-a alone in the training split"):
        TwoDomainDataset(cohort, "training", GRID)


def test_without_a_healthy_slice_there_is_no_second_domain(tmp_path):
    lesions = {"sub-a": range(SLICES), "sub-b": range(SLICES), "sub-c": range(3), "sub-d": range(3)}
    cohort = write(tmp_path, lesions, ("training", "training", "validation", "test"))
    with pytest.raises(UsageError, match="found no healthy slice among the 2 training subjects"):
        TwoDomainDataset(cohort, "training", GRID)
