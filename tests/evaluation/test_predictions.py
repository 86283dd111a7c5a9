"""Predictors that are no translators: measured with the metrics whose needs they meet, beside controls of their own."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.comparison.compare import read_report
from pipeline.errors import UsageError
from pipeline.evaluation import CONTROLS, Evaluation, Settings, evaluate
from pipeline.evaluation.controls import HISTOGRAM, INTENSITY, SOURCE
from pipeline.evaluation.fills import FILLS
from pipeline.evaluation.predictions import pseudo_healthy, shown_to
from pipeline.evaluation.volumes import Volume, pathological_subjects, read_volume, subjects_with
from pipeline.inference import HarmonicFiller, ModalityTranslator, Translator
from pipeline.metrics.catalogue import MODALITY, SEGMENTATION
from pipeline.metrics.lesion_size import SIZES
from pipeline.preprocessing.cohort_format import LEVELS, read_mask, stored_shape
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule
from pipeline.reports.cohort_evaluation import evaluate_and_report

GRID = Grid(4.0, (48, 64))
SETTINGS = Settings("ours", {"Bundle": "ours"})


class Segments:
    """Finds lesions by what it knows of each slice."""

    kind = "segmenter"
    device = "cpu"
    threshold = 0.5
    labels: tuple[str, ...] = ("lesion",)

    def __init__(self, cohort: Path, shift: int = 0) -> None:
        self.known: dict[bytes, NDArray[np.float32]] = {}
        for record in subjects_with(cohort, "test", "pathological", "healthy"):
            volume = read_volume(cohort, record, "pathological", "healthy")
            for image, lesion in zip(volume.image[:, 0].numpy(), volume.lesion[:, 0].numpy(), strict=True):
                self.known[image.tobytes()] = np.roll(lesion, shift, axis=0).astype(np.float32)

    def probabilities(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, ...]) -> NDArray[np.float32]:
        assert spacing_mm[-2:] == (4.0, 4.0)
        return np.stack([self.known[image.tobytes()] for image in windowed[:, 0]])[:, None]


class TellsKinds(Segments):
    """Takes all lesions for one kind of two."""

    labels = ("bright", "dark")

    def __init__(self, cohort: Path, taken_for: str) -> None:
        super().__init__(cohort)
        self.place = self.labels.index(taken_for)

    def probabilities(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, ...]) -> NDArray[np.float32]:
        found = super().probabilities(windowed, spacing_mm)
        kinds = np.zeros((len(found), 2, *found.shape[2:]), np.float32)
        kinds[:, self.place] = found[:, 0]
        return kinds


class Scores:
    """Scores a scan with its mean intensity, scaled."""

    kind = "scorer"
    device = "cpu"

    def scores(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, ...]) -> NDArray[np.float32]:
        del spacing_mm
        return np.array([[100 * windowed.mean()]])


def means(summary: dict[str, Any], method: str) -> dict[str, float | None]:
    return {name: score["mean"] for name, score in summary["methods"][method]["metrics"].items()}


def with_targets(cohort: Path, folder: Path, targets: Any) -> Path:
    """The cohort with a target for each subject, made from its number and its images."""
    shutil.copytree(cohort, folder, ignore=shutil.ignore_patterns("judge", "a_dice"))
    content = json.loads((folder / "cohort.json").read_text())
    for number, subject in enumerate(content["subjects"]):
        subject["target"] = targets(number, subject)
    (folder / "cohort.json").write_text(json.dumps(content))
    return folder


class TestSegmenter:
    def test_a_perfect_one_is_perfect_in_every_metric_and_the_controls_are_not(
        self, cohort: Path, tmp_path: Path
    ) -> None:
        summary = evaluate_and_report(Segments(cohort), cohort, tmp_path / "report", SETTINGS).summary
        of_one_kind = [metric for metric in SEGMENTATION if metric.name != "dice_of_kind"]
        assert [record["name"] for record in summary["metrics"]] == [metric.name for metric in of_one_kind]
        assert list(summary["methods"]) == ["ours", "intensity threshold", "empty mask"]
        assert means(summary, "ours") == {metric.name: metric.perfect for metric in of_one_kind}
        threshold, empty = means(summary, "intensity threshold"), means(summary, "empty mask")
        assert 0 < threshold["dice_pooled"] < 1  # type: ignore[operator]
        assert (empty["dice_pooled"], empty["recall"], empty["precision"], empty["hd95_mm"]) == (0, 0, None, None)
        assert summary["judge"] is summary["probes"] is summary["a_dice"] is None

    @pytest.mark.parametrize(("taken_for", "score"), [("bright", 1), ("dark", 0)])
    def test_one_that_tells_kinds_is_scored_by_the_scan_s_own_kind_too(
        self, cohort: Path, tmp_path: Path, taken_for: str, score: int
    ) -> None:
        """All lesions are found, and whether as what they are the cohort says."""
        bright = with_targets(cohort, tmp_path / "cohort", lambda number, subject: "bright")
        segmenter = TellsKinds(bright, taken_for)
        summary = evaluate(segmenter, bright, SETTINGS).summary
        found = means(summary, "ours")
        assert (found["dice"], found["dice_of_kind"]) == (1, score)
        assert means(summary, "intensity threshold")["dice_of_kind"] is None

    def test_all_slices_count_healthy_ones_too(self, cohort: Path) -> None:
        summary = evaluate(Segments(cohort), cohort, SETTINGS).summary
        labels = [label for record in subjects_with(cohort, "test", "pathological") for label in record.labels]
        assert summary["cohort"]["slices"] == sum(label in ("pathological", "healthy") for label in labels)
        assert summary["cohort"]["unit"] == "slice"

    def test_known_errors_give_known_numbers(self, cohort: Path) -> None:
        evaluation = evaluate(Segments(cohort, shift=1), cohort, SETTINGS)
        shifted = evaluation.volumes[evaluation.volumes["method"] == "ours"]
        for row in shifted.to_dict("records"):
            volume = read_volume(
                cohort, next(r for r in pathological_subjects(cohort, "test") if r.subject == row["subject"])
            )
            lesion = volume.lesion.numpy()
            overlap = int((lesion & np.roll(lesion, 1, axis=2)).sum())
            assert row["dice"] == pytest.approx(2 * overlap / (2 * lesion.sum()))
            assert row["recall"] == row["precision"] == pytest.approx(overlap / lesion.sum())
            assert row["volume_error_ml"] == 0
            assert row["lesion_ml"] == pytest.approx(lesion.sum() * 4 * 4 * 10 / 1000)
        # The pixels have 4 mm, and outlines moved by one lie that far apart at most.
        assert 0 < means(evaluation.summary, "ours")["hd95_mm"] <= 4  # type: ignore[operator]

    def test_the_report_names_them_and_shows_what_was_found(self, cohort: Path, tmp_path: Path) -> None:
        evaluate_and_report(Segments(cohort), cohort, tmp_path / "report", SETTINGS)
        page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
        assert page.startswith("# ours: lesion segmentation evaluated")
        assert "| HD95, mm ↓ | 0.0 ± 0.0 (3) |" in page
        assert "Dice of the volume 1.000" in page
        assert "healthi" not in page
        names = {path.name for path in (tmp_path / "report").iterdir()}
        assert names == {"cases.png", "patients.csv", "report.md", "slices.csv", "summary.json"}


class TestScorer:
    def test_a_number_is_compared_with_the_target_beside_the_training_mean(self, cohort: Path, tmp_path: Path) -> None:
        folder = with_targets(cohort, tmp_path / "cohort", lambda number, _: 20.0 + number)
        evaluation = evaluate(Scores(), folder, SETTINGS)
        rows = evaluation.volumes[evaluation.volumes["method"] == "ours"]
        errors = (rows["prediction"] - rows["target"]).to_numpy()
        found = means(evaluation.summary, "ours")
        assert found["absolute_error"] == pytest.approx(np.abs(errors).mean())
        assert found["squared_error"] == pytest.approx((errors**2).mean())
        spread = ((rows["target"] - rows["target"].mean()) ** 2).sum()
        assert found["r2"] == pytest.approx(1 - (errors**2).sum() / spread)
        assert found["correlation"] == pytest.approx(np.corrcoef(rows["prediction"], rows["target"])[0, 1])
        assert set(found) == {"absolute_error", "squared_error", "r2", "correlation"}
        content = json.loads((folder / "cohort.json").read_text())["subjects"]
        training = np.mean([subject["target"] for subject in content if subject["split"] == "training"])
        control = evaluation.volumes[evaluation.volumes["method"] == "training mean"]
        assert control["prediction"].to_numpy() == pytest.approx(training)
        assert means(evaluation.summary, "training mean")["correlation"] is None

    def test_classes_are_told_right_or_wrong_beside_the_majority(self, cohort: Path, tmp_path: Path) -> None:
        folder = with_targets(cohort, tmp_path / "cohort", lambda number, _: int(number % 3 > 0))

        class Knows(Scores):
            def scores(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, ...]) -> NDArray[np.float32]:
                del windowed, spacing_mm
                return np.array([[0.1, 0.9]])

        summary = evaluate_and_report(Knows(), folder, tmp_path / "report", SETTINGS).summary
        assert set(means(summary, "ours")) == {"accuracy", "auroc"}
        with (tmp_path / "report" / "patients.csv").open(encoding="utf-8") as file:
            labels = [float(row["label"]) for row in csv.DictReader(file) if row["method"] == "ours"]
        assert means(summary, "ours")["accuracy"] == pytest.approx(np.mean(labels))
        assert list(summary["methods"])[1:] == ["majority class"]
        page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
        assert "| accuracy ↑ |" in page
        assert not (tmp_path / "report" / "cases.png").exists()

    def test_whether_a_slice_shows_a_lesion_is_told_of_each_slice_and_needs_no_target(
        self, cohort: Path, tmp_path: Path
    ) -> None:
        class Brightest(Scores):
            target = "lesion"
            classes = ("healthy", "pathological")

            def scores(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, ...]) -> NDArray[np.float32]:
                assert windowed.shape[:2] == (1, 1)
                top = windowed.max(axis=(1, 2, 3))
                return np.stack([1 - top, top], axis=1)

        summary = evaluate_and_report(Brightest(), cohort, tmp_path / "report", SETTINGS).summary
        assert len(read_report(tmp_path / "report").volumes) == 2 * summary["cohort"]["slices"]
        records = subjects_with(cohort, "test", "healthy", "pathological")
        slices = {record.subject: [label for label in record.labels if label != "unknown"] for record in records}
        assert summary["task"] == "lesion presence"
        assert summary["cohort"]["slices"] == sum(len(labels) for labels in slices.values())
        assert summary["cohort"]["patients"] == len({record.patient for record in records})
        with (tmp_path / "report" / "patients.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["method"] == "ours"]
        truth = np.array([float(row["label"]) for row in rows])
        told = np.array([float(row["prediction"]) for row in rows])
        assert truth.tolist() == [float(label == "pathological") for labels in slices.values() for label in labels]
        pairs = [(a > b) + (a == b) / 2 for a in told[truth == 1] for b in told[truth == 0]]
        assert means(summary, "ours")["auroc"] == pytest.approx(np.mean(pairs))
        shares = [np.mean([label == "pathological" for label in labels]) for labels in slices.values()]
        training = [label for r in subjects_with(cohort, "training", "healthy", "pathological") for label in r.labels]
        most = np.mean([label == "pathological" for label in training]) >= 0.5
        assert list(summary["methods"])[1:] == ["majority class"]
        assert means(summary, "majority class")["accuracy"] == pytest.approx(
            np.mean(shares) if most else 1 - np.mean(shares)
        )

    @pytest.mark.parametrize(("classes", "target"), [(("healthy", "lesion"), 40.0), (("a", "b", "c"), 1.0)])
    def test_a_classifier_is_not_held_against_what_it_does_not_tell(
        self, cohort: Path, tmp_path: Path, classes: tuple[str, ...], target: float
    ) -> None:
        folder = with_targets(cohort, tmp_path / "cohort", lambda number, _: target * (number % 2))
        scorer = Scores()
        scorer.classes = classes  # type: ignore[attr-defined]
        with pytest.raises(UsageError, match=f"tells the classes {', '.join(classes)}, and an evaluation expects two"):
            evaluate(scorer, folder, SETTINGS)

    def test_of_scans_with_several_sequences_it_is_shown_those_that_it_takes(
        self, cohort: Path, tmp_path: Path
    ) -> None:
        folder = with_targets(cohort, tmp_path / "cohort", lambda number, _: 20.0 + number)
        content = json.loads((folder / "cohort.json").read_text())
        for subject in content["subjects"]:
            subject["channels"] = {"FLAIR": subject["images"], "T1w": subject["masks"]}
        (folder / "cohort.json").write_text(json.dumps(content))
        seen = []

        class Takes(Scores):
            def __init__(self, *channels: str) -> None:
                self.channels = channels

            def scores(self, windowed: NDArray[np.float32], spacing_mm: tuple[float, ...]) -> NDArray[np.float32]:
                seen.append(windowed.shape[1])
                return super().scores(windowed, spacing_mm)

        for channels, expected in ((("T1w",), 1), (("FLAIR", "T1w"), 2), (("image",), 2)):
            evaluate(Takes(*channels), folder, SETTINGS)
            assert set(seen) == {expected}
            seen.clear()

    def test_without_targets_it_is_refused(self, cohort: Path) -> None:
        with pytest.raises(UsageError, match="found no target of a training scan, expected one for each"):
            evaluate(Scores(), cohort, SETTINGS)

    def test_a_target_that_is_no_number_is_named(self, cohort: Path, tmp_path: Path) -> None:
        folder = with_targets(cohort, tmp_path / "cohort", lambda number, _: "old" if number == 2 else 1.0)
        with pytest.raises(UsageError, match="found the target 'old' of sub-"):
            evaluate(Scores(), folder, SETTINGS)


class TestFiller:
    @pytest.fixture(scope="class")
    def evaluation(self, cohort: Path) -> Evaluation:
        return evaluate(HarmonicFiller(WindowRule()), cohort, Settings("filler", {}, judge=None))

    def test_it_stands_beside_the_controls_and_the_field_s_fills_where_the_truth_is_known(
        self, evaluation: Evaluation
    ) -> None:
        assert list(evaluation.summary["methods"]) == ["filler", *CONTROLS, *FILLS]
        assert evaluation.summary["left_out"] == {}

    def test_it_is_measured_by_size_and_leaves_normal_tissue_identical(self, evaluation: Evaluation) -> None:
        measured = means(evaluation.summary, "filler")
        assert any(measured[f"psnr_{size.name}"] for size in SIZES)
        assert measured["psnr_lesion"] == pytest.approx(means(evaluation.summary, "harmonic in 3-D")["psnr_lesion"])
        assert evaluation.summary["methods"]["filler"]["metrics"]["psnr_normal"]["identical"] == 3

    def test_without_judge_nothing_is_said_of_healthiness(self, evaluation: Evaluation) -> None:
        assert evaluation.summary["judge"] is evaluation.summary["probes"] is None
        assert "healthiness" not in {record["name"] for record in evaluation.summary["metrics"]}

    def test_it_is_shown_the_whole_slab_with_the_whole_lesion(self, cohort: Path) -> None:
        seen: list[tuple[tuple[int, ...], int]] = []

        class Watches(HarmonicFiller):
            def fill(self, windowed: NDArray, hole: NDArray, spacing_mm: tuple[float, float, float]) -> NDArray:
                seen.append((windowed.shape[:1] + hole.shape, int(hole.sum())))
                return super().fill(windowed, hole, spacing_mm)

        evaluate(Watches(WindowRule()), cohort, Settings("filler", {}, judge=None))
        for record, (shape, voxels) in zip(pathological_subjects(cohort, "test"), seen, strict=True):
            mask = read_mask(cohort, record)
            assert shape == (len(mask), *mask.shape)
            assert voxels == mask.sum()

    def test_without_truth_there_are_the_plain_controls(self, cohort: Path, tmp_path: Path) -> None:
        folder = without_truth(cohort, tmp_path / "cohort")
        summary = evaluate(HarmonicFiller(WindowRule()), folder, Settings("filler", {}, judge=None)).summary
        assert list(summary["methods"]) == ["filler", *CONTROLS]
        assert not {record["name"] for record in summary["metrics"]} & {f"psnr_{size.name}" for size in SIZES}

    def test_fills_whose_package_is_absent_are_left_out_and_that_is_said(
        self, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(FILLS, "Telea", replace(FILLS["Telea"], module="no_such_module"))
        settings = Settings("filler", {}, judge=None)
        summary = evaluate_and_report(HarmonicFiller(WindowRule()), cohort, tmp_path / "report", settings).summary
        assert "Telea" not in summary["methods"]
        assert summary["left_out"] == {"Telea": "opencv-python-headless"}
        page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
        assert "Left out, because their packages are not installed: *Telea* (opencv-python-headless)." in page
        assert "`pip install 'phs-pipeline[controls]'`" in page


class TestModalityTranslator:
    @pytest.fixture(scope="class")
    def pairs(self, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """FLAIR as it is, and its negative inside the head under the name T1w."""
        folder = tmp_path_factory.mktemp("pairs") / "cohort"
        shutil.copytree(cohort, folder, ignore=shutil.ignore_patterns("judge", "a_dice"))
        content = json.loads((folder / "cohort.json").read_text())
        for subject in content["subjects"]:
            flair = nib.load(folder / subject["images"])
            levels = flair.dataobj.get_unscaled()
            negative = np.where(levels > 0, LEVELS - levels, 0).astype(np.uint16)
            path = f"images/{subject['subject']}_T1w.nii.gz"
            nib.save(nib.Nifti1Image(negative, flair.affine), folder / path)
            subject["channels"] = {"FLAIR": subject["images"], "T1w": path}
            subject["windows"] = dict.fromkeys(subject["channels"], subject["window"])
        (folder / "cohort.json").write_text(json.dumps(content))
        return folder

    def translator(self, network: nn.Module, target: str = "T1w") -> ModalityTranslator:
        return ModalityTranslator(network, GRID, WindowRule(), target_modality=target, channels=("FLAIR",))

    def test_a_perfect_one_beats_its_controls_but_for_the_map_that_is_perfect_too(
        self, pairs: Path, tmp_path: Path
    ) -> None:
        class Negative(nn.Module):
            def forward(self, image: Tensor) -> Tensor:
                return torch.where(image > 0, 1 - image, 0)

        translator = self.translator(Negative())
        summary = evaluate_and_report(translator, pairs, tmp_path / "report", SETTINGS).summary
        assert list(summary["methods"]) == ["ours", SOURCE, HISTOGRAM, INTENSITY]
        assert [metric["name"] for metric in summary["metrics"]] == [metric.name for metric in MODALITY]
        found = {name: means(summary, name) for name in summary["methods"]}
        assert found["ours"]["contrast_error"] == pytest.approx(0, abs=0.02)
        for name in (SOURCE, HISTOGRAM):
            assert found[name]["psnr_target"] < 20 < found[INTENSITY]["psnr_target"]
            assert found[name]["contrast_error"] > 0.1 > found[INTENSITY]["contrast_error"]
        assert found["ours"]["ssim_target"] > found[HISTOGRAM]["ssim_target"]
        assert "translation between modalities" in (tmp_path / "report/report.md").read_text()

    def test_a_cohort_without_the_target_modality_is_refused(self, pairs: Path) -> None:
        with pytest.raises(UsageError, match="has FLAIR, T1w, expected T2w too, which the bundle translates into"):
            evaluate(self.translator(nn.Identity(), "T2w"), pairs, SETTINGS)


def without_truth(cohort: Path, folder: Path) -> Path:
    shutil.copytree(cohort, folder, ignore=shutil.ignore_patterns("judge", "a_dice"))
    content = json.loads((folder / "cohort.json").read_text())
    for subject in content["subjects"]:
        del subject["truth"]
    (folder / "cohort.json").write_text(json.dumps(content))
    return folder


class TestWhatIsIgnored:
    def test_it_is_no_normal_tissue(self, cohort: Path, tmp_path: Path) -> None:
        (record, *_) = pathological_subjects(cohort, "test")
        before = read_volume(cohort, record)
        ignored = np.zeros(stored_shape(cohort / record.images), np.uint8)
        ignored[:, 10:20, 10:20] = 1
        folder = without_truth(cohort, tmp_path / "cohort")
        (folder / "ignore").mkdir()
        affine = nib.load(cohort / record.images).affine
        nib.save(nib.Nifti1Image(np.moveaxis(ignored, 0, 2), affine), folder / "ignore" / "one.nii.gz")
        after = read_volume(folder, record.model_copy(update={"ignore": "ignore/one.nii.gz", "truth": None}))
        here = torch.from_numpy(ignored[before.places, None]) > 0
        assert before.foreground[here].any()
        assert not after.foreground[here].any()
        assert torch.equal(after.foreground[~here], before.foreground[~here])
        assert torch.equal(after.lesion, before.lesion)


def test_a_kind_that_cannot_be_scored_on_a_cohort_is_told_so(cohort: Path) -> None:
    class Samples:
        kind = "sampler"

    with pytest.raises(
        UsageError,
        match="holds a sampler, expected a translator, filler, segmenter, scorer, modality translator or restorer",
    ):
        evaluate(Samples(), cohort, SETTINGS)


class TestWhatAPredictorIsShown:
    @pytest.fixture
    def volume(self, cohort: Path) -> Volume:
        return read_volume(cohort, pathological_subjects(cohort, "test")[0])

    def test_slices_one_by_one_are_the_pathological_ones(self, volume: Volume) -> None:
        windowed, chosen = shown_to(Translator(nn.Identity(), GRID, WindowRule()), volume)
        assert np.array_equal(windowed, volume.image.numpy())
        assert chosen == list(range(len(volume.places)))

    def test_with_neighbours_it_is_the_whole_slab_without_gaps(self, volume: Volume) -> None:
        class Below(nn.Module):
            """The slice below, of three."""

            def forward(self, images: Tensor) -> Tensor:
                return images[:, :1]

        translator = Translator(Below(), GRID, WindowRule(), neighbours=1)
        windowed, chosen = shown_to(translator, volume)
        assert len(windowed) == 6 > len(volume.places)
        assert chosen == volume.places
        below = windowed[[max(0, place - 1) for place in volume.places], 0]
        expected = np.where(volume.foreground[:, 0], below, volume.image[:, 0])
        np.testing.assert_allclose(pseudo_healthy(translator, volume)[:, 0], expected, atol=1e-6)

    def test_a_sequence_that_the_cohort_lacks_is_named(self, volume: Volume) -> None:
        translator = Translator(nn.Identity(), GRID, WindowRule(), channels=("FLAIR", "T1w"))
        with pytest.raises(UsageError, match=r"expected .*T1w too"):
            shown_to(translator, volume)
