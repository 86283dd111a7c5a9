"""Cohorts of one modality each, joined: disjoint people, sources in training, the target's split drawn anew."""

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli.join import join as join_command
from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import LESION_AREA, Settings, preprocess
from pipeline.preprocessing.cohort_format import Cohort, read_cohort, read_mask, read_part
from pipeline.preprocessing.join import Modality, join
from pipeline.preprocessing.slab import Slab

SLICES = 5


def lay(folder: Path, modality: str, patients: range) -> Path:
    """Scans of a modality, with a lesion of k pixels in slice k of patient k."""
    for number in patients:
        rng = np.random.default_rng([number, len(modality)])
        voxels = rng.integers(1, 1000, (8, 8, SLICES)).astype(np.int16)
        mask = np.zeros(voxels.shape, np.uint8)
        mask[: number % 8 + 1, 0, 1:3] = 1
        name = f"sub-{number:02d}"
        for path, array in (
            (folder / f"{name}/anat/{name}_{modality}.nii.gz", voxels),
            (folder / f"derivatives/manual/{name}/anat/{name}_label-lesion_mask.nii.gz", mask),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([2.0, 3, 5, 1])), path)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """FLAIR of patients 0 to 11, T1w of 8 to 13."""
    root = tmp_path_factory.mktemp("modalities")
    found = {}
    for modality, patients in (("FLAIR", range(12)), ("T1w", range(8, 14))):
        settings = Settings(modality=modality, slab=Slab(thickness_mm=None), target=LESION_AREA)
        preprocess(lay(root / f"raw-{modality}", modality, patients), root / modality, settings, workers=1)
        found[modality] = root / modality
    return found


def joined(prepared: dict[str, Path], folder: Path, **more: Any) -> Cohort:
    join(folder, Modality(prepared["FLAIR"]), [Modality(prepared["T1w"])], **more)
    return read_cohort(folder)


def test_lesion_area_is_a_target_of_each_slice(prepared: dict[str, Path]) -> None:
    for subject in read_cohort(prepared["FLAIR"]).subjects:
        area = (int(subject.patient[-2:]) % 8 + 1) * 2 * 3 / 100  # cm²
        assert subject.slice_targets == pytest.approx([0, area, area, 0, 0])
        assert subject.target == pytest.approx(2 * area / SLICES)


def test_people_are_in_one_modality_and_sources_in_training(prepared: dict[str, Path], tmp_path: Path) -> None:
    content = joined(prepared, tmp_path / "joined")
    by_modality = {name: {subject.patient for subject in content.having([name])} for name in ("FLAIR", "T1w")}
    assert not by_modality["FLAIR"] & by_modality["T1w"]
    assert {name: len(people) for name, people in by_modality.items()} == {"FLAIR": 8, "T1w": 6}
    assert {subject.split for subject in content.having(["T1w"])} == {"training"}
    assert [len(content.of(split)) for split in ("training", "validation", "test")] == [6 + 6, 1, 1]
    assert content.notes == ["4 patients are in several modalities; each was taken in one: 8 in FLAIR, 6 in T1w"]


def test_volumes_are_those_of_the_cohorts(prepared: dict[str, Path], tmp_path: Path) -> None:
    content = joined(prepared, tmp_path / "joined")
    sources = {name: {s.subject: s for s in read_cohort(prepared[name]).subjects} for name in prepared}
    for subject in content.subjects:
        modality, _, name = subject.subject.partition("_")
        before = sources[modality][name]
        np.testing.assert_array_equal(
            read_part(tmp_path / "joined", subject, subject.channels[modality]),
            read_part(prepared[modality], before, before.images),
        )
        assert (subject.window, subject.labels, subject.target) == (before.window, before.labels, before.target)


def test_seeds_draw_other_splits_of_the_target(prepared: dict[str, Path], tmp_path: Path) -> None:
    tests = [
        {subject.patient for subject in joined(prepared, tmp_path / str(seed), seed=seed).of("test")}
        for seed in (0, 0 + 1, 2, 3)
    ]
    assert len(set(map(frozenset, tests))) > 1


def test_by_image_slices_of_a_person_are_in_several_splits_and_it_is_said(
    prepared: dict[str, Path], tmp_path: Path
) -> None:
    content = joined(prepared, tmp_path / "joined", by="image")
    target = content.having(["FLAIR"])
    counts = {
        split: sum(len(s.labels) for s in target if s.split == split) for split in ("training", "validation", "test")
    }
    assert counts == {"training": 31, "validation": 4, "test": 5}  # of 40
    assert len({subject.patient for subject in target}) < len(target)
    assert any("leaks" in note for note in content.notes)
    for subject in target:
        mask = read_mask(tmp_path / "joined", subject)
        areas = mask.sum(axis=(1, 2)) * 6 / 100
        assert subject.slice_targets == pytest.approx(list(areas))
        assert subject.target == pytest.approx(areas.mean())


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (lambda prepared: [Modality(prepared["FLAIR"])], "several are of the modality FLAIR"),
        (lambda prepared: [Modality(prepared["T1w"], "FLAIR")], "several are of the modality FLAIR"),
        (lambda prepared: [Modality(prepared["other"])], "has the target None, expected lesion_area"),
    ],
)
def test_cohorts_that_do_not_fit_are_refused(
    sources: Any, said: str, prepared: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(prepared["T1w"], other)
    cohort = other / "cohort.json"
    cohort.write_text(cohort.read_text().replace('"target": "lesion_area"', '"target": null'))
    with pytest.raises(UsageError, match=said):
        join(tmp_path / "joined", Modality(prepared["FLAIR"]), sources({**prepared, "other": other}))
    assert not (tmp_path / "joined").exists()


def test_the_command_names_modalities(prepared: dict[str, Path], tmp_path: Path) -> None:
    given = [str(prepared["FLAIR"]), f"MR={prepared['T1w']}", "-o", str(tmp_path / "joined")]
    done = CliRunner().invoke(join_command, given)
    assert done.exit_code == 0, done.output
    assert read_cohort(tmp_path / "joined").channels == ["FLAIR", "MR"]
    assert "training: 12 patient(s)" in done.output
