"""Cohorts as people bring them: what is taken, what is said, what is refused, and what a training then sees."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import Preprocessed, Settings, preprocess
from pipeline.preprocessing.cohort_format import read_cohort
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.slices import SliceDataset

WHOLE = Slab(thickness_mm=None)
GRID = Grid(2.0, (32, 32))


def save(path: Path, voxels: NDArray[Any]) -> None:
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 5, 1])), path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six patients with a FLAIR, a T1 and a mask each, and a datalist with a target."""
    folder = tmp_path / "source"
    folder.mkdir()
    rows = ["image,T1,mask,subject,target"]
    for number in range(6):
        rng = np.random.default_rng(number)
        mask = np.zeros((20, 18, 6), np.uint8)
        mask[5:9, 6:10, 2] = 1
        save(folder / f"p{number}_image.nii", rng.integers(1, 1000, mask.shape, dtype=np.int16))
        save(folder / f"p{number}_T1.nii", rng.integers(1, 500, mask.shape, dtype=np.int16))
        save(folder / f"p{number}_mask.nii", mask)
        rows.append(f"p{number}_image.nii,p{number}_T1.nii,p{number}_mask.nii,p{number},{50 + number}")
    (folder / "list.csv").write_text("\n".join(rows))
    return folder


def run(source: Path, name: str = "out", **settings: Any) -> Preprocessed:
    cohort = source if source.suffix else source / "list.csv"
    return preprocess(cohort, cohort.parent / name, Settings(slab=WHOLE, **settings), workers=1)


def relist(source: Path, *rows: str) -> None:
    (source / "list.csv").write_text("\n".join(rows))


def test_channels_lie_on_one_grid_and_are_seen_together(source: Path) -> None:
    result = run(source, channels=("image", "T1"))
    assert list(result.subjects[0].channels) == ["image", "T1"]
    training = SliceDataset(result.directory, "training", GRID)
    assert training[0]["image"].shape == (2, 32, 32)
    assert training[0]["mask"].shape == (1, 32, 32)
    alone = SliceDataset(result.directory, "training", GRID, channels=["T1"])
    torch.testing.assert_close(alone[0]["image"], training[0]["image"][1:])
    with pytest.raises(UsageError, match="has the channels image, T1, expected T2 too"):
        SliceDataset(result.directory, "training", GRID, channels=["T2"])


def test_targets_come_with_the_slices(source: Path) -> None:
    result = run(source)
    training = SliceDataset(result.directory, "training", GRID)
    assert training[0]["target"].shape == (1,)
    assert float(training[0]["target"]) == 50 + int(training.subject_of[0].subject[1:])


def test_classes_become_their_index(source: Path) -> None:
    text = (source / "list.csv").read_text()
    for number in range(6):
        text = text.replace(f",{50 + number}", f",{'low' if number % 2 else 'high'}")
    (source / "list.csv").write_text(text)
    training = SliceDataset(run(source).directory, "training", GRID)
    assert training.classes == ["high", "low"]
    assert {float(training[place]["target"]) for place in range(len(training))} <= {0.0, 1.0}


def test_scans_without_masks_are_unknown_or_healthy(source: Path) -> None:
    relist(source, "image,subject", *(f"p{n}_image.nii,p{n}" for n in range(6)))
    unknown = run(source)
    assert {label for subject in unknown.subjects for label in subject.labels} == {"unknown"}
    assert "all slices are labelled unknown" in unknown.notes[0]
    with pytest.raises(UsageError, match=r"found no pathological slice among .* give lesion masks to preprocess"):
        SliceDataset(unknown.directory, "training", GRID)
    taken = SliceDataset(unknown.directory, "training", GRID, labels=("unknown",))
    assert not taken[0]["mask"].any()
    healthy = run(source, "healthy", healthy=True)
    assert {label for subject in healthy.subjects for label in subject.labels} == {"healthy"}


def test_a_cohort_that_grows_keeps_its_patients_in_their_splits(source: Path) -> None:
    whole = (source / "list.csv").read_text().splitlines()
    for missing in range(1, 7):
        folder = f"out{missing}"
        relist(source, *whole[:missing], *whole[missing + 1 :])
        before = {subject.patient: subject.split for subject in run(source, folder).subjects}
        relist(source, *whole)
        grown = run(source, folder)
        after = {subject.patient: subject.split for subject in grown.subjects}
        assert after.keys() - before.keys() == {f"p{missing - 1}"}
        assert {patient: after[patient] for patient in before} == before
        assert "1 came; all others stay in the splits that they were in" in grown.notes[0]


def test_one_image_under_two_patients_is_refused_whatever_its_file(source: Path) -> None:
    image = nib.load(source / "p0_image.nii")
    nib.save(image, source / "p5_image.nii.gz")
    text = (source / "list.csv").read_text().replace("p5_image.nii", "p5_image.nii.gz")
    (source / "list.csv").write_text(text)
    with pytest.raises(UsageError, match=r"holds the same image under several patients \(p0, p5\)"):
        run(source)


def test_copies_of_one_image_alone_are_a_trial_of_the_layout_and_said_to_be(source: Path) -> None:
    for number in range(1, 6):
        nib.save(nib.load(source / "p0_image.nii"), source / f"p{number}_image.nii")
        nib.save(nib.load(source / "p0_mask.nii"), source / f"p{number}_mask.nii")
    made = run(source)
    assert len(made.subjects) == 6
    assert any("are the same image" in note for note in made.notes)


def test_one_file_under_every_subject_of_a_list_is_refused(source: Path) -> None:
    text = "image,mask,subject\n" + "".join(f"p0_image.nii,p0_mask.nii,s{number}\n" for number in range(6))
    (source / "list.csv").write_text(text)
    with pytest.raises(UsageError, match="holds the same image under several patients"):
        run(source)


def test_a_list_s_splits_beside_other_shares_are_refused(source: Path) -> None:
    rows = [{"image": f"p{n}_image.nii", "mask": f"p{n}_mask.nii"} for n in range(6)]
    (source / "list.json").write_text(json.dumps({"training": rows}))
    with pytest.raises(UsageError, match=r"says itself which split its scans are in \(training\), expected no --split"):
        run(source / "list.json", split=(0.5, 0.25, 0.25))


def test_training_and_test_alone_do_without_validation(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = run(source, split=(0.75, 0, 0.25)).directory
    assert read_cohort(directory).slices("validation", "patients") == 0
    with caplog.at_level(logging.WARNING):
        assert len(SliceDataset(directory, "validation", GRID)) == 0
    assert "so validation figures and panels are off" in caplog.text
    assert len(SliceDataset(directory, "training", GRID)) == 5


class TestMasks:
    def with_mask(self, source: Path, voxels: NDArray[Any], **settings: Any) -> Preprocessed:
        save(source / "p0_mask.nii", voxels)
        return run(source, **settings)

    @pytest.mark.parametrize("factor", [1, 0.5])
    def test_a_scan_is_no_mask(self, factor: float, source: Path) -> None:
        image = np.asarray(nib.load(source / "p0_image.nii").dataobj)
        (problem,) = self.with_mask(source, (image * factor).astype(np.float32)).problems
        scan = source / "p0_image.nii"
        assert f"has the intensities of the scan {scan}, expected a lesion mask" in problem.reason

    def test_an_inverted_mask_is_refused(self, source: Path) -> None:
        lesion = np.asarray(nib.load(source / "p0_mask.nii").dataobj)
        (problem,) = self.with_mask(source, 1 - lesion).problems
        assert "of the head or body, expected lesions; give a lesion mask, neither an inverted one" in problem.reason

    def test_a_soft_mask_is_lesion_from_one_half_on(self, source: Path) -> None:
        soft = np.zeros((20, 18, 6), np.float32)
        soft[5:9, 6:10, 2], soft[3, 3, 4] = 0.5, 0.49
        result = self.with_mask(source, soft)
        assert result.subjects[0].labels == ["healthy", "healthy", "pathological", "healthy", "healthy", "healthy"]
        assert "p0_mask.nii: holds values between 0 and 1; 0.5 and more were taken as lesion" in result.notes

    def test_several_values_are_said_and_can_be_chosen(self, source: Path) -> None:
        organ = np.asarray(nib.load(source / "p0_mask.nii").dataobj) * 2
        organ[10:12, 10:12, 3] = 1
        result = self.with_mask(source, organ)
        assert "p0_mask.nii: holds the values 1, 2; all were taken as lesion" in result.notes
        for number in range(1, 6):
            mask = np.asarray(nib.load(source / f"p{number}_mask.nii").dataobj)
            save(source / f"p{number}_mask.nii", mask * 2)
        chosen = run(source, "chosen", lesion_labels=(2,))
        assert chosen.subjects[0].labels.count("pathological") == 1
        assert chosen.notes == []

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
            (b"/annex/objects/MD5E-s1--0.nii\n", "git annex get"),
        ],
    )
    def test_a_pointer_is_no_scan(self, content: bytes, said: str, source: Path) -> None:
        (source / "p0_mask.nii").write_bytes(content)
        (problem,) = run(source).problems
        assert "get the file first" in problem.reason
        assert said in problem.reason


class TestGrid:
    def test_lesions_that_vanish_are_counted_and_left_out(self, source: Path, caplog: pytest.LogCaptureFixture) -> None:
        for number in range(6):
            mask = np.zeros((20, 18, 6), np.uint8)
            mask[5:9, 6:10, 2], mask[3, 3, 4] = 1, 1
            save(source / f"p{number}_mask.nii", mask)
        directory = run(source, split=(1, 0, 0)).directory
        with caplog.at_level(logging.WARNING):
            coarse = SliceDataset(directory, "training", Grid(5.0, (32, 32)))
        assert len(coarse) == 6
        assert all(coarse.masks.reshape(6, -1).any(axis=1))
        assert "left out 6 of 12 training slices (pathological): their lesions are too small" in caplog.text
        assert len(SliceDataset(directory, "training", GRID)) == 12

    def test_all_lesions_too_small_is_one_sentence(self, source: Path) -> None:
        directory = run(source).directory
        with pytest.raises(UsageError, match="lesions are too small to be seen on 20 mm; take a finer grid"):
            SliceDataset(directory, "training", Grid(20.0, (32, 32)))

    def test_a_grid_that_cuts_off_a_lesion_is_refused(self, source: Path) -> None:
        directory = run(source).directory
        with pytest.raises(UsageError, match=r"slices of 40×36 mm, and the network's grid of 16×16 mm would cut off"):
            SliceDataset(directory, "training", Grid(1.0, (16, 16)))

    def test_slices_are_in_a_file_and_not_in_memory(self, source: Path) -> None:
        training = SliceDataset(run(source).directory, "training", GRID)
        assert isinstance(training.images, np.memmap)
        assert isinstance(training.masks, np.memmap)


def test_a_series_of_dicom_files_is_a_scan_where_the_layout_says_so(
    dicom_series: Callable[..., list[Path]], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    rows = ["Collection,Subject ID,Series Description,Modality,Number of Images,File Location"]
    for number in range(4):
        place = f"Head-Neck-PET-CT/HN-HGJ-00{number}/study/series"
        volume = rng.integers(1, 900, (8, 9, 6)).astype(np.int16)
        dicom_series(tmp_path / "raw" / place, volume, modality="CT", affine=np.diag([2.0, 2, 5, 1]))
        rows.append(f"Head-Neck-PET-CT,HN-HGJ-00{number},x,CT,6,./{place}")
    (tmp_path / "raw/metadata.csv").write_text("\n".join(rows) + "\n")
    settings = Settings(modality="CT", slab=Slab(thickness_mm=None))
    made = preprocess(tmp_path / "raw", tmp_path / "out", settings, "head-neck-pet-ct", workers=1)
    assert [subject.patient for subject in made.subjects] == [f"HN-HGJ-00{number}" for number in range(4)]
    assert made.problems == []
    volumes = [np.asarray(nib.load(tmp_path / "out" / subject.images).dataobj) for subject in made.subjects]
    assert [found.shape for found in volumes] == [(8, 9, 6)] * 4
    window = made.subjects[-1].window
    assert window is not None
    np.testing.assert_allclose(volumes[-1], np.clip(volume / window[1], 0, 1), atol=1e-4)
    dicom_series(tmp_path / "raw" / place, volume, modality="CT")
    again = preprocess(tmp_path / "raw", tmp_path / "out", settings, "head-neck-pet-ct", workers=1)
    assert [problem.reason.partition(": ")[2] for problem in again.problems] == [
        "found 2 DICOM series, expected one; leave one in the folder"
    ]
