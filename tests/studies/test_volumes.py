"""Volumes of tissue in filled scans: errors against the truth by row, patient and size of lesion, and tests."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pipeline.bundles import find_bundle
from pipeline.errors import UsageError
from pipeline.evaluation.controls import UNTOUCHED
from pipeline.evaluation.fills import FILLS
from pipeline.phantoms import brain_phantom
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.slab import Slab
from pipeline.studies import volumes
from pipeline.studies.volumes import ALL, _page, _table

WHOLE = Slab(thickness_mm=None)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three coarse phantoms with lesions and their truth, for validation."""
    folder = tmp_path_factory.mktemp("planted")
    for number in range(3):
        phantom, label = brain_phantom(number, shape=(44, 52, 12), spacing_mm=(4.0, 4.0, 10.0)), f"sub-{number}"
        for path, voxels in (
            (f"{label}/anat/{label}_FLAIR.nii.gz", phantom.image),
            (f"derivatives/manual/{label}/anat/{label}_label-lesion_mask.nii.gz", phantom.lesion),
            (f"derivatives/truth/{label}/anat/{label}_desc-healthy_FLAIR.nii.gz", phantom.healthy),
        ):
            (folder / path).parent.mkdir(parents=True)
            nib.save(nib.Nifti1Image(voxels, phantom.affine), folder / path)
    rows = "".join(f"sub-{number}\tvalidation\n" for number in range(3))
    (folder / "participants.tsv").write_text(f"participant_id\tsplit\n{rows}")
    return folder


def prepared(scans: Path, folder: Path, slab: Slab = WHOLE) -> Path:
    preprocess(scans, folder, Settings(slab=slab), workers=1)
    return folder


@pytest.fixture(scope="module")
def cohort(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(scans, tmp_path_factory.mktemp("preprocessed") / "cohort")


@pytest.mark.slow
def test_every_fill_is_measured_in_each_scan_once(cohort: Path, tmp_path: Path) -> None:
    page = volumes([find_bundle("harmonic")], cohort, tmp_path / "study", device="cpu")
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    names = [row["images"] for row in summary["results"][0]["rows"]]
    assert names[:2] == ["harmonic", UNTOUCHED]
    assert set(FILLS) < set(names)
    assert [result["patient"] for result in summary["results"]] == ["sub-0", "sub-1", "sub-2"]
    for result in summary["results"]:
        assert result["contrast"] == "FLAIR"
        assert sum(result["truth_ml"].values()) == pytest.approx(result["brain_ml"])
        by_name = {row["images"]: row for row in result["rows"]}
        # The bundle and the control solve the same equation.
        assert by_name["harmonic"]["ml"] == pytest.approx(by_name["harmonic in 3-D"]["ml"], rel=1e-3)
        for row in result["rows"]:
            found, true = row["ml"]["GM"], result["truth_ml"]["GM"]
            assert row["gm"] == pytest.approx(100 * (found - true) / true)
    table = pd.read_csv(tmp_path / "study" / "table.csv")
    whole = table[table["size"] == ALL].set_index("images")
    errors = [abs(result["rows"][1]["wm"]) for result in summary["results"]]
    assert whole.loc[UNTOUCHED, "wm"] == pytest.approx(np.mean(errors))
    assert whole.loc[UNTOUCHED, "wm_sd"] == pytest.approx(np.std(errors, ddof=1))
    assert (tmp_path / "study" / "plot.png").is_file()
    assert "With 3 patients no p of these tests can be below 0.5" in page
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "study" / "scans").iterdir()}
    assert volumes([find_bundle("harmonic")], cohort, tmp_path / "study", device="cpu") == page
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.slow
def test_a_slab_and_scans_without_truth_are_refused(scans: Path, tmp_path: Path) -> None:
    slab = prepared(scans, tmp_path / "slab", Slab(slices=5, thickness_mm=None))
    with pytest.raises(UsageError, match="holds a slab of each scan, expected whole scans"):
        volumes([], slab, tmp_path / "study")
    shutil.copytree(scans, tmp_path / "real")
    shutil.rmtree(tmp_path / "real" / "derivatives" / "truth")
    with pytest.raises(UsageError, match="sub-0 has no truth"):
        volumes([], prepared(tmp_path / "real", tmp_path / "whole"), tmp_path / "study")


@pytest.mark.slow
def test_two_rows_of_one_name_are_refused(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is the second row named harmonic"):
        volumes([find_bundle("harmonic")] * 2, cohort, tmp_path / "study", device="cpu")


def results(errors: dict[str, list[float]], sizes: list[str]) -> list[dict[str, Any]]:
    """Scans of as many patients, with errors of both tissues by row."""
    return [
        {
            "patient": f"sub-{number}",
            "contrast": "T1w",
            "size": size,
            "rows": [
                {"images": name, "gm": values[number], "wm": values[number], "ssim_lesion": 0.5}
                for name, values in errors.items()
            ],
        }
        for number, size in enumerate(sizes)
    ]


class TestTable:
    def test_the_sign_of_an_error_is_none_of_its_size(self) -> None:
        table = _table(results({"fill": [1.0, -1.0], UNTOUCHED: [3.0, -5.0]}, ["small"] * 2), ["fill"])
        assert table.set_index("images")["gm"].to_dict() == {"fill": 1.0, UNTOUCHED: 4.0}

    def test_a_method_is_tested_against_the_best_control_and_corrected_for_both_tissues(self) -> None:
        many = np.linspace(1, 2, 10)
        errors = {"fill": many / 4, "ring mean": many / 2, UNTOUCHED: many}
        table = _table(
            results({name: list(values) for name, values in errors.items()}, ["small"] * 10), ["fill"]
        ).set_index("images")
        assert set(table["gm_best_control"]) == {"ring mean"}
        assert table.loc["fill", "gm_p"] == pytest.approx(2 * 2**-9)
        assert table.loc["ring mean", "gm_p"] != table.loc["ring mean", "gm_p"], "no control is tested"

    def test_scans_are_told_apart_by_their_largest_lesion(self) -> None:
        found = results({"fill": [1.0, 2.0, 4.0], UNTOUCHED: [2.0, 3.0, 5.0]}, ["small", "giant", "small"])
        table = _table(found, ["fill"])
        assert table.groupby("size", sort=False)["scans"].first().to_dict() == {ALL: 3, "small": 2, "giant": 1}
        assert table.loc[(table["size"] == "small") & (table["images"] == "fill"), "gm"].item() == 2.5
        page = _page(table, found, ["fill"], "validation")
        assert "### Largest lesion: 0.1–1 ml (2 scans of 2 patients)" in page
        assert "ring" not in page

    def test_one_size_has_no_table_of_its_own(self) -> None:
        table = _table(results({"fill": [1.0], UNTOUCHED: [2.0]}, ["small"]), ["fill"])
        assert set(table["size"]) == {ALL}
