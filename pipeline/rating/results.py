"""Results of a reader study: raters' files read and unblinded, methods compared, agreement measured (GVS, Table II)."""

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from pipeline import RESEARCH_ONLY, __version__
from pipeline.comparison.significance import holm, wilcoxon_signed_rank
from pipeline.errors import UsageError
from pipeline.files import require_empty, sha256, small_text, table_csv, write_json, write_text
from pipeline.rating.agreement import icc, quadratic_kappa
from pipeline.rating.draw import KEY_FILE
from pipeline.reports.markdown import escaped
from pipeline.reports.markdown import table as markdown_table

rows_in_markdown = partial(markdown_table, numbers=False)
ASPECTS = {"healthiness": "Healthiness", "identity": "Subject identity"}
IMAGE = ["case", "method"]
LARGEST_FILE = 16 << 20  # bytes; a thousand cases of four methods take less than one megabyte
# As the page asks for it; no name breaks a table or is a formula to a spreadsheet.
RATER_NAME = re.compile(r"[^\W_][\w .\-]{0,39}")

DEFINITIONS = {
    "scores": (
        "from 1 (bad), 2 (poor), 3 (fair), 4 (good) to 5 (excellent); higher is healthier, or more the same person"
    ),
    "mean": "of the raters' means; repeated showings are left out",
    "sd_raters": "standard deviation (n − 1) of the raters' means: how much raters differ in severity",
    "sd_cases": (
        "standard deviation (n − 1) over cases of the mean of the case's raters: how much cases differ; GVS, Table II, "
        "does not tell which deviation it prints"
    ),
    "missing": "scores that a rater left open; the other scores are used",
    "kappa": "Cohen's kappa with quadratic weights over the images that both raters scored, first showings",
    "icc": (
        "ICC(2,1), one rater, and ICC(2,k), the mean of the k raters: two-way random effects, absolute agreement "
        "(Shrout & Fleiss 1979), 95 % confidence interval (McGraw & Wong 1996), over the images that all raters "
        "scored, first showings; images of all methods together, so differences between methods count as agreement"
    ),
    "intra_rater": "first and second showing of the same image to the same rater",
    "tests": (
        "two-sided Wilcoxon signed-rank tests of the difference of two methods, pairs without difference left out; "
        "over cases (mean of the raters who scored both methods) and over patients (mean of their cases); p corrected "
        "by Holm over all pairs of methods; cases of one patient are not independent, so where patients gave more "
        "than one case, rely on p over patients; with fewer than six patients it cannot fall below 0.05"
    ),
}


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Case(_Record):
    case: PositiveInt
    patient: str
    images: Annotated[dict[str, str], Field(min_length=1)]
    repeat_of: PositiveInt | None


class _Split(_Record):
    split: str


class _Key(_Record):
    """What is read of `key.json`."""

    study: str
    cohort: _Split
    methods: Annotated[dict[str, Any], Field(min_length=1)]
    cases: Annotated[list[_Case], Field(min_length=1)]

    @model_validator(mode="after")
    def _agree(self) -> "_Key":
        numbers = [case.case for case in self.cases]
        first = {case.case for case in self.cases if case.repeat_of is None}
        if (
            len(set(numbers)) < len(numbers)
            or not all(case.repeat_of is None or case.repeat_of in first for case in self.cases)
            or not all(set(case.images.values()) <= self.methods.keys() for case in self.cases)
        ):
            raise ValueError("expected a number of its own for each case, repeats of cases, and methods that are named")
        return self


def report_study(study_dir: Path, files: Sequence[Path], table_dir: Path, overwrite: bool = False) -> dict[str, Any]:
    """Read raters' files, unblind them, and write `table.md`, `table.csv` and `summary.json`.

    Args:
        study_dir: made by `draw_study`; only its key is read.
        files: what raters exported from the page, one for each rater; cases may be incomplete.
        table_dir: receives the tables.
        overwrite: write into a folder that holds something.

    Returns:
        The content of `summary.json`; None where a number does not exist.

    Raises:
        UsageError: if the key or a file is damaged, of another study, or of a rater who handed in another.
    """
    table_dir = Path(table_dir)
    require_empty(table_dir, overwrite)
    key = read_key(Path(study_dir))
    images = pd.DataFrame(
        [
            {**{name: case[name] for name in ("case", "patient", "repeat_of")}, "image": letter, "method": method}
            for case in key["cases"]
            for letter, method in case["images"].items()
        ]
    )
    by_rater: dict[str, Path] = {}
    tables = []
    for path in map(Path, files):
        rater, ratings = read_ratings(path, key)
        for other, their_file in by_rater.items():
            if other.casefold() == rater.casefold():
                raise UsageError(
                    f"{path}: is of rater {rater!r} as {their_file} is, expected one file for each rater; give the "
                    "later one only"
                )
        by_rater[rater] = path
        tables.append(ratings.assign(rater=rater))
    scores = pd.concat(tables).merge(images, on=["case", "image"])
    first = scores[scores["repeat_of"].isna()]

    methods, raters = list(key["methods"]), list(by_rater)
    expected = len(images) * len(ASPECTS)
    given = scores.groupby("rater").size()
    facts = {
        "format": 1,
        "pipeline_version": __version__,
        "warning": RESEARCH_ONLY,
        "study": key["study"],
        "cohort": key["cohort"],
        "cases": sum(case["repeat_of"] is None for case in key["cases"]),
        "repeats": sum(case["repeat_of"] is not None for case in key["cases"]),
        "patients": int(images["patient"].nunique()),
        "raters": {
            rater: {"scores": int(given[rater]), "missing": expected - int(given[rater]), "sha256": sha256(path)}
            for rater, path in by_rater.items()
        },
        "methods": {
            method: {aspect: _figures(_of(first, aspect, method=method), raters) for aspect in ASPECTS}
            for method in methods
        },
        "inter_rater": {aspect: _between_raters(_of(first, aspect), raters) for aspect in ASPECTS},
        "intra_rater": {
            aspect: {rater: _within_rater(_of(scores, aspect, rater=rater)) for rater in raters} for aspect in ASPECTS
        },
        "tests": {aspect: _tests(_of(first, aspect), methods) for aspect in ASPECTS},
        "definitions": DEFINITIONS,
    }
    summary: dict[str, Any] = _without_nan(facts)
    write_text(table_dir / "table.csv", table_csv(_rows(summary)))
    write_text(table_dir / "table.md", table(summary))
    write_json(table_dir / "summary.json", summary)
    return summary


def read_key(study_dir: Path) -> dict[str, Any]:
    """Read `key.json`.

    Raises:
        UsageError: if it is missing or damaged.
    """
    path = study_dir / KEY_FILE
    try:
        key = json.loads(small_text(path))
        _Key.model_validate(key)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: missing or damaged, expected the key that `phs-pipeline rating draw` wrote; without it ratings "
            "cannot be unblinded"
        ) from error
    return dict(key)


def read_ratings(path: Path, key: dict[str, Any]) -> tuple[str, pd.DataFrame]:
    """Read one rater's file, trusting nothing in it.

    Args:
        path: exported from the page.
        key: of the study, as `read_key` returns it.

    Returns:
        The rater's name, and the scores given: case, image (its letter), aspect, score.

    Raises:
        UsageError: if it is not what the page of this study exports.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise _refusal(path, "is too large for ratings", f"{LARGEST_FILE >> 20} MB at most")
    try:
        content = json.loads(small_text(path).removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise _refusal(path, "is not JSON", "a file that rating.html saved") from error
    if not isinstance(content, dict) or not isinstance(content.get("ratings"), list):
        raise _refusal(path, "holds no list of ratings", "a file that rating.html saved")
    if content.get("format") != 1:
        raise _refusal(path, f"has format {_short(content.get('format'))}", "format 1")
    if content.get("study") != key["study"]:
        raise _refusal(path, f"belongs to study {_short(content.get('study'))}", f"study {key['study']!r}")
    rater = content.get("rater")
    rater = unicodedata.normalize("NFC", rater).strip() if isinstance(rater, str) else ""
    if not RATER_NAME.fullmatch(rater):
        found = f"names the rater {_short(content.get('rater'))}"
        raise _refusal(path, found, "40 letters, digits, spaces, points and hyphens at most")
    return rater, _scores(path, content["ratings"], {case["case"]: case["images"] for case in key["cases"]})


def _scores(path: Path, ratings: list[Any], images: dict[int, dict[str, str]]) -> pd.DataFrame:
    scores: dict[tuple[int, str, str], int] = {}
    for number, rating in enumerate(ratings, start=1):
        if not isinstance(rating, dict):
            raise _refusal(path, f"its rating {number} is {_short(rating)}", "a case, an image and its scores")
        case, image = rating.get("case"), rating.get("image")
        # JSON's `true` is no case 1, and 1.0 no score.
        if type(case) is not int or not isinstance(image, str) or image not in images.get(case, {}):
            found = f"its rating {number} is of case {_short(case)}, image {_short(image)}"
            raise _refusal(path, found, f"cases 1 to {len(images)} and their letters")
        for aspect in ASPECTS:
            score = rating.get(aspect)
            if score is not None and (type(score) is not int or not 1 <= score <= 5):
                found = f"its rating {number} has {aspect} {_short(score)}"
                raise _refusal(path, found, "a whole number from 1 to 5, or null")
            if (case, image, aspect) in scores:
                raise _refusal(
                    path, f"its rating {number} is a second one of case {case}, image {image}", "one of each"
                )
            if score is not None:
                scores[case, image, aspect] = score
    if not scores:
        raise _refusal(path, "holds no score", "one score at least")
    return pd.DataFrame(
        [(*image, score) for image, score in scores.items()], columns=["case", "image", "aspect", "score"]
    )


def _refusal(path: Path, found: str, expected: str) -> UsageError:
    return UsageError(
        f"{path}: {found}, expected {expected}; ask the rater to save the file from the study's page again"
    )


def table(summary: dict[str, Any]) -> str:
    """The study in Markdown.

    Args:
        summary: as `report_study` returns it.
    """
    raters, study = summary["raters"], summary["study"]
    names = {rater: escaped(rater) for rater in raters}
    missing = [f"{names[rater]} {of['missing']}" for rater, of in raters.items() if of["missing"]]
    parts = [
        f"# Subjective evaluation, study {study}",
        f"**{summary['warning']}** The images rated are synthetic.",
        (
            f"Cases: {summary['cases']}; patients: {summary['patients']} ({summary['cohort']['split']} split); raters, "
            f"blinded to the method: {len(raters)} ({', '.join(names.values())}). Scores from 1 (bad) to 5 "
            "(excellent): mean ± standard deviation over raters, in brackets the standard deviation over cases."
        ),
        rows_in_markdown(
            ["method", *(f"{label} ↑" for label in ASPECTS.values())],
            [[escaped(method), *map(_mean_cell, of.values())] for method, of in summary["methods"].items()],
        ),
        f"Scores left open: {', '.join(missing) if missing else 'none'}.",
        "## Agreement between raters",
        rows_in_markdown(
            ["", *ASPECTS.values()],
            [
                ["ICC(2,1), 95 % CI", *(_interval(of["icc_single"]) for of in summary["inter_rater"].values())],
                ["ICC(2,k), 95 % CI", *(_interval(of["icc_average"]) for of in summary["inter_rater"].values())],
                ["mean kappa", *(_number(of["kappa_mean"]) for of in summary["inter_rater"].values())],
                *(
                    [
                        f"kappa, {names[pair[0]]} and {names[pair[1]]}",
                        *(_number(of["kappa"][number]["kappa"]) for of in summary["inter_rater"].values()),
                    ]
                    for number, pair in enumerate(combinations(raters, 2))
                ),
            ],
        ),
        "## Agreement of raters with themselves",
        f"Cases shown twice: {summary['repeats']}.",
        rows_in_markdown(
            ["rater", *(f"{label}: kappa (same score, images)" for label in ASPECTS.values())],
            [[names[rater], *(_repeat_cell(of[rater]) for of in summary["intra_rater"].values())] for rater in raters],
        ),
        "## Differences between methods",
        rows_in_markdown(
            ["methods", "aspect", "difference", "cases", "p (Holm) over cases", "patients", "p (Holm) over patients"],
            [_test_cells(test, label) for aspect, label in ASPECTS.items() for test in summary["tests"][aspect]],
        )
        if len(summary["methods"]) > 1
        else "There is one method only.",
        "## Definitions",
        "\n".join(f"- *{term}*: {meaning}." for term, meaning in summary["definitions"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _of(scores: pd.DataFrame, aspect: str, **wanted: str) -> pd.DataFrame:
    """Rows of one aspect, and of one method or rater."""
    chosen = scores["aspect"] == aspect
    for column, value in wanted.items():
        chosen &= scores[column] == value
    return scores[chosen]


def _figures(scores: pd.DataFrame, raters: Sequence[str]) -> dict[str, Any]:
    by_rater = scores.groupby("rater")["score"].mean().reindex(list(raters))
    by_case = scores.groupby("case")["score"].mean()
    return {
        "mean": by_rater.mean(),
        "sd_raters": by_rater.std(ddof=1),
        "sd_cases": by_case.std(ddof=1),
        "raters": int(by_rater.count()),
        "cases": len(by_case),
        "scores": len(scores),
        "by_rater": by_rater.to_dict(),
    }


def _between_raters(scores: pd.DataFrame, raters: list[str]) -> dict[str, Any]:
    """Kappa of each pair of raters, ICC of all."""
    grid = scores.pivot_table(index=IMAGE, columns="rater", values="score").reindex(columns=raters)
    pairs, kappas = [], []
    for pair in combinations(raters, 2):
        both = grid[list(pair)].dropna()
        kappas.append(quadratic_kappa(*both.to_numpy().T))
        pairs.append({"raters": list(pair), "images": len(both), "kappa": kappas[-1]})
    known = [kappa for kappa in kappas if not math.isnan(kappa)]
    complete = grid.dropna()
    agreement = icc(complete.to_numpy())
    return {
        "kappa": pairs,
        "kappa_mean": float(np.mean(known)) if known else None,
        "images": len(complete),
        "icc_single": asdict(agreement.single),
        "icc_average": asdict(agreement.average),
    }


def _within_rater(scores: pd.DataFrame) -> dict[str, Any]:
    """Agreement of the first and the second showing of the same images to one rater."""
    again = scores[scores["repeat_of"].notna()]
    again = again.assign(case=again["repeat_of"].astype(int))
    first = scores[scores["repeat_of"].isna()]
    both = first.merge(again, on=IMAGE, suffixes=("", "_again"))
    one, two = both["score"].to_numpy(), both["score_again"].to_numpy()
    return {
        "images": len(both),
        "kappa": quadratic_kappa(one, two),
        "same_score": float((one == two).mean()) if len(both) else None,
        "mean_difference": float((two - one).mean()) if len(both) else None,
    }


def _tests(scores: pd.DataFrame, methods: list[str]) -> list[dict[str, Any]]:
    """Each pair of methods over the cases that at least one rater scored for both."""
    grid = scores.pivot_table(index=["patient", "case", "rater"], columns="method", values="score")
    grid = grid.reindex(columns=methods)
    tests: list[dict[str, Any]] = []
    for one, two in combinations(methods, 2):
        by_case = (grid[one] - grid[two]).dropna().groupby(level=["patient", "case"]).mean()
        by_patient = by_case.groupby(level="patient").mean()
        test: dict[str, Any] = {"methods": [one, two], "difference": by_case.mean()}
        for unit, differences in (("cases", by_case), ("patients", by_patient)):
            # Means of whole scores: what is below this is no difference, and equal differences tie.
            rounded = differences.round(9).to_numpy()
            test[unit] = len(rounded)
            test[f"p_{unit}"] = wilcoxon_signed_rank(rounded, np.zeros(len(rounded))).p
        tests.append(test)
    for unit in ("cases", "patients"):
        for test, corrected in zip(tests, holm([test[f"p_{unit}"] for test in tests]), strict=True):
            test[f"p_{unit}_holm"] = corrected
    return tests


def _rows(summary: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "method": method,
                "aspect": aspect,
                **{name: value for name, value in figures.items() if name != "by_rater"},
                **{f"mean_{rater}": value for rater, value in figures["by_rater"].items()},
            }
            for method, of in summary["methods"].items()
            for aspect, figures in of.items()
        ]
    )


def _without_nan(content: Any) -> Any:
    """Numbers that do not exist as None, for JSON knows no `nan`."""
    if isinstance(content, dict):
        return {name: _without_nan(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_without_nan(value) for value in content]
    if isinstance(content, float):
        return float(content) if math.isfinite(content) else None
    return content


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _mean_cell(figures: dict[str, Any]) -> str:
    mean, raters, cases = (_number(figures[name], 3) for name in ("mean", "sd_raters", "sd_cases"))
    return f"{mean} ± {raters} ({cases})"


def _interval(of: dict[str, float | None]) -> str:
    return f"{_number(of['estimate'])} [{_number(of['low'])}, {_number(of['high'])}]"


def _repeat_cell(of: dict[str, Any]) -> str:
    same = "–" if of["same_score"] is None else f"{of['same_score']:.0%}"
    return f"{_number(of['kappa'])} ({same}, {of['images']})"


def _test_cells(test: dict[str, Any], aspect: str) -> list[str]:
    one, two = map(escaped, test["methods"])
    p_cases, p_patients = (_p(test[f"p_{unit}_holm"]) for unit in ("cases", "patients"))
    difference = "–" if test["difference"] is None else f"{test['difference']:+.3f}"
    return [f"{one} − {two}", aspect, difference, str(test["cases"]), p_cases, str(test["patients"]), p_patients]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _short(found: object) -> str:
    shown = repr(found)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
