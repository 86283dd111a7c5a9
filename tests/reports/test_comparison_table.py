"""One table on a page, in a manuscript, in a spreadsheet and in a browser; whatever a method is called."""

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from PIL import Image

from pipeline.comparison.compare import Cell, Comparison, Row
from pipeline.comparison.significance import PairedTest
from pipeline.metrics import A_DICE, METRICS
from pipeline.reports.comparison_latex import latex
from pipeline.reports.comparison_notes import notes
from pipeline.reports.comparison_table import frame, html, markdown, page, write_comparison

HOSTILE = r"a|b_c *d* <i>&amp;</i> 5% $x^2$ #1 {y} \z ~ `q` [l](u) é λ 中"
COLUMNS = [METRICS[name] for name in ("healthiness_pooled", "healthiness", "psnr_normal")]


def outcome(p: float, pairs: int = 13, direction: int = 1) -> PairedTest:
    return PairedTest(p=p, pairs=pairs, differing=pairs, direction=direction)


def comparison(**changes: Any) -> Comparison:
    good = {
        "healthiness_pooled": Cell(0.98765, None, 13, best=True),
        "healthiness": Cell(0.91234, 0.05678, 13, best=True, test=outcome(0.001), p_corrected=0.002, mark="better"),
        "psnr_normal": Cell(33.456, 2.345, 13, without_mean=2),
    }
    bad = {
        "healthiness_pooled": Cell(-0.25, None, 13),
        "healthiness": Cell(-0.2, None, 13, test=outcome(0.01, direction=-1), p_corrected=0.01, mark="worse"),
        "psnr_normal": Cell(31.0, 1.0, 13),
    }
    control = {
        "healthiness_pooled": Cell(0.5, None, 13),
        "healthiness": Cell(0.5, 0.1, 13),
        "psnr_normal": Cell(None, None, 13, 13, identical=True),
    }
    content: dict[str, Any] = {
        "rows": [
            Row("gvs", "learned method", good),
            Row(HOSTILE, "learned method", bad),
            Row("untouched input", "control", control),
        ],
        "metrics": COLUMNS,
        "baselines": ["untouched input"],
        "tested_against": {"healthiness": "untouched input", "psnr_normal": None},
        "cohort": {
            "sha256": "c" * 64,
            "split": "test",
            "patients": 13,
            "volumes": 14,
            "slices": 78,
            "unit": "pathological slice",
        },
        "judge": {
            "network": "UNetSegmentor(filters=16)",
            "seed": 1234,
            "iterations": 600,
            "weights_sha256": "f" * 64,
            "dice": {"test": {"pooled": 0.81, "mean_per_slice": 0.74}},
        },
        "unranked": {},
        "a_dice": None,
        "brackets_differ": 0.0,
        "sources": [{"method": "gvs", "report": "reports/gvs", "provenance": {"WeightsSha256": "abc"}}],
    }
    return Comparison(**content | changes)


def with_a_dice() -> Comparison:
    rows = [
        Row("gvs", "learned method", {"a_dice": Cell(0.2, 0.01, 3, without_mean=1, best=True)}),
        Row("vagan", "learned method", {"a_dice": Cell(None, None, 3, without_mean=3)}),
        Row("original images", "bracket of A-Dice", {"a_dice": Cell(0.7, 0.02, 3)}),
    ]
    return comparison(
        rows=rows, metrics=[A_DICE], tested_against={}, a_dice={"epochs": 5}, brackets_differ=0.0123, baselines=[]
    )


def all_notes(table: Comparison) -> str:
    return " ".join(notes(table))


class TestMarkdown:
    def test_the_best_is_bold_a_star_is_better_and_a_dagger_worse_than_the_baseline(self) -> None:
        lines = markdown(comparison()).splitlines()
        assert lines[0].endswith(" healthiness of a volume ↑ | normal tissue PSNR, dB ↑ |")
        assert lines[2] == "| gvs | **0.988** | **0.912 ± 0.057** * | 33.46 ± 2.35 (2 of 13 identical) |"
        assert lines[3].endswith(" | -0.250 | -0.200 ± – † | 31.00 ± 1.00 |")
        assert lines[4] == "| untouched input | 0.500 | 0.500 ± 0.100 | identical |"

    def test_a_hostile_name_adds_no_cell_and_no_markup(self) -> None:
        line = markdown(comparison()).splitlines()[3]
        assert len(re.split(r"(?<!\\)\|", line)) == len(COLUMNS) + 3
        assert r"a\|b\_c \*d\* \<i\>\&amp;\</i\>" in line

    def test_a_dice_is_better_the_lower_and_tells_seeds_that_collapsed(self) -> None:
        lines = markdown(with_a_dice()).splitlines()
        assert lines[0] == "| | A-Dice ↓ |"
        assert lines[2] == "| gvs | **0.200 ± 0.010 (1 of 3 collapsed)** |"
        assert lines[3] == "| vagan | collapsed |"

    def test_a_score_that_a_row_does_not_have_is_a_dash(self) -> None:
        table = comparison(rows=[Row("original images", "bracket of A-Dice", {})])
        assert markdown(table).splitlines()[-1] == "| original images | – | – | – |"

    def test_the_page_warns_and_shows_the_panel_only_if_there_is_one(self) -> None:
        assert "Research use only, not for diagnosis." in page(comparison(), with_panel=False)
        assert "![Cases](panel.png)" in page(comparison(), with_panel=True)
        assert "panel.png" not in page(comparison(), with_panel=False)
        assert "- gvs: reports/gvs; WeightsSha256 abc" in page(comparison(), with_panel=False)


class TestNotes:
    def test_they_name_test_family_baseline_cohort_and_judge(self) -> None:
        text = all_notes(comparison())
        for needed in (
            "n = 13",
            "two-sided Wilcoxon signed-rank test over patients",
            "Holm-corrected within each metric over all rows that are no baseline",
            "healthiness of a volume against untouched input (2 rows, 13 pairs)",
            "Baselines: untouched input;",
            "nothing is marked, in normal tissue PSNR, dB.",
            "nor tested: normal tissue PSNR, dB (untouched input).",
            "Cohort cccccccccccc (sha256), test split: 13 patients, 14 volumes, 78 pathological slices.",
            "Judge of healthiness ffffffffffff (sha256)",
            "0.810 pooled and 0.740 as mean of slices",
        ):
            assert needed in text

    @pytest.mark.parametrize(
        ("pairs", "methods", "short"),
        [(5, 1, True), (6, 1, False), (6, 2, True), (7, 2, False)],
    )
    def test_they_say_when_there_are_too_few_pairs_for_any_mark(self, pairs: int, methods: int, short: bool) -> None:
        cells = {"healthiness": Cell(0.5, 0.1, pairs, test=outcome(0.5, pairs), p_corrected=0.5)}
        table = comparison(
            rows=[Row(f"method {number}", "learned method", cells) for number in range(methods)],
            metrics=[METRICS["healthiness"]],
            tested_against={"healthiness": "untouched input"},
        )
        assert (f"Too few pairs differ for any mark in healthiness of a volume ({pairs})" in all_notes(table)) == short

    def test_without_any_test_no_test_is_explained(self) -> None:
        text = all_notes(comparison(rows=comparison().rows[2:]))
        assert "Wilcoxon" not in text

    def test_a_metric_that_fewer_patients_have_tells_its_own_number(self) -> None:
        table = comparison(rows=[Row("gvs", "learned method", {"healthiness": Cell(0.5, 0.1, 9)})])
        assert "n = 13, each the mean of their volumes; n = 9 in healthiness of a volume." in all_notes(
            comparison(rows=table.rows, metrics=[METRICS["healthiness"]])
        )

    def test_a_judge_that_is_weak_or_knows_the_patients_is_told(self) -> None:
        judge = comparison().judge
        weak = {"test": {"pooled": 0.3, "mean_per_slice": 0.2}}
        assert "That is weak" in all_notes(comparison(judge=judge | {"dice": weak}))
        assert "not independent" in all_notes(comparison(judge=judge | {"dice": {}}))
        assert "weak" not in all_notes(comparison())
        assert "not independent" not in all_notes(comparison())

    def test_a_dice_is_explained_where_it_is_a_column(self) -> None:
        assert "the brackets differ by up to 0.012" in all_notes(with_a_dice())
        assert "A-Dice" not in all_notes(comparison())


class TestTrainings:
    def test_both_deviations_stand_in_the_cell_and_the_note_says_which_is_which(self) -> None:
        cells = {"healthiness": Cell(0.9, 0.05, 13, sd_trainings=0.02), "psnr_normal": Cell(30.0, 1.0, 13, 2, 0.5)}
        table = comparison(rows=[Row("gvs", "learned method", cells, trainings=3)])
        assert markdown(table).splitlines()[2] == (
            "| gvs | – | 0.900 ± 0.050 (trainings ± 0.020) | 30.00 ± 1.00 (trainings ± 0.50; 2 of 13 identical) |"
        )
        assert "Several trainings of a method (gvs 3)" in all_notes(table)
        assert "Several trainings" not in all_notes(comparison())


class TestADiceThatRanksNothing:
    def test_the_note_says_why(self) -> None:
        table = with_a_dice()
        silent = comparison(**{**vars(table), "unranked": {"a_dice": "too little was learned"}})
        assert "no row is marked as best: too little was learned." in all_notes(silent)
        assert "ranks nothing" not in all_notes(table)


class TestCsv:
    def test_it_holds_all_digits_and_opens_in_pandas(self) -> None:
        read = pd.read_csv(io.StringIO(frame(comparison()).to_csv(index=False)))
        assert len(read) == 9
        row = read[(read["method"] == "gvs") & (read["metric"] == "healthiness")].iloc[0]
        assert (row["mean"], row["sd"], row["n"]) == (0.91234, 0.05678, 13)
        assert (row["p"], row["p_corrected"], row["pairs"]) == (0.001, 0.002, 13)
        assert (row["baseline"], row["against_baseline"], row["better"]) == ("untouched input", "better", "higher")
        assert read["method"].tolist()[3:6] == [HOSTILE] * 3
        assert read[read["identical"]]["method"].tolist() == ["untouched input"]


class TestHtml:
    def parsed(self, panel: bytes | None = None, table: Comparison | None = None) -> ET.Element:
        return ET.fromstring(html(table or comparison(), panel).removeprefix("<!DOCTYPE html>\n"))

    def test_it_is_well_formed_and_names_are_text(self) -> None:
        tree = self.parsed()
        rows = [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]
        assert [row[0] for row in rows] == ["", "gvs", HOSTILE, "untouched input"]
        assert rows[1][1:] == ["0.988", "0.912 ± 0.057*", "33.46 ± 2.35 (2 of 13 identical)"]
        assert [bold.text for bold in tree.iter("strong")][1:] == ["0.988", "0.912 ± 0.057"]
        assert not list(tree.iter("i"))

    def test_it_needs_no_other_file_and_no_script(self) -> None:
        png = b"\x89PNG picture"
        tree = self.parsed(png)
        (picture,) = tree.iter("img")
        assert base64.b64decode(picture.attrib["src"].removeprefix("data:image/png;base64,")) == png
        assert not [*tree.iter("script"), *tree.iter("link"), *self.parsed().iter("img")]

    def test_notes_are_beneath(self) -> None:
        items = ["".join(item.itertext()) for item in self.parsed().iter("li")]
        assert items[: len(notes(comparison()))] == notes(comparison())


class TestLatex:
    def test_names_are_escaped(self) -> None:
        line = next(line for line in latex(comparison()).splitlines() if line.startswith("{a"))
        assert line.startswith(
            r"{a\textbar{}b\_c \textsuperscript{*}d\textsuperscript{*} \textless{}i\textgreater{}\&amp;"
            r"\textless{}/i\textgreater{} 5\% \$x\textasciicircum{}2\$ \#1 \{y\} \textbackslash{}z"
        )
        assert line.endswith(r"& $-$0.250 & $-$0.200 $\pm$ --\textsuperscript{\dag} & 31.00 $\pm$ 1.00 \\")
        assert "U+4E2D" in line

    def test_best_and_star(self) -> None:
        assert r"{gvs} & \textbf{0.988} & \textbf{0.912 $\pm$ 0.057}\textsuperscript{*} & 33.46" in latex(comparison())

    def test_kinds_of_rows_are_ruled_off(self) -> None:
        assert latex(comparison()).count(r"\midrule") == 2

    @pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is absent")
    @pytest.mark.parametrize("table", [comparison(), with_a_dice()], ids=["paired", "A-Dice"])
    def test_it_compiles(self, table: Comparison, tmp_path: Path) -> None:
        (tmp_path / "table.tex").write_text(latex(table), encoding="utf-8")
        (tmp_path / "paper.tex").write_text(
            "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}\n"
            "\\begin{document}\\input{table.tex}\\end{document}\n"
        )
        command = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True)
        assert result.returncode == 0, result.stdout.decode(errors="replace")[-1500:]


class TestFiles:
    def test_all_are_written_and_the_json_holds_rows_tests_and_notes(self, tmp_path: Path) -> None:
        write_comparison(tmp_path / "new", comparison(), Image.new("RGB", (8, 4)))
        names = {path.name for path in (tmp_path / "new").iterdir()}
        assert names == {"table.md", "table.tex", "table.csv", "table.html", "comparison.json", "panel.png"}
        content = json.loads((tmp_path / "new" / "comparison.json").read_text(encoding="utf-8"))
        assert content["rows"][1]["name"] == HOSTILE
        assert content["rows"][0]["cells"]["healthiness"]["test"]["p"] == 0.001
        assert content["notes"] == notes(comparison())

    def test_a_panel_of_an_earlier_comparison_does_not_stay(self, tmp_path: Path) -> None:
        write_comparison(tmp_path, comparison(), Image.new("RGB", (8, 4)))
        write_comparison(tmp_path, comparison(), None)
        assert not (tmp_path / "panel.png").exists()
