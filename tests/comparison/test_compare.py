"""From reports to a table: who is best, against what it was tested, and which reports cannot stand together."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.comparison import Comparison, Report, compare, read_report
from pipeline.comparison.compare import Cell
from pipeline.errors import UsageError
from pipeline.evaluation.bracketed import BRACKETS
from pipeline.evaluation.scores import score_methods
from pipeline.metrics import A_DICE, METRICS

pytestmark = pytest.mark.slow

ORDER = ("healthiness_pooled", "healthiness", "identity", "ssim_normal", "psnr_normal", "psnr_lesion", "ssim_lesion")
PATIENTS = [f"p{number}" for number in range(8)]
# Healthiness of eight patients; each differs from the fill's by another amount.
GOOD = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97]
FILL = [0.80, 0.80, 0.80, 0.80, 0.80, 0.80, 0.80, 0.80]
BAD = [0.10, 0.21, 0.32, 0.43, 0.54, 0.65, 0.76, 0.79]


def rows(method: str, healthiness: Sequence[float], **metrics: Sequence[float]) -> pd.DataFrame:
    count = len(healthiness)
    defaults: dict[str, Any] = {
        "psnr_normal": [30 + place for place in range(count)],
        "ssim_normal": [0.95 + 0.001 * place for place in range(count)],
        "psnr_slice": 30.0,
        "ssim_slice": 0.95,
        "identity": [0.96 + 0.001 * place for place in range(count)],
        "psnr_lesion": math.nan,
        "ssim_lesion": math.nan,
    }
    return pd.DataFrame(
        {
            "method": method,
            "patient": PATIENTS[:count],
            "subject": [f"sub-{patient}" for patient in PATIENTS[:count]],
            "slices": 3,
            **defaults,
            **metrics,
            "lesion_pixels": 1000,
            "predicted_pixels": [round(1000 * (1 - value)) for value in healthiness],
            "healthiness": healthiness,
        }
    )


def untouched(count: int = 8) -> pd.DataFrame:
    nothing = {"psnr_normal": [math.inf] * count, "ssim_normal": [1.0] * count, "identity": [1.0] * count}
    return rows("untouched input", [0.1] * count, **nothing)


def filled(healthiness: Sequence[float] = FILL) -> pd.DataFrame:
    count = len(healthiness)
    return rows("mean-filled lesion", healthiness, psnr_normal=[math.inf] * count, identity=[1.0] * count)


def write(
    folder: Path,
    learned: pd.DataFrame,
    controls: Sequence[pd.DataFrame] | None = None,
    cohort: dict[str, Any] | None = None,
    weights: str = "judge-a",
    a_dice: dict[str, Any] | None = None,
) -> Report:
    method = learned["method"].iloc[0]
    described = [METRICS[name] for name in ORDER] + ([A_DICE] if a_dice else [])
    controls = [untouched(len(learned)), filled(FILL[: len(learned)])] if controls is None else controls
    volumes = pd.concat([learned, *controls])
    count = volumes["subject"].nunique()
    summary = {
        "format": 2,
        "method": method,
        "kind": "translator",
        "metrics": [metric.record() for metric in described],
        "provenance": {"Bundle": method},
        "cohort": {
            "sha256": "cohort-a",
            "split": "test",
            "patients": volumes["patient"].nunique(),
            "volumes": count,
            "slices": 3 * count,
            "unit": "pathological slice",
            **(cohort or {}),
        },
        "judge": {
            "network": "UNetSegmentor(filters=16)",
            "seed": 1234,
            "iterations": 600,
            "weights_sha256": weights,
            "dice": {"test": {"pooled": 0.8, "mean_per_slice": 0.7}},
        },
        "methods": score_methods(volumes, [METRICS[name] for name in ORDER]),
        "a_dice": a_dice,
    }
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    volumes.to_csv(folder / "patients.csv", index=False)
    return read_report(folder)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def mend(folder: Path, **changes: Any) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def a_dice(
    mean: float | None, original: float = 0.7, epochs: int = 5, name: str = "good", learned: bool = True
) -> dict[str, Any]:
    def of(value: float | None) -> dict[str, Any]:
        return {"mean": value, "sd": None, "seeds": [0, 1], "collapsed": [value is None, value is None]}

    return {
        "settings": {"epochs": epochs},
        "images": {name: of(mean), BRACKETS[0]: of(original), BRACKETS[1]: of(0.1)},
        "learned": learned,
    }


def cell(comparison: Comparison, name: str, metric: str) -> Cell:
    (row,) = [row for row in comparison.rows if row.name == name]
    return row.cells[metric]


def columns(comparison: Comparison) -> list[str]:
    return [metric.name for metric in comparison.metrics]


class TestTheTable:
    def test_learned_methods_come_first_and_controls_once(self, tmp_path: Path) -> None:
        table = compare([write(tmp_path / "a", rows("good", GOOD)), write(tmp_path / "b", rows("bad", BAD))])
        assert [(row.name, row.kind) for row in table.rows] == [
            ("good", "learned method"),
            ("bad", "learned method"),
            ("untouched input", "control"),
            ("mean-filled lesion", "control"),
        ]
        assert columns(table) == ["healthiness_pooled", "healthiness", "identity", "ssim_normal", "psnr_normal"]

    def test_mean_and_deviation_run_over_patients_whose_volumes_are_averaged_first(self, tmp_path: Path) -> None:
        learned = rows("good", [0.2, 0.6, 0.9])
        learned["patient"] = ["p0", "p0", "p1"]
        report = write(tmp_path / "a", learned, controls=[])
        scored = cell(compare([report]), "good", "healthiness")
        assert scored.mean == pytest.approx((0.4 + 0.9) / 2)
        assert scored.sd == pytest.approx(0.5 / math.sqrt(2))
        assert scored.n == 2

    def test_pooled_healthiness_weighs_volumes_by_their_lesions(self, tmp_path: Path) -> None:
        learned = rows("good", [0.0, 1.0])
        learned["lesion_pixels"], learned["predicted_pixels"] = [300, 100], [300, 0]
        scored = cell(compare([write(tmp_path / "a", learned, controls=[])]), "good", "healthiness_pooled")
        assert (scored.mean, scored.sd, scored.test) == (0.25, None, None)

    def test_infinite_psnr_of_some_patients_is_counted_apart_from_the_mean(self, tmp_path: Path) -> None:
        report = write(tmp_path / "a", rows("good", GOOD[:3], psnr_normal=[math.inf, 30, 34]), controls=[])
        scored = cell(compare([report]), "good", "psnr_normal")
        assert (scored.mean, scored.n, scored.without_mean, scored.identical) == (32, 3, 1, False)

    def test_figures_against_the_truth_are_columns_where_there_is_a_truth(self, tmp_path: Path) -> None:
        learned = rows("good", GOOD, psnr_lesion=[25.0] * 7 + [math.nan], ssim_lesion=[0.9] * 8)
        table = compare([write(tmp_path / "a", learned)])
        assert columns(table)[-2:] == ["psnr_lesion", "ssim_lesion"]
        assert cell(table, "good", "psnr_lesion").n == 7
        assert "psnr_lesion" not in table.rows[1].cells

    def test_methods_named_like_missing_values_or_numbers_keep_their_names(self, tmp_path: Path) -> None:
        table = compare([write(tmp_path / "a", rows("NA", GOOD)), write(tmp_path / "b", rows("007", BAD))])
        assert [row.name for row in table.rows[:2]] == ["NA", "007"]


class TestTheBest:
    def test_it_has_the_highest_mean_of_methods_and_controls(self, tmp_path: Path) -> None:
        table = compare([write(tmp_path / "a", rows("good", GOOD)), write(tmp_path / "b", rows("bad", BAD))])
        assert [row.cells["healthiness"].best for row in table.rows] == [True, False, False, False]
        assert [row.cells["healthiness_pooled"].best for row in table.rows] == [True, False, False, False]
        alone = compare([write(tmp_path / "c", rows("bad", BAD))])
        assert cell(alone, "mean-filled lesion", "healthiness").best

    def test_equals_are_both_best_and_an_only_one_is_not(self, tmp_path: Path) -> None:
        table = compare([write(tmp_path / "a", rows("one", GOOD)), write(tmp_path / "b", rows("two", GOOD))])
        assert cell(table, "one", "identity").best
        assert cell(table, "two", "identity").best
        assert not cell(compare([write(tmp_path / "c", rows("one", GOOD))]), "one", "identity").best

    def test_identical_by_construction_is_no_achievement(self, tmp_path: Path) -> None:
        table = compare([write(tmp_path / "a", rows("good", GOOD)), write(tmp_path / "b", rows("bad", BAD))])
        for metric in ("identity", "ssim_normal", "psnr_normal"):
            scored = cell(table, "untouched input", metric)
            assert scored.identical
            assert not scored.best
        assert not cell(table, "mean-filled lesion", "ssim_normal").identical
        assert not cell(table, "untouched input", "healthiness").identical

    def test_one_patient_that_differs_makes_a_control_comparable_again(self, tmp_path: Path) -> None:
        nearly = rows("mean-filled lesion", FILL, identity=[1.0] * 7 + [0.999])
        table = compare([write(tmp_path / "a", rows("good", GOOD), [nearly])])
        assert cell(table, "mean-filled lesion", "identity").best
        assert table.tested_against["identity"] == "mean-filled lesion"


class TestSignificance:
    def test_a_method_that_wins_in_every_patient_is_better_than_the_best_control(self, tmp_path: Path) -> None:
        table = compare([write(tmp_path / "a", rows("good", GOOD))])
        scored = cell(table, "good", "healthiness")
        assert table.tested_against["healthiness"] == "mean-filled lesion"
        assert scored.test is not None
        assert scored.test.p == scored.p_corrected == pytest.approx(2 / 2**8)
        assert scored.mark == "better"

    def test_one_that_loses_in_every_patient_is_worse(self, tmp_path: Path) -> None:
        assert cell(compare([write(tmp_path / "a", rows("bad", BAD))]), "bad", "healthiness").mark == "worse"

    def test_correction_runs_over_all_rows_that_are_compared_in_a_metric(self, tmp_path: Path) -> None:
        learned = {"good": GOOD, "bad": BAD, "fill": FILL}
        table = compare([write(tmp_path / name, rows(name, values)) for name, values in learned.items()])
        corrected = {row.name: row.cells["healthiness"].p_corrected for row in table.rows}
        assert corrected["good"] == corrected["bad"] == pytest.approx(3 * 2 / 2**8)
        assert corrected["fill"] == 1
        assert corrected["untouched input"] is corrected["mean-filled lesion"] is None

    def test_a_difference_that_does_not_survive_correction_is_not_marked(self, tmp_path: Path) -> None:
        reports = [write(tmp_path / name, rows(name, GOOD)) for name in "abcdefg"]
        scored = cell(compare(reports), "a", "healthiness")
        assert scored.test is not None
        assert scored.test.p < 0.05 < (scored.p_corrected or 0)
        assert scored.mark == ""

    def test_without_a_candidate_nothing_is_tested(self, tmp_path: Path) -> None:
        table = compare([write(tmp_path / "a", rows("good", GOOD))])
        assert table.tested_against["psnr_normal"] is None
        assert cell(table, "good", "psnr_normal").test is None

    def test_a_learned_method_can_be_the_baseline_and_controls_are_then_compared(self, tmp_path: Path) -> None:
        reports = [write(tmp_path / "a", rows("good", GOOD)), write(tmp_path / "b", rows("bad", BAD))]
        table = compare(reports, ["bad", "bad"])
        assert table.baselines == ["bad"]
        assert table.tested_against == dict.fromkeys(("healthiness", "identity", "ssim_normal", "psnr_normal"), "bad")
        assert cell(table, "bad", "healthiness").test is None
        assert [row.cells["healthiness"].mark for row in table.rows] == ["better", "", "worse", "better"]
        assert cell(table, "untouched input", "identity").test is None

    def test_of_several_baselines_the_best_is_tested_against_and_none_is_marked(self, tmp_path: Path) -> None:
        reports = [write(tmp_path / "a", rows("good", GOOD)), write(tmp_path / "b", rows("bad", BAD))]
        table = compare(reports, ["bad", "good", "untouched input"])
        assert table.tested_against["healthiness"] == "good"
        assert [row.cells["healthiness"].mark for row in table.rows] == ["", "", "", "worse"]

    def test_a_baseline_that_is_no_row_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"gvs: is no row .* good, untouched input, mean-filled lesion"):
            compare([write(tmp_path / "a", rows("good", GOOD))], ["gvs"])


class TestHolmOverComparedRows:
    def test_controls_make_no_method_s_test_stricter(self, tmp_path: Path) -> None:
        alone = compare(
            [write(tmp_path / name, rows(name, values)) for name, values in (("good", GOOD), ("bad", BAD))], ["bad"]
        )
        corrected = {row.name: row.cells["healthiness"].p_corrected for row in alone.rows}
        assert corrected["good"] == pytest.approx(2 / 2**8), "one method is compared, whatever controls there are"
        assert corrected["untouched input"] == pytest.approx(2 * 2 / 2**8), "controls are corrected among themselves"


class TestSeveralTrainings:
    def trials(self, folder: Path) -> list[Report]:
        values = {"a": [0.8] * 8, "b": [0.9] * 8, "c": [0.7, 0.8] * 4}
        return [write(folder / name, rows("gvs", healthiness)) for name, healthiness in values.items()]

    def test_each_patient_has_the_mean_and_both_deviations_are_told(self, tmp_path: Path) -> None:
        table = compare(self.trials(tmp_path), trainings=True)
        assert [(row.name, row.trainings) for row in table.rows][:2] == [("gvs", 3), ("untouched input", 1)]
        scored = cell(table, "gvs", "healthiness")
        patients = [(0.8 + 0.9 + last) / 3 for last in (0.7, 0.8)] * 4
        assert scored.mean == pytest.approx(np.mean(patients))
        assert scored.sd == pytest.approx(np.std(patients, ddof=1))
        assert scored.sd_trainings == pytest.approx(np.std([0.8, 0.9, 0.75], ddof=1))
        assert scored.n == 8
        pooled = cell(table, "gvs", "healthiness_pooled")
        assert (pooled.mean, pooled.sd) == (pytest.approx(np.mean([0.8, 0.9, 0.75])), None)
        assert pooled.sd_trainings == pytest.approx(np.std([0.8, 0.9, 0.75], ddof=1))
        assert cell(table, "mean-filled lesion", "healthiness").sd_trainings is None

    def test_tests_run_over_patients_not_over_trainings(self, tmp_path: Path) -> None:
        test = cell(compare(self.trials(tmp_path), trainings=True), "gvs", "healthiness").test
        assert test is not None
        assert test.pairs == 8

    def test_a_psnr_that_is_infinite_in_one_training_counts_by_the_others(self, tmp_path: Path) -> None:
        one = write(tmp_path / "a", rows("gvs", GOOD[:2], psnr_normal=[math.inf, 30.0]), controls=[])
        two = write(tmp_path / "b", rows("gvs", GOOD[:2], psnr_normal=[34.0, 32.0]), controls=[])
        assert cell(compare([one, two], trainings=True), "gvs", "psnr_normal").mean == pytest.approx((34 + 31) / 2)

    def test_the_same_weights_twice_are_no_two_trainings(self, tmp_path: Path) -> None:
        reports = self.trials(tmp_path)
        for report in reports:
            report.summary["provenance"] = {"WeightsSha256": "same"}
        with pytest.raises(UsageError, match="are of the same weights, expected different trainings of gvs"):
            compare(reports, trainings=True)


class TestADiceOnLittleData:
    def reports(self, folder: Path, good: float, bad: float, lower: float, learned: bool) -> list[Report]:
        found = []
        for name, mean in (("good", good), ("bad", bad)):
            content = a_dice(mean, name=name, learned=learned)
            content["images"][BRACKETS[1]]["mean"] = lower
            found.append(write(folder / name, rows(name, GOOD), a_dice=content))
        return found

    @pytest.mark.parametrize(
        ("good", "bad", "lower", "learned", "ranked"),
        [
            (0.0, 0.01, 0.0, False, False),
            (0.2, 0.3, 0.1, False, False),
            (0.0, 0.0, 0.0, True, False),
            (0.0, 0.2, 0.0, True, False),
            (0.1, 0.2, 0.0, True, True),
            (0.2, 0.3, 0.1, True, True),
        ],
    )
    def test_it_ranks_nothing_where_the_original_lesions_were_not_learned_or_rows_stand_at_the_floor(
        self, tmp_path: Path, good: float, bad: float, lower: float, learned: bool, ranked: bool
    ) -> None:
        table = compare(self.reports(tmp_path, good, bad, lower, learned))
        best = [row.name for row in table.rows if "a_dice" in row.cells and row.cells["a_dice"].best]
        assert best == (["good"] if ranked else [])
        assert ("a_dice" in table.unranked) != ranked


class TestADice:
    def test_it_is_a_column_where_any_report_has_it_between_its_brackets(self, tmp_path: Path) -> None:
        reports = [
            write(tmp_path / "a", rows("good", GOOD), a_dice=a_dice(0.3)),
            write(tmp_path / "b", rows("bad", BAD), a_dice=a_dice(0.5, original=0.72, name="bad")),
            write(tmp_path / "c", rows("none", BAD)),
        ]
        table = compare(reports)
        assert columns(table)[-1] == "a_dice"
        assert [row.name for row in table.rows[-2:]] == ["original images", "healthy slices, random masks"]
        assert cell(table, "original images", "a_dice").mean == 0.7
        assert table.brackets_differ == pytest.approx(0.02)
        assert "a_dice" not in table.rows[2].cells
        assert table.a_dice == {"epochs": 5}

    def test_lower_is_better_and_the_brackets_do_not_compete(self, tmp_path: Path) -> None:
        reports = [
            write(tmp_path / "a", rows("good", GOOD), a_dice=a_dice(0.3)),
            write(tmp_path / "b", rows("bad", BAD), a_dice=a_dice(0.5, name="bad")),
        ]
        best = [row.name for row in compare(reports).rows if "a_dice" in row.cells and row.cells["a_dice"].best]
        assert best == ["good"]

    def test_a_method_whose_every_seed_collapsed_has_no_mean(self, tmp_path: Path) -> None:
        scored = cell(compare([write(tmp_path / "a", rows("good", GOOD), a_dice=a_dice(None))]), "good", "a_dice")
        assert (scored.mean, scored.n, scored.without_mean, scored.best) == (None, 2, 2, False)

    def test_other_settings_are_refused(self, tmp_path: Path) -> None:
        reports = [
            write(tmp_path / "a", rows("good", GOOD), a_dice=a_dice(0.3)),
            write(tmp_path / "b", rows("bad", BAD), a_dice=a_dice(0.5, epochs=9, name="bad")),
        ]
        with pytest.raises(UsageError, match=r"a and .*b: differ in the settings of A-Dice"):
            compare(reports)


class TestReportsThatCannotStandTogether:
    @pytest.mark.parametrize(
        ("other", "difference"),
        [
            ({"cohort": {"sha256": "cohort-b"}}, "cohort .sha256.: cohort-a and cohort-b"),
            ({"cohort": {"split": "validation"}}, "split: test and validation"),
            ({"weights": "judge-b"}, "judge .weights_sha256.: judge-a and judge-b"),
        ],
    )
    def test_another_cohort_split_or_judge(self, tmp_path: Path, other: dict[str, Any], difference: str) -> None:
        reports = [write(tmp_path / "a", rows("good", GOOD)), write(tmp_path / "b", rows("bad", BAD), **other)]
        with pytest.raises(UsageError, match=f"/a and .*/b: differ in {difference}"):
            compare(reports)

    def test_other_patients(self, tmp_path: Path) -> None:
        reports = [write(tmp_path / "a", rows("good", GOOD)), write(tmp_path / "b", rows("bad", BAD[:7]))]
        with pytest.raises(UsageError, match="their patients: p7 is in one of them only"):
            compare(reports)

    def test_controls_that_disagree(self, tmp_path: Path) -> None:
        other = [untouched(), filled([0.7] * 8)]
        reports = [write(tmp_path / "a", rows("good", GOOD)), write(tmp_path / "b", rows("bad", BAD), other)]
        with pytest.raises(UsageError, match=r"of the control mean-filled lesion: 0\.8000 and 0\.7000"):
            compare(reports)

    def test_controls_may_differ_as_two_machines_round(self, tmp_path: Path) -> None:
        other = [untouched(), filled([0.801] * 8)]
        reports = [write(tmp_path / "a", rows("good", GOOD)), write(tmp_path / "b", rows("bad", BAD), other)]
        assert cell(compare(reports), "mean-filled lesion", "healthiness").mean == pytest.approx(0.8)

    def test_a_control_of_one_report_only_is_kept(self, tmp_path: Path) -> None:
        reports = [
            write(tmp_path / "a", rows("good", GOOD), [untouched()]),
            write(tmp_path / "b", rows("bad", BAD)),
        ]
        assert [row.name for row in compare(reports).rows[2:]] == ["untouched input", "mean-filled lesion"]

    def test_two_methods_of_one_name(self, tmp_path: Path) -> None:
        reports = [write(tmp_path / "a", rows("gvs", GOOD)), write(tmp_path / "b", rows("gvs", BAD))]
        with pytest.raises(UsageError, match=r"a and .*b: both name their method gvs.*--name"):
            compare(reports)

    @pytest.mark.parametrize("name", ["harmonic inpainting", "original images"])
    def test_a_method_named_like_a_control(self, tmp_path: Path, name: str) -> None:
        reports = [
            write(tmp_path / "a", rows("gvs", GOOD), [rows("harmonic inpainting", FILL)]),
            write(tmp_path / "b", rows(name, BAD)),
        ]
        with pytest.raises(UsageError, match=f"b: its method is named {name}.*--name"):
            compare(reports)


class TestReading:
    def test_a_folder_without_report_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"holds no summary\.json.*phs-pipeline evaluate"):
            read_report(tmp_path)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda folder: (folder / "summary.json").write_text("{"),
            lambda folder: (folder / "summary.json").write_text("[]"),
            lambda folder: (folder / "summary.json").write_text('{"method": null}'),
            lambda folder: (folder / "patients.csv").unlink(),
            lambda folder: (folder / "patients.csv").write_text(""),
            lambda folder: (folder / "patients.csv").write_text("method,patient\nx,y\n"),
            lambda folder: (folder / "summary.json").write_text("[" * 100_000),
            lambda folder: pipe(folder / "patients.csv"),
            lambda folder: mend(folder, metrics=[]),
            lambda folder: mend(folder, provenance=5),
            lambda folder: mend(folder, metrics=[{**METRICS[ORDER[0]].record(), "label": None}]),
            lambda folder: mend(folder, metrics=[{**METRICS[ORDER[0]].record(), "digits": -1}]),
            lambda folder: mend(folder, methods={"good": {"metrics": {ORDER[0]: {"mean": "x", "sd": None, "n": 1}}}}),
            # What becomes part of a file's name leads nowhere else.
            lambda folder: (folder / "patients.csv").write_text(
                (folder / "patients.csv").read_text().replace("sub-", "../../sub-")
            ),
            # An evaluation of other patients or of another method was stopped before it wrote its summary.
            lambda folder: pd.concat([rows("good", GOOD[:5]), untouched(5)]).to_csv(folder / "patients.csv"),
            lambda folder: rows("other", GOOD).to_csv(folder / "patients.csv"),
            lambda folder: pd.concat([rows("good", GOOD), untouched(5), filled()]).to_csv(folder / "patients.csv"),
            lambda folder: pd.concat([rows("good", GOOD)] * 2 + [untouched(), filled()]).to_csv(
                folder / "patients.csv"
            ),
        ],
    )
    def test_a_damaged_one_is_refused_in_one_sentence(self, tmp_path: Path, damage: Any) -> None:
        write(tmp_path / "a", rows("good", GOOD))
        damage(tmp_path / "a")
        with pytest.raises(UsageError, match=r"a: its summary.json and patients.csv are damaged or do not belong"):
            read_report(tmp_path / "a")

    def test_a_name_over_several_lines_is_put_on_one(self, tmp_path: Path) -> None:
        report = write(tmp_path / "a", rows("a\nb\x07\tc", GOOD))
        assert report.method == "a b c"
        assert compare([report]).rows[0].name == "a b c"
