"""A metric is added in one place: described there, it stands in every table, and its direction is known everywhere."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from torch import nn

from pipeline.cli.compare import compare
from pipeline.evaluation import Settings
from pipeline.evaluation.selection import select_epoch
from pipeline.inference import Translator
from pipeline.metrics import METRICS, Metric
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule
from pipeline.reports.cohort_evaluation import evaluate_and_report

pytestmark = pytest.mark.slow

TOY = Metric(
    "toy_error",
    "mean change",
    "mean absolute difference of the toy",
    5,
    "lower",
    ("twin", "image"),
    "slice",
    perfect=0.0,
    perfect_word="unchanged",
    headline=True,
    measure=lambda twin, image: (twin - image).abs().mean(dim=(1, 2, 3)),
)


class Brighter(Translator):
    """Adds a constant to tissue."""

    def __init__(self, by: float) -> None:
        super().__init__(nn.Identity(), Grid(4.0, (48, 64)), WindowRule())
        self.by = by

    def residual(self, windowed: NDArray, spacing_mm: tuple[float, ...]) -> NDArray:
        return 0 * windowed[:, 0] + self.by


@pytest.fixture(scope="module")
def toy() -> Iterator[Metric]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, TOY.name, TOY)
        yield TOY


@pytest.fixture(scope="module")
def reports(toy: Metric, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A method that changes much, and one that changes less than any fill of the lesion."""
    del toy
    folder = tmp_path_factory.mktemp("reports")
    for name, by in (("much", 0.05), ("little", 0.0005)):
        evaluate_and_report(Brighter(by), cohort, folder / name, Settings(name, judge_iterations=24))
    return [folder / "much", folder / "little"]


def test_it_stands_in_report_summary_and_csv(reports: list[Path]) -> None:
    page = (reports[0] / "report.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("| mean change ↓ |")]
    assert row.split("|")[3].strip() == "0.00000 ± 0.00000 (3)"
    assert "- *mean change*: mean absolute difference of the toy." in page
    summary = json.loads((reports[0] / "summary.json").read_text(encoding="utf-8"))
    assert Metric.from_record(summary["metrics"][-1]) == TOY
    for table in ("slices.csv", "patients.csv"):
        with (reports[0] / table).open(encoding="utf-8") as file:
            assert all(float(line["toy_error"]) >= 0 for line in csv.DictReader(file))


def test_the_lowest_is_bold_in_the_comparison(reports: list[Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(compare, [*map(str, reports), "-o", str(tmp_path / "table"), "--no-panel"])
    assert result.exit_code == 0, result.output
    header, _, much, little, untouched, *_ = result.stdout.splitlines()
    column = [heading.strip() for heading in header.split("|")].index("mean change ↓")
    cells = [line.split("|")[column].strip() for line in (much, little, untouched)]
    assert cells[0].startswith("0.0")
    assert cells[1].startswith("**0.0")
    assert cells[2] == "unchanged", "what is perfect by construction is told by word and is not the best"
    with (tmp_path / "table" / "table.csv").open(encoding="utf-8") as file:
        best = {row["method"]: row for row in csv.DictReader(file) if row["metric"] == "toy_error"}
    assert (best["little"]["best"], best["little"]["better"]) == ("True", "lower")


def test_a_lower_value_in_every_patient_is_better_not_worse(reports: list[Path], tmp_path: Path) -> None:
    arguments = [*map(str, reports), "-o", str(tmp_path / "table"), "--no-panel", "--baseline", "much"]
    assert CliRunner().invoke(compare, arguments).exit_code == 0
    rows = json.loads((tmp_path / "table" / "comparison.json").read_text(encoding="utf-8"))["rows"]
    test = rows[1]["cells"]["toy_error"]["test"]
    assert (test["direction"], test["differing"]) == (-1, 3), "of three patients no test can tell more"


def test_it_is_measured_for_each_epoch_to_choose_from(
    toy: Metric, phantom_cohort: Path, run_with_epochs: Callable[[], Path]
) -> None:
    told: list[str] = []
    record = select_epoch(
        run_with_epochs(),
        phantom_cohort,
        "cpu",
        2,
        lambda row, metrics: told.extend(m.label for m in metrics if m.headline),
    )
    assert record["epochs"][0]["toy_error"] == 0
    assert toy.label in told


def test_it_is_shown_on_the_command_line(
    toy: Metric, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.cli.evaluate import _on_cohort

    said: list[str] = []
    monkeypatch.setattr("pipeline.cli.evaluate.say", said.append)
    _on_cohort(Brighter(0.0), cohort, tmp_path / "report", Settings("same", judge_iterations=24), False, None)
    assert said[0].endswith(toy.label)
    assert said[1].split()[-1] == "0.00000"
