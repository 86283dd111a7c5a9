"""The table of a filler beside the harmonic fill, on holes with known truth."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.mark.slow
def test_both_fill_the_same_holes_and_what_is_the_same_gains_nothing(
    phantom_cohort: Path, script: Callable[..., str], tmp_path: Path
) -> None:
    options = ("--against", "harmonic", "--each", "2")
    script("measure_fill.py", phantom_cohort, "-b", "harmonic", *options, "-o", tmp_path / "fill.md")
    (header, _, *lines), (_, _, *same) = (
        table.splitlines() for table in (tmp_path / "fill.md").read_text().split("\n\n")
    )
    assert header.startswith("| hole | holes | patients |")
    assert lines
    rows = pd.read_csv(tmp_path / "fill.csv")
    np.testing.assert_allclose(rows["filled"], rows["harmonic"])
    # Measured against the better of two, of which it is one.
    by_size = rows.groupby(["size", "patient"])[["harmonic", "biharmonic"]].mean().groupby("size").mean()
    expected = by_size["harmonic"] - by_size.max(axis=1)
    assert [float(line.split(" | ")[-2]) for line in lines] == pytest.approx(expected.tolist(), abs=0.006)
    assert [line.split(" | ")[:3] for line in same] == [line.split(" | ")[:3] for line in lines]
    assert {line.split(" | ")[-2] for line in same} == {"+0.00"}
    limits = np.array([0.01, 0.1, 1, 10, 50, 150])
    assert (limits[rows["size"]] <= rows["ml"]).all()
    assert (rows["ml"] < limits[rows["size"] + 1]).all()
    assert rows["harmonic"].between(5, 60).all()
