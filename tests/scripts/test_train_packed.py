"""The one command that trains elsewhere: pack, train, stop, resume, choose."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.preprocessing.cohort_format import read_cohort, read_stored
from scripts.train_packed import unpack


@pytest.fixture(scope="module")
def packed(phantom_cohort: Path, script: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "cohort.tar"
    script("train_packed.py", "pack", phantom_cohort, "-o", path)
    return path


@pytest.mark.slow
def test_a_packed_cohort_trains_elsewhere_resumes_and_brings_home_what_is_worth_keeping(
    packed: Path, phantom_cohort: Path, tiny: dict[str, object], script: Callable[..., str], tmp_path: Path
) -> None:
    settings = [f"--set={key}={json.dumps(value)}" for key, value in {**tiny, "batch_size": 4}.items()]
    options = ["--preset", "laptop", "--device", "cpu", *settings]
    train = ["train_packed.py", "train", "gvs", packed, "-o", tmp_path / "run", "--judge-iterations", "4"]
    script(*train, "--minutes", "5", "--to", tmp_path / "first", "--epochs", "2", *options)
    kept = {path.name for path in (tmp_path / "first").iterdir()}
    assert kept >= {"model.pt", "checkpoint.pt", "curves.csv", "train.log", "selection.json", "train.json"}
    script(*train, "--minutes", "5", "--to", tmp_path / "second")
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["starts"]) == 2
    record = json.loads((tmp_path / "second" / "selection.json").read_text())
    assert [row["epoch"] for row in record["epochs"]] == [1, 2]
    assert record["epoch"] in {1, 2}

    unpacked = tmp_path / "run_cohort"
    assert read_cohort(unpacked) == read_cohort(phantom_cohort)
    for subject in read_cohort(phantom_cohort).subjects:
        before, after = (read_stored(folder / subject.images) for folder in (phantom_cohort, unpacked))
        assert np.abs(before.astype(int) - after).max() <= 65535 / 255 / 2 + 1
        np.testing.assert_array_equal(*(read_stored(f / subject.masks) for f in (phantom_cohort, unpacked)))


def test_images_may_lose_what_noise_hides(phantom_cohort: Path, script: Callable[..., str], tmp_path: Path) -> None:
    script("train_packed.py", "pack", phantom_cohort, "-o", tmp_path / "whole.tar")
    script("train_packed.py", "pack", phantom_cohort, "-o", tmp_path / "small.tar", "--decibels", "40")
    assert (tmp_path / "small.tar").stat().st_size < (tmp_path / "whole.tar").stat().st_size
    unpack(tmp_path / "small.tar", tmp_path / "small")
    for subject in read_cohort(phantom_cohort).of("training"):
        before, after = (
            read_stored(folder / subject.images) / 65535 for folder in (phantom_cohort, tmp_path / "small")
        )
        assert 0 < np.sqrt(np.square(before - after).mean()) < 0.012
