"""Evaluation on a cohort: the method's numbers, and those of the controls beside them."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigWorkflow
from numpy.typing import NDArray
from torch import nn

from pipeline.bundles import bundles_folder
from pipeline.errors import UsageError
from pipeline.evaluation import Settings, evaluate
from pipeline.evaluation.twins import read_twins
from pipeline.evaluation.volumes import pathological_subjects, read_volume
from pipeline.inference import Translator
from pipeline.metrics import METRICS
from pipeline.metrics.lesion_size import SIZES
from pipeline.networks import JohnsonGenerator
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule
from pipeline.reports.cohort_evaluation import evaluate_and_report

pytestmark = pytest.mark.slow

ITERATIONS = 24


class ToTruth(Translator):
    """Knows the answers: its residual is truth − input, and 0 on healthy slices."""

    def __init__(self, cohort: Path) -> None:
        super().__init__(nn.Identity(), Grid(4.0, (48, 64)), WindowRule())
        self.truth: dict[bytes, NDArray[np.float32]] = {}
        for record in pathological_subjects(cohort, "test"):
            volume = read_volume(cohort, record)
            assert volume.truth is not None
            for image, truth in zip(volume.image, volume.truth, strict=True):
                self.truth[image.numpy().tobytes()] = truth[0].numpy()

    def residual(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
        return np.stack([self.truth.get(image.tobytes(), image) - image for image in windowed[:, 0]])


class OffByATenth(Translator):
    """Changes every pixel, air included, by 0.1, away from the limits."""

    def residual(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
        return np.where(windowed[:, 0] < 0.5, np.float32(0.1), np.float32(-0.1))


def identity_network() -> Translator:
    return Translator(nn.Identity(), Grid(2.0, (96, 112)), WindowRule())


@pytest.fixture(scope="module")
def reports(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of a perfect method, of one that changes nothing, and of one that spoils everything a little."""
    folder = tmp_path_factory.mktemp("reports")
    for name, synthesizer in (
        ("perfect", ToTruth(cohort)),
        ("nothing", identity_network()),
        ("off", OffByATenth(nn.Identity(), Grid(4.0, (48, 64)), WindowRule())),
    ):
        settings = Settings(name, {"Bundle": name}, judge_iterations=ITERATIONS)
        summary = evaluate_and_report(synthesizer, cohort, folder / name, settings).summary
        assert summary == json.loads((folder / name / "summary.json").read_text())
    return folder


def summary_of(report: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((report / "summary.json").read_text())
    return summary


def rows_of(report: Path, name: str, method: str) -> list[dict[str, str]]:
    with (report / name).open() as file:
        return [row for row in csv.DictReader(file) if row.pop("method") == method]


def test_a_perfect_method_restores_the_truth_and_is_much_healthier_than_the_input(reports: Path) -> None:
    methods = summary_of(reports / "perfect")["methods"]
    for row in rows_of(reports / "perfect", "slices.csv", "perfect"):
        assert float(row["psnr_lesion"]) > 100
        assert float(row["ssim_lesion"]) > 0.999
        assert float(row["psnr_normal"]) == math.inf
    perfect, untouched = (
        methods[name]["metrics"]["healthiness_pooled"]["mean"] for name in ("perfect", "untouched input")
    )
    assert perfect > untouched + 0.2
    fill, truth = (methods[name]["metrics"]["ssim_lesion"]["mean"] for name in ("mean-filled lesion", "perfect"))
    assert methods["untouched input"]["metrics"]["ssim_lesion"]["mean"] < fill < truth


def test_a_network_that_changes_nothing_scores_exactly_as_the_untouched_control(reports: Path) -> None:
    for table in ("slices.csv", "patients.csv"):
        assert rows_of(reports / "nothing", table, "nothing") == rows_of(reports / "nothing", table, "untouched input")
    methods = summary_of(reports / "nothing")["methods"]
    assert methods["nothing"] == methods["untouched input"]
    assert methods["nothing"]["metrics"]["psnr_normal"] == {"mean": None, "sd": None, "n": 3, "identical": 3}
    assert methods["nothing"]["metrics"]["identity"]["mean"] == pytest.approx(1)


def test_a_known_error_gives_the_known_psnr_and_air_is_never_edited(reports: Path) -> None:
    for row in rows_of(reports / "off", "slices.csv", "off"):
        assert float(row["psnr_normal"]) == pytest.approx(20, abs=1e-3)
        assert float(row["psnr_slice"]) > 21


def test_controls_do_not_depend_on_the_method(reports: Path) -> None:
    for control in ("untouched input", "mean-filled lesion"):
        first, *others = (summary_of(reports / name)["methods"][control] for name in ("perfect", "nothing", "off"))
        assert all(other == first for other in others)


def test_each_pathological_slice_of_the_split_has_one_row_with_its_lesion_area(cohort: Path, reports: Path) -> None:
    expected = {}
    for record in json.loads((cohort / "cohort.json").read_text())["subjects"]:
        for place, (label, area) in enumerate(zip(record["labels"], record["lesion_mm2"], strict=True)):
            if record["split"] == "test" and label == "pathological":
                expected[record["subject"], place] = area / 16
    for method in ("off", "untouched input", "mean-filled lesion"):
        rows = rows_of(reports / "off", "slices.csv", method)
        assert {(row["subject"], int(row["slice"])): float(row["lesion_pixels"]) for row in rows} == expected
        assert len(rows) == len(expected)


def test_the_summary_follows_from_the_slices(reports: Path) -> None:
    for method, scores in summary_of(reports / "off")["methods"].items():
        rows = rows_of(reports / "off", "slices.csv", method)
        patients = sorted({row["patient"] for row in rows})
        assert len(patients) == 3
        lesion, predicted = (
            {p: sum(int(row[name]) for row in rows if row["patient"] == p) for p in patients}
            for name in ("lesion_pixels", "predicted_pixels")
        )
        pooled = 1 - sum(predicted.values()) / sum(lesion.values())
        figures = dict(scores["metrics"])
        assert figures.pop("healthiness_pooled")["mean"] == pytest.approx(pooled)
        numbers = pd.read_csv(reports / "off" / "slices.csv").query("method == @method").groupby("patient")
        for name in ("contrast", "bit_identical"):
            expected = [METRICS[name].combine(of_patient) for _, of_patient in numbers]
            assert figures.pop(name)["mean"] == pytest.approx(np.mean(expected))
        for size in SIZES:
            scores_of_size = {what: figures.pop(f"{what}_{size.name}") for what in ("psnr", "ssim")}
            voxels, error, similarity = (
                {p: sum(float(row[f"{part}_{size.name}"]) for row in rows if row["patient"] == p) for p in patients}
                for part in ("voxels", "squared_error", "ssim_sum")
            )
            having = [p for p in patients if voxels[p]]
            assert {score["n"] for score in scores_of_size.values()} == {len(having)}
            if having and all(error[p] for p in having):
                of_size = [(10 * np.log10(voxels[p] / error[p]), similarity[p] / voxels[p]) for p in having]
                expected = dict(zip(("psnr", "ssim"), np.mean(of_size, axis=0), strict=True))
                assert {what: score["mean"] for what, score in scores_of_size.items()} == pytest.approx(expected)
        for metric, score in figures.items():
            if metric == "healthiness":
                means = np.array([1 - predicted[p] / lesion[p] for p in patients])
            else:
                means = np.array(
                    [np.mean([float(row[metric]) for row in rows if row["patient"] == p]) for p in patients]
                )
            finite = means[np.isfinite(means)]
            assert (score["n"], score["identical"]) == (3, 3 - len(finite))
            if len(finite):
                assert score["mean"] == pytest.approx(finite.mean())
                assert score["sd"] == pytest.approx(finite.std(ddof=1), abs=1e-6)
            else:
                assert (score["mean"], score["sd"]) == (None, None)


def test_the_summary_says_what_was_measured_and_by_whom(reports: Path) -> None:
    summary = summary_of(reports / "off")
    assert summary["provenance"] == {"Bundle": "off"}
    assert (summary["cohort"]["split"], summary["cohort"]["patients"]) == ("test", 3)
    assert summary["judge"]["iterations"] == ITERATIONS
    assert 0 < summary["judge"]["dice"]["test"]["pooled"] < 1
    assert summary["ms_ssim_padding"] == [{"slice": [38, 48], "added": [138, 128]}]
    assert [case["title"] for case in summary["cases"]] == ["best", "median", "worst"]
    assert len({case["subject"] for case in summary["cases"]}) == 3


def test_a_report_is_five_whole_files_and_the_images(reports: Path, cohort: Path) -> None:
    expected = ["cases.png", "patients.csv", "report.md", "slices.csv", "summary.json", "twins"]
    assert sorted(path.name for path in (reports / "perfect").iterdir()) == expected
    record = pathological_subjects(cohort, "test")[0]
    volume = read_volume(cohort, record)
    assert volume.truth is not None
    twins = read_twins(reports / "perfect" / "twins" / f"{record.subject}.npz")
    assert twins.places.tolist() == volume.places
    inside = volume.foreground[:, 0].numpy()
    np.testing.assert_allclose(twins.twin[inside], volume.truth[:, 0].numpy()[inside], atol=1e-4)


def test_a_split_without_pathological_slices_is_refused_with_what_the_cohort_has(cohort: Path, tmp_path: Path) -> None:
    content = json.loads((cohort / "cohort.json").read_text())
    content["subjects"] = [subject for subject in content["subjects"] if subject["split"] != "validation"]
    content["counts"]["validation"] = {"patients": 0, "healthy": 0, "pathological": 0, "excluded": 0}
    (tmp_path / "cohort.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"no pathological slice in the validation split.*training 4 patients"):
        evaluate_and_report(identity_network(), tmp_path, tmp_path / "report", Settings("nothing", split="validation"))
    assert not (tmp_path / "report").exists()


def test_a_folder_that_holds_something_is_written_into_only_on_request(
    cohort: Path, reports: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    settings = Settings("nothing", judge_iterations=ITERATIONS)
    with pytest.raises(UsageError, match="not empty"):
        evaluate_and_report(identity_network(), cohort, tmp_path, settings)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    evaluate_and_report(identity_network(), cohort, tmp_path, settings, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "slices.csv").read_bytes() == (reports / "nothing" / "slices.csv").read_bytes()


@pytest.mark.parametrize("name", ["untouched input", "original images", "empty mask", "training mean"])
def test_a_method_may_not_take_the_name_of_a_control(cohort: Path, name: str) -> None:
    with pytest.raises(UsageError, match="what a row of every table is called"):
        evaluate(identity_network(), cohort, Settings(name))


def test_a_damaged_volume_is_named(cohort: Path, tmp_path: Path) -> None:
    record = pathological_subjects(cohort, "test")[0]
    with pytest.raises(UsageError, match=r"images/.*missing or damaged"):
        read_volume(tmp_path, record)


def test_monai_s_bundle_commands_evaluate_the_same_way(cohort: Path, reports: Path, tmp_path: Path) -> None:
    network = JohnsonGenerator(filters=4, residual_blocks=1, output="residual")
    (tmp_path / "models").mkdir()
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")
    configs = bundles_folder() / "gvs" / "configs"
    workflow = ConfigWorkflow(
        config_file=[str(configs / "train.json"), str(configs / "evaluate.json")],
        workflow_type="train",
        bundle_root=str(tmp_path),
        dataset_dir=str(cohort),
        output_dir=str(tmp_path / "out"),
        device_name="cpu",
        filters=4,
        residual_blocks=1,
        output="residual",
        spacing_mm=4.0,
        size=[48, 64],
        judge_iterations=ITERATIONS,
    )
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
    workflow.finalize()
    methods = summary_of(tmp_path / "out" / "evaluation")["methods"]
    # An untrained network with residual output is the identity.
    assert methods["gvs"] == summary_of(reports / "nothing")["methods"]["untouched input"]
