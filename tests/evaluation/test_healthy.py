"""Where there is no disease, whatever a method changes counts against it."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import UsageError
from pipeline.evaluation.healthy import Load, cohort_loads, evaluate_healthy, scan_loads
from pipeline.evaluation.volumes import HEALTHY, read_volume, subjects_with
from pipeline.files import require_empty
from pipeline.inference import Inputs, Translator
from pipeline.inference.outputs import output_names
from pipeline.phantoms import brain_phantom
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule
from pipeline.reports.evaluation_report import write_healthy_report
from pipeline.scans.sources import Source

GRID = Grid(4.0, (48, 64))


class Brightens(Translator):
    """Adds to a square of 3 × 3 pixels in the middle of each slice."""

    def __init__(self, by: float) -> None:
        super().__init__(nn.Identity(), GRID, WindowRule(), Slab())
        self.by = by

    def residual(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
        change = np.zeros_like(windowed[:, 0])
        right, anterior = (side // 2 for side in change.shape[1:])
        change[:, right - 1 : right + 2, anterior - 1 : anterior + 2] = self.by
        return change


@pytest.fixture(scope="module")
def nothing() -> Translator:
    return Translator(nn.Identity(), GRID, WindowRule(), Slab())


@pytest.fixture
def measure(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(synthesizer: Translator, loads: dict[str, Load], overwrite: bool = False, **options: Any) -> dict[str, Any]:
        provenance = {"Bundle": "gvs", "WeightsSha256": "abc"}
        require_empty(tmp_path / "report", overwrite)
        evaluation = evaluate_healthy(synthesizer, loads, "method", provenance, "phantoms", **options)
        write_healthy_report(tmp_path / "report", evaluation)
        return evaluation.summary

    return run


def flat(load: Load) -> Load:
    """The same heads in one grey of 0.5, so that nothing is cut off at the window's ends."""

    def loaded() -> Any:
        volume, warnings = load()
        return replace(volume, image=0.5 * volume.foreground), warnings

    return loaded


def rows(report: Path) -> list[dict[str, str]]:
    with (report / "patients.csv").open() as file:
        return list(csv.DictReader(file))


def test_who_changes_nothing_is_identical(measure, nothing, cohort, tmp_path):
    summary = measure(nothing, cohort_loads(cohort, "test"))
    assert summary["scores"]["changed_share"]["mean"] == 0
    assert summary["scores"]["appeared_per_slice"]["mean"] == summary["scores"]["vanished_per_slice"]["mean"] == 0
    assert summary["scores"]["psnr"] == {"mean": None, "sd": None, "n": 3, "identical": 3}
    assert summary["scores"]["ssim"]["mean"] == pytest.approx(1)
    assert "| tissue PSNR, dB | identical (3) |" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize(("by", "appeared", "vanished"), [(0.2, 1, 0), (-0.2, 0, 1), (0.05, 0, 0)])
def test_what_appears_and_vanishes_is_counted_in_each_slice(measure, cohort, tmp_path, by, appeared, vanished):
    loads = {name: flat(load) for name, load in cohort_loads(cohort, "test").items()}
    volume = next(iter(loads.values()))()[0]
    assert bool(volume.foreground[:, 0, 18:21, 23:26].all()), "the square lies in tissue"
    metrics = measure(Brightens(by), loads)["scores"]
    assert metrics["appeared_per_slice"]["mean"] == appeared
    assert metrics["vanished_per_slice"]["mean"] == vanished
    row = rows(tmp_path / "report")[0]
    pixels = int(volume.foreground.sum())
    slices = len(volume.places)
    assert float(row["changed_share"]) == pytest.approx(9 * slices / pixels if appeared or vanished else 0)
    areas = volume.foreground.sum(dim=(1, 2, 3)).numpy()
    assert float(row["psnr"]) == pytest.approx(np.mean(10 * np.log10(areas / (9 * by**2))), abs=1e-3)


def test_only_slices_without_lesion_of_the_split_count(measure, nothing, cohort):
    records = subjects_with(cohort, "test", HEALTHY)
    summary = measure(nothing, cohort_loads(cohort, "test"))
    assert summary["slices"] == sum(record.labels.count("healthy") for record in records)
    assert summary["patients"] == summary["volumes"] == len(records)
    volume, warnings = cohort_loads(cohort, "test")[records[0].subject]()
    assert volume.places == read_volume(cohort, records[0], HEALTHY).places
    assert warnings == []


def test_a_split_without_healthy_slices_is_refused(cohort, tmp_path):
    content = json.loads((cohort / "cohort.json").read_text())
    for subject in content["subjects"]:
        subject["labels"] = ["pathological" for _ in subject["labels"]]
    (tmp_path / "cohort.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="found no slice without lesion in the test split, expected some; choose"):
        cohort_loads(tmp_path, "test")


@pytest.fixture
def scans(tmp_path: Path) -> Callable[..., dict[str, Source]]:
    """Phantoms without lesions, by file name."""

    def write(*names: str) -> dict[str, Source]:
        sources = []
        for seed, name in enumerate(names):
            phantom = brain_phantom(seed, shape=(38, 48, 20), spacing_mm=(4.0, 4.0, 10.0))
            path = tmp_path / "scans" / name
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(phantom.healthy, phantom.affine), path)
            sources.append(Source(path, path.name.removesuffix(".nii.gz"), "nifti"))
        return output_names(sources)

    return write


def test_scans_are_measured_in_the_slab_that_the_method_was_trained_on(measure, nothing, scans):
    summary = measure(nothing, scan_loads(scans("one.nii.gz", "two.nii.gz"), nothing, {}))
    assert summary["volumes"] == summary["patients"] == 2
    assert summary["slices"] == 2 * 6  # 60 mm of slices 10 mm apart
    assert summary["warnings"] == summary["failed"] == {}


def test_sessions_of_one_person_are_one_patient(measure, nothing, scans, tmp_path):
    named = scans("sub-01_ses-1_FLAIR.nii.gz", "sub-01_ses-2_FLAIR.nii.gz", "sub-02_FLAIR.nii.gz", "other.nii.gz")
    summary = measure(nothing, scan_loads(named, nothing, {}))
    assert (summary["volumes"], summary["patients"]) == (4, 3)
    assert [row["patient"] for row in rows(tmp_path / "report")] == ["sub-01", "sub-01", "sub-02", "other"]


def test_a_scan_is_shown_to_the_network_as_synthesize_shows_it(scans, nothing):
    named = scans("one.nii.gz")
    volume, _ = scan_loads(named, nothing, {})["one"]()
    twin = Brightens(-0.2)(Inputs(named["one"].read()))
    evaluated = np.zeros_like(volume.image[:, 0].numpy())
    evaluated[volume.foreground[:, 0].numpy()] = 1
    edited = twin.scan.axial(twin.region)
    assert np.array_equal(edited[edited.any(axis=(1, 2))], evaluated.astype(bool))
    window = twin.window.apply(twin.scan.axial(twin.scan.intensities()))
    assert np.array_equal(window[edited.any(axis=(1, 2))], volume.image[:, 0].numpy())


def test_a_scan_unlike_the_training_is_measured_and_named(measure, nothing, scans, cohort, tmp_path):
    from pipeline.preprocessing.domain import describe

    metadata = {"training_domain": {**describe(cohort), "slice_spacing_mm": [1.0, 1.0]}}
    summary = measure(nothing, scan_loads(scans("one.nii.gz"), nothing, metadata))
    assert summary["volumes"] == 1
    assert any("found slices at a distance of 10 mm" in text for text in summary["warnings"]["one"])
    page = (tmp_path / "report" / "report.md").read_text()
    assert "## Unlike the training\n\n- one: found" in page


def test_a_bad_scan_is_passed_over_and_named(measure, nothing, scans, tmp_path):
    named = scans("one.nii.gz", "bad.nii.gz")
    (tmp_path / "scans" / "bad.nii.gz").write_bytes(b"damaged")
    summary = measure(nothing, scan_loads(named, nothing, {}))
    assert summary["volumes"] == 1
    assert "found no readable header" in summary["failed"]["bad"]
    assert "## Not used\n\n- bad: " in (tmp_path / "report" / "report.md").read_text()


def test_without_any_usable_scan_there_is_no_report(measure, nothing, scans, tmp_path):
    named = scans("bad.nii.gz")
    (tmp_path / "scans" / "bad.nii.gz").write_bytes(b"damaged")
    with pytest.raises(UsageError, match=r"no scan could be used: .*no readable header"):
        measure(nothing, scan_loads(named, nothing, {}))
    assert not (tmp_path / "report").exists()


def test_a_folder_that_holds_something_is_not_written_into(measure, nothing, cohort, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not empty; choose another folder, or give --overwrite"):
        measure(nothing, cohort_loads(cohort, "test"))
    measure(nothing, cohort_loads(cohort, "test"), overwrite=True)
    assert (tmp_path / "report" / "mine.txt").exists()


def test_the_report_says_what_was_measured_on_what_by_what(measure, cohort, tmp_path):
    progress: list[tuple[int, int]] = []
    summary = measure(Brightens(-0.2), cohort_loads(cohort, "test"), progress=lambda *at: progress.append(at))
    report = tmp_path / "report"
    assert {path.name for path in report.iterdir()} == {"patients.csv", "report.md", "summary.json"}
    assert json.loads((report / "summary.json").read_text()) == summary
    page = (report / "report.md").read_text()
    assert page.startswith("# method: identity on the healthy")
    assert "not for diagnosis" in page
    assert f"{summary['slices']} slices of 3 patients: phantoms." in page
    share = summary["scores"]["changed_share"]
    assert f"| tissue changed, % | {100 * share['mean']:.2f} ± {100 * share['sd']:.2f} (3) |" in page
    assert "- WeightsSha256: abc" in page
    assert progress == [(1, 3), (2, 3), (3, 3)]
