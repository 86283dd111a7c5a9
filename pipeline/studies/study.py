"""A study's folder: the settings it was made with, its finished parts, and the table that it ends in."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import RESEARCH_ONLY, __version__
from pipeline.bundles import Bundle, read_config
from pipeline.errors import UsageError
from pipeline.evaluation.judge import Scale
from pipeline.files import PARTIAL, sha256, table_csv, write_json, write_text, written_aside
from pipeline.inference import Translator, load_predictor
from pipeline.launch import check_unseen
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.reports.markdown import table

SETTINGS = "study.json"


def open_study(folder: Path, settings: dict[str, Any]) -> None:
    """Start a study in a new folder, or go on with one that was made with the same settings.

    A study in which nothing was finished yet may still change its settings: the corrected command may use the folder.

    Args:
        folder: of the study.
        settings: what all its parts have in common, as JSON can hold it; written to `study.json`.

    Raises:
        UsageError: if the folder holds something else.
    """
    path = folder / SETTINGS
    files = [file for file in folder.rglob("*") if file.is_file() and file != path and PARTIAL not in file.name]
    if path.is_file():
        present, wanted = read_config(path), json.loads(json.dumps(settings))
        other = sorted(key for key in {*present, *wanted} if present.get(key) != wanted.get(key))
        if files and other:
            raise UsageError(
                f"{folder}: holds a study made with other settings ({', '.join(other)}); start it with the same ones, "
                "or choose another folder"
            )
    elif files or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder}: exists and is no study, expected a new or empty folder; choose another")
    write_json(path, settings)


def trainings_of(
    bundle: Bundle, cohort: Path, presets: Sequence[str], overrides: dict[str, Any], split: str
) -> dict[str, Any]:
    """What tells trainings of a bundle from others, among the settings of `open_study`."""
    return {
        "bundle": bundle.name,
        "bundle_config_sha256": sha256(bundle.config("train")),
        "cohort_sha256": sha256(cohort / COHORT_FILE),
        "presets": list(presets),
        "overrides": overrides,
        "split": split,
    }


def load_generators(
    runs: Sequence[Bundle], cohort: Path, split: str, device: str
) -> tuple[dict[str, Translator], dict[str, Any]]:
    """Trained generators and their provenance, by name: that of the run's folder.

    Raises:
        UsageError: if two have one name, or one is no translator or was trained on patients of the split.
    """
    generators, provenances = {}, {}
    for run in runs:
        name = run.root.name
        if name in generators:
            raise UsageError(f"-b {run.root}: is the second run named {name}, expected names that tell them apart")
        check_unseen(run, cohort, split)
        generators[name], provenances[name] = load_predictor(run, "translator", device)
    return generators, provenances


def file_name(name: str) -> str:
    """A row's name without what file systems mind."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def once(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part's result from its JSON file; computed and written there first if it is not."""
    if not path.is_file():
        write_json(path, compute())
    return read_config(path)


def over_seeds(
    results: Sequence[dict[str, Any]] | pd.DataFrame, keys: Sequence[str], metrics: Sequence[str]
) -> pd.DataFrame:
    """Mean and standard deviation of each metric over the results that agree in the keys.

    Args:
        results: one for each seed; a metric that could not be measured is None, and left out.
        keys: what tells the rows of the table apart.
        metrics: names of the numbers.

    Returns:
        One row for each combination of keys, in the order in which they first come; for each metric its mean, `_sd`
        (n − 1 in the denominator, `nan` below two) and `_n`.
    """
    frame = pd.DataFrame(results).reindex(columns=[*keys, *metrics]).astype(dict.fromkeys(metrics, float))
    groups = frame.groupby(list(keys), sort=False)[list(metrics)]
    table = groups.mean().join([groups.std(ddof=1).add_suffix("_sd"), groups.count().add_suffix("_n")])
    return table.reset_index()


def mean_sd(row: pd.Series, metric: str, digits: int, missing: str = "–") -> str:
    """A cell of the table: the mean, ± the deviation where there is one, or what it means that there is no mean."""
    if pd.isna(row[metric]):
        return missing
    deviation = row[f"{metric}_sd"]
    return f"{row[metric]:.{digits}f}" + ("" if pd.isna(deviation) else f" ± {deviation:.{digits}f}")


def percent(share: float) -> str:
    """A share in words: 0.05 is "5 %"."""
    return f"{100 * share:g} %"


def label_shares(axes: Any, shares: Iterable[float]) -> None:
    """Shares of labels along a plot's x axis, which is logarithmic, at those that were measured."""
    ticks = sorted(set(shares))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [percent(share) for share in ticks])
    axes.set_xticks([], minor=True)


def by_row(frame: pd.DataFrame, column: str) -> dict[str, float]:
    """A column of a table, by its `row`."""
    return dict(zip(frame["row"].astype(str), frame[column].astype(float), strict=True))


def rows_of(frame: pd.DataFrame, names: Sequence[str], columns: Mapping[str, tuple[str, int]]) -> str:
    """Some rows of a table over seeds in Markdown, by their `row`.

    Args:
        frame: as of `over_seeds`.
        names: of the rows.
        columns: heading and digits of each metric.
    """
    cells = {
        str(row["row"]): [mean_sd(row, metric, digits) for metric, (_, digits) in columns.items()]
        for _, row in frame.iterrows()
    }
    return table(["", *(heading for heading, _ in columns.values())], [[name, *cells[name]] for name in names])


def judged_by(scale: Scale) -> str:
    """Which f_pre judged healthiness, and how it departs from the paper's."""
    departure = f" {scale.departure}." if scale.departure else ""
    return f"The segmentors are {scale.name}.{departure}"


def write_study(
    folder: Path,
    page: str,
    frame: pd.DataFrame,
    results: Sequence[dict[str, Any]],
    draw: Callable[[Path], Any],
) -> None:
    """Write `table.md`, `table.csv`, `plot.png` and, last, `summary.json`.

    Args:
        folder: of the study.
        page: Markdown.
        frame: the numbers of the table, all digits.
        results: what they were averaged from.
        draw: writes the picture to a file.
    """
    write_text(folder / "table.md", f"{page}\n\n{RESEARCH_ONLY} phs-pipeline {__version__}.\n")
    write_text(folder / "table.csv", table_csv(frame))
    with written_aside(folder / "plot.png") as aside:
        draw(aside)
    write_json(
        folder / "summary.json",
        {
            "format": 1,
            "pipeline_version": __version__,
            "warning": RESEARCH_ONLY,
            "settings": read_config(folder / SETTINGS),
            # By way of pandas' own writer, which knows that JSON has no NaN.
            "table": json.loads(frame.to_json(orient="records")),
            "results": list(results),
        },
    )
