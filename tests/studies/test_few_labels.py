"""GenSeg beside its baselines: who sees which labels, for how long, what is counted, and what the table says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.bundles import read_config
from pipeline.errors import UsageError
from pipeline.evaluation.controls import THRESHOLD
from pipeline.preprocessing.cohort_format import read_cohort
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.half_slices import HalfSliceDataset
from pipeline.studies import few_labels
from pipeline.studies.few_labels import (
    ALL_POSITIVE,
    ARMS,
    AUTOENCODING,
    GENSEG,
    PRINTED,
    SEGMENTATION,
    SEPARATE,
    _labels,
    _target,
    fitted_cut,
    score,
)

GRID = Grid(1.0, (48, 48))
TINY = {
    "filters": [4, 4, 4, 4],
    "common_filters": 6,
    "unique_filters": 2,
    "discriminator_filters": [4, 4, 4, 4],
    "epochs": 1,
    "batch_size": 10,
}


def go(cohort: Path, folder: Path, **options: Any) -> str:
    given = {"labels": (0.05,), "labelled_target": 9, "seeds": 1, "split": "validation", "overrides": TINY}
    return few_labels(cohort, folder, device="cpu", **{**given, **options})


def test_pooled_and_per_image_dice_are_of_images_with_the_target_and_false_alarms_count_apart(digits: Path) -> None:
    content = read_cohort(digits)
    domains = [HalfSliceDataset(digits, "validation", GRID, (label,)) for label in ("pathological", "healthy")]
    found = score(lambda batches: (torch.ones_like(x, dtype=torch.bool) for x in batches), *domains)
    areas = [
        area
        for subject in content.of("validation")
        for area, label in zip(subject.lesion_mm2, subject.labels, strict=True)
        if label == "pathological"
    ]
    pixels = 48 * 48
    assert found["images"] == len(areas) == found["images_without"]
    assert found["dice"] == pytest.approx(2 * sum(areas) / (sum(areas) + len(areas) * pixels))
    assert found["dice_images"] == pytest.approx(np.mean([2 * area / (area + pixels) for area in areas]))
    assert found["dice_both"] == pytest.approx(2 * sum(areas) / (sum(areas) + 2 * len(areas) * pixels))
    assert set(found["patients"]) == {subject.patient for subject in content.of("validation")}
    assert found["patients_sd"] == pytest.approx(np.std(list(found["patients"].values()), ddof=1))


def test_the_threshold_is_the_best_of_one_channel_on_labelled_images_from_either_side() -> None:
    masks = torch.zeros(2, 1, 8, 8)
    masks[:, :, 2:5, 2:5] = 1
    noise = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    dark = torch.where(masks > 0, 0.2, 0.6 + noise / 4)
    cut = fitted_cut(torch.cat((noise, dark), dim=1), masks)
    assert torch.equal(cut(torch.cat((noise, dark), dim=1)), masks > 0)
    assert torch.equal(fitted_cut(1 - dark, masks)(1 - dark), masks > 0)


@pytest.mark.parametrize(("share", "target"), [(0.01, 9), (0.05, 9), (0.2, None), (1.0, None)])
def test_where_the_nines_do_not_suffice_the_rule_is_dropped(digits: Path, share: float, target: int | None) -> None:
    assert _target(read_cohort(digits), share, "examples", 9) == target
    assert _target(read_cohort(digits), share, "examples", None) is None


def test_the_table_says_how_many_are_labelled_and_where_the_rule_was_dropped() -> None:
    controls = [{"labelled": share, "labels": labels} for share, labels in ((0.05, 4), (1.0, 84))]
    assert _labels(controls, {0.05: 9, 1.0: None}, "examples") == (
        "Labels are for a share of the training examples with the target. Labelled images at 5 %: 4, 100 %: 84. Of the "
        "target 9 alone, but for 100 %, where these are too few: there any are labelled."
    )
    assert _labels(controls, {0.05: None, 1.0: None}, "patients").endswith("100 %: 84.")


@pytest.mark.slow
def test_arms_differ_by_their_method_alone_and_a_stopped_study_goes_on(
    digits: Path, tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    folder, both = tmp_path / "study", {"skips": ("compress", "none"), "printed": "48-hard"}
    epochs_trained(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        go(digits, folder, **both)
    done = {path: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}
    assert len(done) == 2
    rest = epochs_trained()
    page = go(digits, folder, **both)
    assert len(rest) == 2  # the third was stopped after its only epoch
    assert {path: path.stat().st_mtime_ns for path in done} == done

    runs = [read_config(path / "configs" / "train.json") for path in (folder / "runs").iterdir()]
    methods = [config["method"]["_target_"].rpartition(".")[2] for config in runs]
    assert sorted(methods) == ["Autoencoding"] * 2 + ["GenSeg"] * 3
    assert sorted(config["skips"] for config in runs) == ["compress"] * 4 + ["none"]
    for config in runs:
        assert (config["labelled"], config["labelled_target"]) == (0.05, 9)
        assert all(config[name] == value for name, value in TINY.items())
    summary = json.loads((folder / "summary.json").read_text())
    # 84 images in batches of 10.
    assert {r["arm"]: r["iterations"] for r in summary["results"] if r["arm"] in ARMS} == dict.fromkeys(ARMS, 9)
    shares = {config["method"]["_target_"].rpartition(".")[2]: [] for config in runs}
    for config in runs:
        shares[config["method"]["_target_"].rpartition(".")[2]].append(config["labelled_share"])
    assert shares["GenSeg"] == [None] * 3
    assert sorted(shares["Autoencoding"], key=str) == [1.0, None]

    first = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")][2:8]
    assert first == [SEGMENTATION, AUTOENCODING, GENSEG, SEPARATE, THRESHOLD, ALL_POSITIVE]
    for mean, deviation in [*PRINTED["48-hard"].values(), (0.42, 0.01)]:
        assert f"| {mean:.2f} ± {deviation:.2f} |" in page
    for said in (
        "Each training took 9 iterations",
        "`epochs` 1 instead of 300",
        "`filters` [4, 4, 4, 4] instead of [32, 64, 128, 256]",
        "- 5 %: GenSeg 0.",
    ):
        assert said in page
    for name in ("presence_to_absence.png", "absence_to_presence.png", "plot.png", "table.md"):
        assert (folder / name).is_file()
    assert len(pd.read_csv(folder / "table.csv")) == len(runs) + 2
    with pytest.raises(UsageError, match=r"other settings \(labelled_by\)"):
        go(digits, folder, labelled_by="patients")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": (0.0, 1.0)}, "--labels: found 0, expected shares above 0"),
        ({"skips": ("compress", "product")}, "--skips: found 'product', expected some of compress, concat, sum, none"),
        ({"printed": "64"}, "--printed: found '64'"),
        ({"overrides": {"labelled": 0.1}}, "--set labelled: is set by the study itself"),
        ({"presets": ("autoencoding",)}, "--preset autoencoding: is an arm of the study itself"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_anything_is_written(
    digits: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        go(digits, tmp_path / "study", **options)
    assert not (tmp_path / "study").exists()
