"""`study cross-modal`: every method of the paper's tables on the same splits, with controls, tests and quality."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pipeline.cli.study import study as study_command
from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.join import Modality
from pipeline.preprocessing.slab import Slab
from pipeline.studies.cross_modal import cross_modal
from pipeline.studies.cross_modal_methods import PRESETS, Scale, rows_of
from pipeline.studies.cross_modal_tables import (
    AUGMENTED,
    CHANCE,
    CYCLE_GAN,
    FLOOR,
    OURS,
    TARGET_ONLY,
    UNTRANSLATED,
    tables,
)

TINY = replace(
    PRESETS["laptop"],
    size=(32, 32),
    spacing_mm=1.0,
    filters=4,
    translator_filters=2,
    discriminator_filters=2,
    residual_blocks=1,
    epochs=1,
    is_splits=2,
    feature_steps=4,
)


def lay(folder: Path, modality: str, patients: range) -> Path:
    """Bright discs whose radius grows with age, in noise of the modality's own level."""
    ages = ["participant_id\tage"]
    for number in patients:
        rng = np.random.default_rng([number, len(modality)])
        x, y = np.mgrid[-12:12, -12:12]
        disc = np.hypot(x, y)[..., None] < 3 + (number % 6) + np.zeros(4)
        voxels = (
            rng.normal(300 if modality == "CT" else 900, 20, disc.shape) + (400 if modality == "CT" else -500) * disc
        )
        name = f"sub-{modality}{number:02d}"
        path = folder / f"{name}/anat/{name}_{modality}.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.diag([1.0, 1, 5, 1])), path)
        ages.append(f"{name}\t{30 + 10 * (number % 6)}")
    (folder / "participants.tsv").write_text("\n".join(ages) + "\n")
    return folder


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("modalities")
    for modality in ("CT", "MR", "PET"):
        settings = Settings(modality=modality, slab=Slab(thickness_mm=None), target="age")
        preprocess(lay(root / f"raw-{modality}", modality, range(8)), root / modality, settings, "bids", workers=1)
    return {modality: root / modality for modality in ("CT", "MR", "PET")}


@pytest.mark.slow
def test_every_method_is_tried_on_the_same_patients_and_goes_on_where_it_was_stopped(
    cohorts: dict[str, Path], tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    def run(sources: list[str]) -> str:
        given = [Modality(cohorts[name]) for name in sources]
        return cross_modal(Modality(cohorts["CT"]), given, tmp_path / "study", 1, TINY, device="cpu")

    epochs_trained(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(["MR", "PET"])
    rest = epochs_trained()
    text = run(["MR", "PET"])
    assert rest
    again = epochs_trained()
    assert run(["MR", "PET"]) == text
    assert again == []  # nothing is trained twice
    summary = json.loads((tmp_path / "study/summary.json").read_text())
    results = [result for result in summary["results"] if "row" in result]
    assert [result["row"] for result in results] == [row.name for row in rows_of(["MR", "PET"])]
    assert len({tuple(result["patients"]) for result in results}) == 1
    assert {result["images"] for result in results} == {4}  # one patient of 8
    qualities = {(each["kind"], each["source"]) for each in summary["results"] if "fid" in each}
    kinds = (UNTRANSLATED, CYCLE_GAN, OURS)
    assert qualities == {(FLOOR, ""), *((kind, source) for kind in kinds for source in ("MR", "PET"))}
    for name in ("fig2.png", "fig3.png", "plot.png", "table.csv"):
        assert (tmp_path / "study" / name).stat().st_size > 100
    assert "DUIIT: MR + PET" in text
    assert "71.37 ± 18.92" in text
    with pytest.raises(UsageError, match="made with other settings"):
        run(["MR"])


def results(errors: dict[str, list[float]], kinds: dict[str, tuple[str, list[str]]]) -> list[dict[str, Any]]:
    """Ten patients in two splits."""
    return [
        {
            "row": row,
            "kind": kinds[row][0],
            "sources": kinds[row][1],
            "split": split,
            "error": float(np.mean(of[5 * split :][:5])),
            "scan_error": 1.0,
            "seconds": 1.0,
            "patients": {f"p{number}": of[number] for number in range(5 * split, 5 * split + 5)},
        }
        for row, of in errors.items()
        for split in (0, 1)
    ]


def test_tests_are_paired_over_patients_and_printed_numbers_stand_beside() -> None:
    noise = np.random.default_rng(0).random(10)
    errors = {TARGET_ONLY: 10 + noise, f"{OURS}: MR": 5 + noise / 2, CHANCE: 30 + noise}
    kinds = {TARGET_ONLY: (TARGET_ONLY, []), f"{OURS}: MR": (OURS, ["MR"]), CHANCE: (CHANCE, [])}
    about = {"modalities": [{"modality": "CT"}, {"modality": "MR"}]}
    found = results({row: of.tolist() for row, of in errors.items()}, kinds)
    frame, made = tables(found, [], about)
    frame = frame.set_index("row")
    assert made.empty
    assert frame.loc[TARGET_ONLY, "error"] == pytest.approx(errors[TARGET_ONLY].mean())
    assert frame.loc[f"{OURS}: MR", "p_target"] == pytest.approx(2 * 2**-9)  # of two tests, Holm
    assert frame.loc[f"{OURS}: MR", "direction_target"] == "lower"
    assert frame.loc[CHANCE, "direction_ours"] == "higher"
    assert pd.isna(frame.loc[TARGET_ONLY, "p_target"])
    assert frame["printed"].tolist() == ["103.88 ± 64.27", "76.91 ± 8.31", "–"]
    assert frame["patients"].tolist() == [10, 10, 10]


def test_without_kornia_the_augmentations_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[rows_of.__module__], "available", lambda: False)
    kinds = {row.kind for row in rows_of(["MR"])}
    assert OURS in kinds
    assert not kinds & set(AUGMENTED)


def test_the_full_size_is_the_papers() -> None:
    full = Scale()
    assert (full.batch_size, full.epochs, full.lambda_, full.predictor_blocks) == (1, 200, 0.001, (3, 4, 6, 3))


def test_the_command_refuses_two_modalities_of_one_name(cohorts: dict[str, Path], tmp_path: Path) -> None:
    given = ["cross-modal", "--data", str(cohorts["CT"]), "--source", f"CT={cohorts['MR']}", "-o", str(tmp_path / "x")]
    done = CliRunner().invoke(study_command, [*given, "--preset", "laptop"])
    assert isinstance(done.exception, UsageError)
    assert "several are of the modality CT" in str(done.exception)


def test_classes_have_no_squared_error(cohorts: dict[str, Path], tmp_path: Path) -> None:
    classes = {}
    for name in ("CT", "MR"):
        classes[name] = Path(shutil.copytree(cohorts[name], tmp_path / name))
        content = json.loads((classes[name] / "cohort.json").read_text())
        for subject in content["subjects"]:
            subject["target"] = "old" if subject["target"] > 50 else "young"
        (classes[name] / "cohort.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="has the classes old, young as target, expected numbers"):
        cross_modal(Modality(classes["CT"]), [Modality(classes["MR"])], tmp_path / "study", 1, TINY, device="cpu")
