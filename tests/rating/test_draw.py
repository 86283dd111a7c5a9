"""The draw: patients alike, methods hidden, repeats apart, and the same again with the same seed."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.evaluation.twins import read_twins, write_twins
from pipeline.rating.draw import Slice, arrange, draw_slices, draw_study

METHODS = ("one", "two", "three", "four")


def slices(**patients: int) -> list[Slice]:
    return [Slice(patient, patient, place) for patient, count in patients.items() for place in range(count)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_patients_are_represented_evenly_however_many_slices_they_have() -> None:
    drawn = draw_slices(slices(many=50, some=20, few=3), 30, rng())
    assert len(set(drawn)) == 30
    counts = Counter(one.patient for one in drawn)
    assert counts["few"] == 3
    assert {counts["many"], counts["some"]} <= {13, 14}


def test_with_fewer_cases_than_patients_no_patient_comes_twice() -> None:
    drawn = draw_slices(slices(a=5, b=5, c=5, d=5), 3, rng())
    assert len({one.patient for one in drawn}) == 3


def test_if_there_are_fewer_slices_all_are_drawn() -> None:
    assert set(draw_slices(slices(a=2, b=3), 100, rng())) == set(slices(a=2, b=3))


def test_neither_patients_nor_slices_stand_in_their_order() -> None:
    everything = slices(a=20, b=20)
    drawn = draw_slices(everything, 40, rng())
    assert drawn != everything
    assert drawn[::2] != [one for one in drawn if one.patient == drawn[0].patient]


def test_each_method_stands_once_in_each_case_and_at_every_letter_about_as_often() -> None:
    cases = arrange(slices(a=400), 0, METHODS, rng())
    assert all(sorted(case.order) == sorted(METHODS) for case in cases)
    for letter in range(4):
        counts = Counter(case.order[letter] for case in cases)
        assert all(70 <= counts[method] <= 130 for method in METHODS)


def test_repeats_show_a_slice_again_a_third_of_the_study_later_at_least() -> None:
    cases = arrange(slices(a=60), 12, METHODS, rng())
    assert [case.number for case in cases] == list(range(1, 73))
    repeats = [case for case in cases if case.repeat_of]
    assert len({case.repeat_of for case in repeats}) == 12
    for case in repeats:
        assert case.repeat_of is not None
        first = cases[case.repeat_of - 1]
        assert first.shown == case.shown
        assert first.repeat_of is None
        assert case.number - first.number >= 20
    # Hidden among others, and not in the order that the rater may remember.
    assert {case.number for case in repeats} != set(range(61, 73))
    assert any(case.order != cases[(case.repeat_of or 1) - 1].order for case in repeats)


def test_the_key_tells_what_the_page_hides(reports: list[Path], tmp_path: Path) -> None:
    key = draw_study(reports, tmp_path / "study", cases=9, repeats=10)
    assert json.loads((tmp_path / "study" / "key.json").read_text()) == key
    assert [case["case"] for case in key["cases"]] == list(range(1, 13))
    assert sum(case["repeat_of"] is not None for case in key["cases"]) == 3
    assert Counter(case["patient"] for case in key["cases"] if not case["repeat_of"]) == {
        "sub-ada": 3,
        "sub-bob": 3,
        "sub-eve": 3,
    }
    for case in key["cases"]:
        assert list(case["images"]) == ["A", "B", "C"]
        assert set(case["images"].values()) == set(key["methods"])


def test_the_same_seed_gives_the_same_study_and_another_seed_another(reports: list[Path], tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_study(reports, tmp_path / name, cases=9, seed=seed)
    a, b, c = ([(tmp_path / name / file).read_bytes() for file in ("key.json", "rating.html")] for name in "abc")
    assert a == b
    assert a[0] != c[0]
    assert a[1] != c[1]


def test_who_knows_the_seed_but_not_the_reports_does_not_know_the_order(reports: list[Path], tmp_path: Path) -> None:
    def orders(name: str) -> list[Any]:
        return [case["images"] for case in draw_study(reports, tmp_path / name, cases=27)["cases"]]

    before = orders("before")
    summary = json.loads((reports[0] / "summary.json").read_text())
    (reports[0] / "summary.json").write_text(json.dumps(summary | {"provenance": {"WeightsSha256": "other"}}))
    assert orders("after") != before


def test_a_study_is_never_overwritten(reports: list[Path], study: Path) -> None:
    with pytest.raises(UsageError, match="not empty; choose another folder"):
        draw_study(reports, study)


@pytest.mark.parametrize(("entry", "value"), [("sha256", "other"), ("split", "validation")])
def test_reports_of_another_cohort_or_split_are_refused(
    reports: list[Path], tmp_path: Path, entry: str, value: str
) -> None:
    summary = json.loads((reports[1] / "summary.json").read_text())
    summary["cohort"][entry] = value
    (reports[1] / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UsageError, match=f"report-1: is of another cohort or split .{entry} {value}"):
        draw_study(reports, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_one_method_twice_is_refused(reports: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is of method 'method-of-darkness' as .*--name"):
        draw_study([reports[0], reports[1], reports[0]], tmp_path / "study")


def test_a_missing_volume_is_named(reports: list[Path], tmp_path: Path) -> None:
    (reports[2] / "twins" / "sub-eve.npz").unlink()
    with pytest.raises(UsageError, match=r"sub-eve\.npz: missing or damaged"):
        draw_study(reports, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_images_made_from_other_slices_are_refused(reports: list[Path], tmp_path: Path) -> None:
    twins = read_twins(reports[1] / "twins" / "sub-bob.npz")
    twins.image[:] = 0
    write_twins(reports[1] / "twins", twins)
    with pytest.raises(UsageError, match=r"sub-bob\.npz: its image differ"):
        draw_study(reports, tmp_path / "study")
