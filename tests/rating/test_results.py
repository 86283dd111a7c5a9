"""What raters said: unblinded rightly, counted honestly, and nothing in a file taken on trust."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.errors import UsageError
from pipeline.rating import report_study

DARKNESS, DUSK, LIGHT = NAMES = ("method-of-darkness", "method-of-dusk", "method-of-light")
Rate = Callable[..., Path]


def steady(case: dict[str, Any], method: str) -> tuple[int, int]:
    """Healthiness by method alone; identity by the case, the same at both showings."""
    return 2 + NAMES.index(method), 1 + (case["repeat_of"] or case["case"]) % 5


def lenient(case: dict[str, Any], method: str) -> tuple[int, int]:
    healthiness, identity = steady(case, method)
    return min(5, healthiness + 1), identity


def test_methods_get_the_scores_that_their_images_got_whatever_letter_they_had(
    study: Path, rate: Rate, tmp_path: Path
) -> None:
    summary = report_study(study, [rate("AB", steady), rate("CD", lenient)], tmp_path / "table")
    figures = {method: of["healthiness"] for method, of in summary["methods"].items()}
    assert {method: of["by_rater"] for method, of in figures.items()} == {
        DARKNESS: {"AB": 2, "CD": 3},
        DUSK: {"AB": 3, "CD": 4},
        LIGHT: {"AB": 4, "CD": 5},
    }
    assert figures[DUSK]["mean"] == 3.5
    # Deviation of 3 and 4 over raters; over cases nothing varies.
    assert figures[DUSK]["sd_raters"] == pytest.approx(0.5**0.5)
    assert figures[DUSK]["sd_cases"] == 0
    assert (figures[DUSK]["raters"], figures[DUSK]["cases"], figures[DUSK]["scores"]) == (2, 9, 18)


def test_repeats_measure_a_rater_and_are_left_out_of_the_means(study: Path, rate: Rate, tmp_path: Path) -> None:
    def worse_again(case: dict[str, Any], method: str) -> tuple[int, int]:
        healthiness, identity = steady(case, method)
        return healthiness - (case["repeat_of"] is not None), identity

    summary = report_study(study, [rate("AB", worse_again)], tmp_path / "table")
    assert summary["methods"][DARKNESS]["healthiness"]["mean"] == 2
    again = summary["intra_rater"]["healthiness"]["AB"]
    assert (again["images"], again["same_score"], again["mean_difference"]) == (9, 0, -1)
    # 2 3 4 against 1 2 3, three times each: 1 − 1 / (2/3 + 2/3 + 1).
    assert again["kappa"] == pytest.approx(1 - 1 / (7 / 3))
    assert summary["intra_rater"]["identity"]["AB"]["same_score"] == 1


def test_raters_who_agree_are_told_from_raters_who_do_not(study: Path, rate: Rate, tmp_path: Path) -> None:
    files = [rate("AB", steady), rate("CD", lenient), rate("EF", steady)]
    summary = report_study(study, files, tmp_path / "table")
    identity, healthiness = summary["inter_rater"]["identity"], summary["inter_rater"]["healthiness"]
    assert [pair["kappa"] for pair in identity["kappa"]] == [1, 1, 1]
    assert identity["icc_single"] == {"estimate": 1, "low": 1, "high": 1}
    assert [pair["raters"] for pair in healthiness["kappa"]] == [["AB", "CD"], ["AB", "EF"], ["CD", "EF"]]
    by_hand = 1 - 1 / (7 / 3)
    assert [pair["kappa"] for pair in healthiness["kappa"]] == pytest.approx([by_hand, 1, by_hand])
    assert healthiness["kappa_mean"] == pytest.approx((2 * by_hand + 1) / 3)
    assert healthiness["images"] == 27
    assert 0 < healthiness["icc_single"]["estimate"] < healthiness["icc_average"]["estimate"] < 1


def test_differences_between_methods_are_tested_over_cases_and_over_patients(
    study: Path, rate: Rate, tmp_path: Path
) -> None:
    summary = report_study(study, [rate("AB", steady)], tmp_path / "table")
    first, *_ = tests = summary["tests"]["healthiness"]
    assert [test["methods"] for test in tests] == [[DARKNESS, DUSK], [DARKNESS, LIGHT], [DUSK, LIGHT]]
    assert (first["difference"], first["cases"], first["patients"]) == (-1, 9, 3)
    # Nine differences of one sign, or three; then times three tests.
    assert first["p_cases"] == pytest.approx(2 / 2**9, rel=0.5)
    assert first["p_patients"] == pytest.approx(0.25, rel=0.5)
    assert first["p_cases_holm"] == pytest.approx(3 * first["p_cases"])
    assert [test["p_cases"] for test in summary["tests"]["identity"]] == [1, 1, 1]


def test_scores_left_open_are_counted_and_the_others_used(study: Path, rate: Rate, tmp_path: Path) -> None:
    def hasty(case: dict[str, Any], method: str) -> tuple[int | None, int | None]:
        healthiness, identity = steady(case, method)
        return (None if case["case"] > 6 else healthiness), (identity if method != DUSK else None)

    summary = report_study(study, [rate("AB", steady), rate("CD", hasty)], tmp_path / "table")
    # Twelve showings of three images: six without healthiness, and one image of each without identity.
    assert summary["raters"]["CD"]["missing"] == 6 * 3 + 12
    assert summary["raters"]["AB"]["missing"] == 0
    assert summary["methods"][DUSK]["identity"]["by_rater"]["CD"] is None
    assert summary["methods"][DUSK]["identity"]["raters"] == 1
    assert summary["inter_rater"]["healthiness"]["kappa"][0]["images"] == 6 * 3
    text = (tmp_path / "table" / "table.md").read_text(encoding="utf-8")
    assert "Scores left open: CD 30." in text


def test_a_severe_rater_who_stops_early_makes_no_method_worse_than_another(
    study: Path, rate: Rate, tmp_path: Path
) -> None:
    def fair(case: dict[str, Any], method: str) -> tuple[int, int]:
        return 4, 4

    def severe(case: dict[str, Any], method: str) -> tuple[int | None, int | None]:
        return (1, 1) if method == DARKNESS else (None, None)

    summary = report_study(study, [rate("AB", fair), rate("CD", severe)], tmp_path / "table")
    assert summary["methods"][DARKNESS]["healthiness"]["mean"] == 2.5
    assert [test["difference"] for test in summary["tests"]["healthiness"]] == [0, 0, 0]


def test_the_table_is_that_of_the_paper_with_both_deviations(study: Path, rate: Rate, tmp_path: Path) -> None:
    summary = report_study(study, [rate("AB", steady), rate("CD", lenient)], tmp_path / "table")
    text = (tmp_path / "table" / "table.md").read_text(encoding="utf-8")
    assert "| method | Healthiness ↑ | Subject identity ↑ |" in text
    assert "| method-of-light | 4.500 ± 0.707 (0.000) |" in text
    assert "Cases: 9; patients: 3 (test split); raters, blinded to the method: 2 (AB, CD)." in text
    assert "Research use only, not for diagnosis." in text
    assert json.loads((tmp_path / "table" / "summary.json").read_text(encoding="utf-8")) == summary
    rows = pd.read_csv(tmp_path / "table" / "table.csv")
    assert list(rows["method"]) == [name for name in NAMES for _ in range(2)]
    assert list(rows["aspect"]) == ["healthiness", "identity"] * 3
    assert rows.loc[4, ["mean", "mean_AB", "mean_CD"]].tolist() == [4.5, 4, 5]


def test_one_rater_alone_is_reported_without_agreement(study: Path, rate: Rate, tmp_path: Path) -> None:
    summary = report_study(study, [rate("AB", steady)], tmp_path / "table")
    assert summary["methods"][LIGHT]["healthiness"]["sd_raters"] is None
    assert summary["inter_rater"]["healthiness"]["icc_single"] == {"estimate": None, "low": None, "high": None}
    assert "| method-of-light | 4.000 ± – (0.000) |" in (tmp_path / "table" / "table.md").read_text(encoding="utf-8")


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def first_rating(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["ratings"][0].update(changes)


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (
            lambda content: content.update(study="0123456789abcdef"),
            "belongs to study '0123456789abcdef', expected study",
        ),
        (lambda content: content.pop("study"), "belongs to study None"),
        (lambda content: content.update(format=2), "has format 2, expected format 1"),
        (lambda content: content.update(rater=""), "names the rater ''"),
        (lambda content: content.update(rater=["AB"]), "names the rater"),
        (lambda content: content.update(rater="=HYPERLINK(1)"), "names the rater '=HYPERLINK"),
        (lambda content: content.update(rater="a|b\n"), "names the rater"),
        (lambda content: content.update(rater="x" * 41), "names the rater"),
        (lambda content: content.update(ratings={}), "holds no list of ratings"),
        (lambda content: content.update(ratings=[]), "holds no score"),
        (lambda content: content.update(ratings=["good"]), "rating 1 is 'good'"),
        (first_rating(healthiness=6), "rating 1 has healthiness 6, expected a whole number from 1 to 5"),
        (first_rating(healthiness=0), "rating 1 has healthiness 0"),
        (first_rating(identity=4.5), "rating 1 has identity 4.5"),
        (first_rating(identity=float("nan")), "rating 1 has identity nan"),
        (first_rating(identity=True), "rating 1 has identity True"),
        (first_rating(identity="5"), "rating 1 has identity '5'"),
        (first_rating(case=13), "rating 1 is of case 13, image 'A', expected cases 1 to 12"),
        (first_rating(case=True), "rating 1 is of case True"),
        (first_rating(image="D"), "rating 1 is of case 1, image 'D'"),
        (first_rating(image=["A"]), "rating 1 is of case 1, image"),
        (first_rating(image="B"), "rating 2 is a second one of case 1, image B"),
    ],
)
def test_what_the_page_never_saves_is_refused_in_one_sentence(
    study: Path, rate: Rate, tmp_path: Path, edit: Callable[[dict[str, Any]], object], found: str
) -> None:
    path = edited(rate("AB", steady), edit)
    with pytest.raises(UsageError) as refusal:
        report_study(study, [path], tmp_path / "table")
    sentence = str(refusal.value)
    assert sentence.startswith(f"{path}: ")
    assert found in sentence
    assert "expected" in sentence
    assert len(sentence) < len(str(path)) + 250
    assert "\n" not in sentence
    assert not (tmp_path / "table").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"<html>", b"[" * 100_000, b"[1]", b"null"])
def test_a_file_that_is_no_rating_is_refused(study: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "holiday.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"holiday\.json: (is not JSON|holds no list of ratings), expected"):
        report_study(study, [tmp_path / "holiday.json"], tmp_path / "table")


def test_one_rater_twice_is_refused_however_the_name_is_written(study: Path, rate: Rate, tmp_path: Path) -> None:
    first, second = rate("Ab", steady), rate("aB", lenient)
    with pytest.raises(UsageError, match=f"{second}: is of rater 'aB' as {first} is, expected one file for each"):
        report_study(study, [first, second], tmp_path / "table")


def mend(path: Path, **changes: Any) -> None:
    """Change the first case of a key."""
    key = json.loads(path.read_text())
    key["cases"][0] |= changes
    path.write_text(json.dumps(key))


@pytest.mark.parametrize(
    "damage",
    [
        lambda key: key.unlink(),
        lambda key: key.write_text('{"study": "x", "cases": 3}'),
        lambda key: key.write_text("[" * 100_000),
        lambda key: mend(key, case="x"),
        lambda key: mend(key, case=2),
        lambda key: mend(key, images={"A": 5}),
        lambda key: mend(key, images={"A": "a method that is not named"}),
        lambda key: mend(key, repeat_of=99),
        lambda key: mend(key, patient=None),
    ],
)
def test_without_its_key_a_study_cannot_be_unblinded(
    study: Path, rate: Rate, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    file = rate("AB", steady)
    damage(study / "key.json")
    with pytest.raises(UsageError, match=r"key\.json: missing or damaged"):
        report_study(study, [file], tmp_path / "table")


def test_tables_are_overwritten_only_on_demand(study: Path, rate: Rate, tmp_path: Path) -> None:
    file = rate("AB", steady)
    report_study(study, [file], tmp_path / "table")
    with pytest.raises(UsageError, match="not empty"):
        report_study(study, [file], tmp_path / "table")
    assert report_study(study, [file], tmp_path / "table", overwrite=True)["cases"] == 9
