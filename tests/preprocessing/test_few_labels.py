"""Few labels: which slices have a mask, and that no other mask is seen."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.preprocessing.augmentation import Augmentation
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.few_labels import FewLabelsDataset, PartlyLabelledDataset
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import WHOLE

GRID = Grid(2.0, (32, 32))
SIDE, SLICES = 32, 8
PATIENTS, LESIONS = 6, 5  # of training, and slices with a lesion in each


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patients 0 to 5 are for training; 0 and 1 have the target 9. Each patient's lesion has columns of its own."""
    root = tmp_path_factory.mktemp("scans")
    rows = ["subject,image,mask,split,target"]
    for number in range(PATIENTS + 2):
        image = np.zeros((SIDE, SIDE, SLICES), np.float32)
        image[:24] = 100 * (number + 1) + np.arange(SLICES)
        image[-1] = 1000
        mask = np.zeros(image.shape, np.uint8)
        mask[4:20, 2 * number, :LESIONS] = 1
        for kind, voxels in (("image", image), ("mask", mask)):
            nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 5, 1])), root / f"p{number}_{kind}.nii")
        split = ("training",) * PATIENTS + ("validation", "test")
        rows.append(f"p{number},p{number}_image.nii,p{number}_mask.nii,{split[number]},{9 if number < 2 else 3}")
    (root / "scans.csv").write_text("\n".join(rows))
    preprocess(root / "scans.csv", root / "cohort", Settings(slab=WHOLE, target="target"), workers=1)
    return root / "cohort"


def few(cohort: Path, **options) -> FewLabelsDataset:
    return FewLabelsDataset(cohort, "training", GRID, **options)


def test_each_pathological_slice_comes_once_beside_a_healthy_one(cohort):
    data = few(cohort)
    assert len(data) == PATIENTS * LESIONS
    torch.manual_seed(0)
    sample = data[0]
    assert {name: tuple(value.shape) for name, value in sample.items()} == {
        "image": (1, 32, 32),
        "mask": (1, 32, 32),
        "labelled": (1,),
        "healthy": (1, 32, 32),
    }
    images = {tuple(data.healthy[index]["image"].flatten().tolist()) for index in range(len(data.healthy))}
    assert len(data.healthy) == PATIENTS * (SLICES - LESIONS)
    drawn = [data[0]["healthy"] for _ in range(20)]
    assert {tuple(image.flatten().tolist()) for image in drawn} <= images
    assert any(not torch.equal(image, drawn[0]) for image in drawn)


@pytest.mark.parametrize(("share", "labels"), [(1.0, 30), (0.5, 15), (0.1, 3), (0.001, 1)])
def test_a_share_of_the_examples_is_labelled_and_at_least_one(cohort, share, labels):
    data = few(cohort, labelled=share)
    assert data.labelled.sum() == labels
    assert sum(int(data[index]["labelled"]) for index in range(len(data))) == labels


def test_the_mask_of_what_is_not_labelled_is_not_there(cohort):
    data = few(cohort, labelled=0.3)
    for index in range(len(data)):
        sample = data[index]
        assert sample["mask"].any() == bool(sample["labelled"])
        if sample["labelled"]:
            assert torch.equal(sample["mask"], data.pathological[index]["mask"])


@pytest.mark.parametrize(("share", "patients"), [(0.5, 3), (0.2, 1), (0.01, 1)])
def test_of_a_labelled_patient_all_slices_are_labelled_and_of_others_none(cohort, share, patients):
    data = few(cohort, labelled=share, labelled_by="patients")
    whose = np.array(data.pathological.patients)
    assert len(set(whose[data.labelled])) == patients
    assert not set(whose[data.labelled]) & set(whose[~data.labelled])


def test_a_larger_share_contains_a_smaller_one_and_the_seed_decides_which(cohort):
    small, large = few(cohort, labelled=0.2).labelled, few(cohort, labelled=0.6).labelled
    assert (large | ~small).all()
    assert np.array_equal(few(cohort, labelled=0.2).labelled, small)
    assert any(not np.array_equal(few(cohort, labelled=0.2, seed=seed).labelled, small) for seed in range(1, 5))


@pytest.mark.parametrize(("by", "share", "labels"), [("examples", 0.1, 3), ("patients", 0.3, 10)])
def test_of_one_target_alone_labels_are_counted_among_all(cohort, by, share, labels):
    data = few(cohort, labelled=share, labelled_by=by, labelled_target=9)
    assert data.labelled.sum() == labels
    assert {data.pathological.subject_of[index].target for index in np.flatnonzero(data.labelled)} == {9}


def test_more_of_a_target_than_there_are_is_refused_with_both_numbers(cohort):
    with pytest.raises(
        UsageError, match=r"50% of the training examples are 15, and it has 10 with the target 9, expec"
    ):
        few(cohort, labelled=0.5, labelled_target=9)


def test_who_has_no_use_for_the_rest_gets_the_labelled_alone_in_epochs_as_long(cohort):
    data = few(cohort, labelled=0.1, labelled_share=1.0)
    assert len(data) == PATIENTS * LESIONS
    assert all(data[index]["labelled"] == 1 and data[index]["mask"].any() for index in range(len(data)))
    shown = [tuple(data[index]["image"].flatten().tolist()) for index in range(len(data))]
    assert [shown.count(image) for image in set(shown)] == [10, 10, 10]


def test_a_share_of_an_epoch_may_be_labelled_and_the_rest_is_drawn_from_all(cohort):
    data = few(cohort, labelled=0.1, labelled_share=0.6)
    torch.manual_seed(0)
    assert len(data) == PATIENTS * LESIONS
    assert all(data[index]["labelled"] == 1 for index in range(18))
    rest = [data[index] for _ in range(20) for index in range(18, 30)]
    images = {tuple(sample["image"].flatten().tolist()) for sample in rest}
    assert len(images) == 30
    assert all(sample["mask"].any() == bool(sample["labelled"]) for sample in rest)


def test_slices_of_both_domains_are_augmented_with_their_masks_before_labels_are_hidden(cohort):
    data = few(cohort, labelled=0.3, augmentation=Augmentation(warp_px=0, zoom=0))
    plain = few(cohort, labelled=0.3)
    torch.manual_seed(0)
    first, again = data[0], data[0]
    assert not torch.allclose(first["image"], again["image"])
    assert not any(torch.allclose(first["healthy"], plain.healthy[n]["image"]) for n in range(len(plain.healthy)))
    for index in range(len(data)):
        assert data[index]["mask"].any() == bool(data.labelled[index])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labelled_share": 1.2}, "between 0 and 1, found 1.2"),
        ({"labelled": 0}, "above 0 and at most 1, found 0"),
        ({"labelled": 1.5}, "above 0 and at most 1, found 1.5"),
        ({"labelled_by": "slices"}, "'examples' or 'patients', found 'slices'"),
    ],
)
def test_shares_and_kinds_that_make_no_sense_are_refused(cohort, options, message):
    with pytest.raises(UsageError, match=message):
        few(cohort, **options)


class TestPartlyLabelled:
    """Slices with and without lesion together, of which some have neither mask nor target."""

    def of(self, cohort: Path, **options) -> PartlyLabelledDataset:
        return PartlyLabelledDataset(cohort, "training", GRID, **options)

    def test_all_are_labelled_by_default_and_keep_their_mask(self, cohort):
        data = self.of(cohort)
        assert len(data) == PATIENTS * SLICES
        assert data.labelled.all()
        for index in range(len(data)):
            sample, plain = data[index], data.slices[index]
            assert set(sample) == {"image", "mask", "labelled"}
            assert all(torch.equal(sample[name], plain[name]) for name in ("image", "mask"))

    def test_of_a_third_of_the_patients_masks_and_classes_are_seen_and_of_the_others_neither(self, cohort):
        data = self.of(cohort, labelled=1 / 3, class_of="target")
        known = {patient for patient, label in zip(data.slices.patients, data.labelled, strict=True) if label}
        assert len(known) == 2
        for index, patient in enumerate(data.slices.patients):
            sample = data[index]
            assert bool(sample["labelled"]) == (patient in known)
            assert float(sample["class"]) == (float(data.slices[index]["target"]) if patient in known else 0)
            assert sample["mask"].any() == (patient in known and bool(data.slices[index]["mask"].any()))

    def test_the_same_patients_are_labelled_as_where_domains_are_apart(self, cohort):
        for seed in range(4):
            ours, theirs = (
                self.of(cohort, labelled=0.5, seed=seed),
                few(cohort, labelled=0.5, labelled_by="patients", seed=seed),
            )
            known = [
                {patient for patient, label in zip(slices.patients, data.labelled, strict=True) if label}
                for data, slices in ((ours, ours.slices), (theirs, theirs.pathological))
            ]
            assert known[0] == known[1]

    def test_a_share_of_an_epoch_is_labelled_slices_over_and_over(self, cohort):
        data = self.of(cohort, labelled=0.01, labelled_by="examples", labelled_share=0.75)
        assert len(data) == PATIENTS * SLICES
        assert data.labelled.sum() == 1
        assert sum(bool(data[index]["labelled"]) for index in range(36)) == 36

    def test_the_class_may_be_whether_a_lesion_is_seen(self, cohort):
        data = self.of(cohort, class_of="presence", labelled=0.5)
        classes = [float(data.slices[index]["target"]) for index in range(len(data))]
        assert classes == [float(data.slices[index]["mask"].any()) for index in range(len(data))]
        assert sum(classes) == PATIENTS * LESIONS
        assert {float(data[index]["class"]) for index in np.flatnonzero(~data.labelled)} == {0}

    @pytest.mark.parametrize("setting", [{"labelled": 0.0}, {"labelled_by": "scans"}, {"class_of": "age"}])
    def test_settings_that_make_no_sense_are_refused(self, cohort, setting):
        with pytest.raises(UsageError, match="found"):
            self.of(cohort, **setting)
