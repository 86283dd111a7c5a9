"""A-Dice stands between its brackets, and the brackets are measured once."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.evaluation import bracketed
from pipeline.evaluation.bracketed import ADiceSettings, ADiceSlices, bracketed_a_dice
from pipeline.evaluation.volumes import Volume, pathological_subjects, read_volume
from pipeline.metrics import ADice
from pipeline.preprocessing.grid import Grid

GRID = Grid(4.0, (48, 64))


@pytest.fixture
def images(cohort: Path) -> tuple[Tensor, Tensor]:
    volumes = [read_volume(cohort, record) for record in pathological_subjects(cohort, "test")]
    x = torch.cat([GRID.images(v.image, v.spacing_mm) for v in volumes])
    return x, torch.cat([GRID.masks(v.lesion.float(), v.spacing_mm) for v in volumes])


@pytest.fixture
def own_cohort(cohort: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cohort, tmp_path / "cohort"))


def measure(own_cohort: Path, x: Tensor, masks: Tensor, seeds: tuple[int, ...] = (0,)) -> dict[str, dict]:
    found = bracketed_a_dice("m", x, x, masks, GRID, own_cohort, "test", ADiceSettings(seeds), torch.device("cpu"))
    return found["images"]


@pytest.mark.slow
def test_healthy_slices_under_foreign_masks_are_healthier_than_the_originals(
    own_cohort: Path, images: tuple[Tensor, Tensor]
) -> None:
    scores = measure(own_cohort, *images)
    assert set(scores) == {"m", "original images", "healthy slices, random masks"}
    assert scores["m"]["mean"] == scores["original images"]["mean"], "the same images under the same seeds"
    assert scores["healthy slices, random masks"]["mean"] < scores["original images"]["mean"]
    assert len(scores["m"]["curves"][0]) == 20


def test_brackets_are_measured_once_and_again_when_a_setting_differs(
    own_cohort: Path, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def fake(x: Tensor, masks: Tensor, seeds: tuple[int, ...], *_: object) -> ADice:
        assert x.shape == masks.shape
        measured.append(len(seeds))
        return ADice([0.5] * len(seeds), [[0.5]] * len(seeds), [False] * len(seeds))

    monkeypatch.setattr(bracketed, "a_dice", fake)
    measure(own_cohort, *images)
    assert measured == [1, 1, 1]
    measure(own_cohort, *images)
    assert measured == [1, 1, 1, 1], "only the method again"
    measure(own_cohort, *images, seeds=(0, 1))
    assert measured[4:] == [2, 2, 2]
    damaged = next((own_cohort / "a_dice").glob("original_*.json"))
    for path in (own_cohort / "a_dice").iterdir():
        path.write_text("{")
    measure(own_cohort, *images)
    assert measured[7:] == [1, 1, 1], f"{damaged.name} was damaged"


def test_controls_stand_beside_the_method_and_are_measured_once(
    own_cohort: Path, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, masks = images
    measured: list[float] = []

    def fake(images: Tensor, masks: Tensor, seeds: tuple[int, ...], *_: object) -> ADice:
        del masks
        measured.append(float(images.mean()))
        return ADice([measured[-1]] * len(seeds), [[0.5]] * len(seeds), [False] * len(seeds))

    monkeypatch.setattr(bracketed, "a_dice", fake)
    controls = {"half as bright": x / 2}
    for _ in range(2):
        found = bracketed_a_dice(
            "m", x, x, masks, GRID, own_cohort, "test", ADiceSettings((0,)), torch.device("cpu"), controls
        )
        assert found["images"]["half as bright"]["mean"] == pytest.approx(float(x.mean()) / 2)
    assert len(measured) == 5, "the method twice, the control and both brackets once"


def test_a_collapsed_training_is_named_and_does_not_count(
    own_cohort: Path, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bracketed, "a_dice", lambda *_: ADice([0.4, float("nan")], [[0.4], [0.0]], [False, True]))
    scores = measure(own_cohort, *images, seeds=(0, 1))["m"]
    assert (scores["mean"], scores["per_seed"], scores["collapsed"]) == (0.4, [0.4, None], [False, True])


@pytest.mark.slow
def test_a_setting_is_measured_with_and_told(own_cohort: Path, images: tuple[Tensor, Tensor]) -> None:
    settings = ADiceSettings((0,), epochs=2, rate=0.05, filters=4)
    x, masks = images
    found = bracketed_a_dice("m", x, x, masks, GRID, own_cohort, "test", settings, torch.device("cpu"))
    assert len(found["images"]["m"]["curves"][0]) == 2
    assert found["settings"]["network"] == "UNetSegmentor(filters=4)"
    assert found["settings"]["optimizer"] == "SGD, rate 0.05, momentum 0.9"


@pytest.mark.parametrize(("original", "learned"), [(0.0, False), (0.05, False), (None, False), (0.4, True)])
def test_where_the_original_lesions_were_not_learned_it_says_so(
    own_cohort: Path,
    images: tuple[Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    original: float | None,
    learned: bool,
) -> None:
    result = ADice([original or float("nan")], [[0.0]], [original is None])
    monkeypatch.setattr(bracketed, "a_dice", lambda *_: result)
    x, masks = images
    found = bracketed_a_dice("m", x, x, masks, GRID, own_cohort, "test", ADiceSettings((0,)), torch.device("cpu"))
    assert found["learned"] == learned


def volume(lesion_pixels: int) -> Volume:
    """Two slices of pixels of 1 mm, with a lesion in the first."""
    image = torch.zeros(2, 1, 64, 64)
    image[:, :, 8:56, 8:56] = 0.5
    lesion = torch.zeros(image.shape, dtype=torch.bool)
    lesion[0, :, 20 : 20 + lesion_pixels, 20 : 20 + lesion_pixels] = True
    return Volume("sub-0", "sub-0", (1.0, 1.0), [0, 1], image, lesion, image > 0, None)


def test_slices_whose_lesion_vanishes_on_the_grid_are_counted_and_left_out(
    own_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bracketed, "a_dice", lambda *_: ADice([0.5], [[0.5]], [False]))
    slices = ADiceSlices(own_cohort, "test", ADiceSettings((0,), spacing_mm=4.0))
    large = volume(12)
    slices.add(large, {"m": large.image})
    found = slices.measure("m", torch.device("cpu"))
    assert (found["vanished"], found["settings"]["slices"]) == (1, 1), "of the second slice nothing is lesion"


def test_where_all_vanish_nothing_is_measured_and_nothing_breaks(own_cohort: Path) -> None:
    slices = ADiceSlices(own_cohort, "test", ADiceSettings((0,), spacing_mm=4.0))
    small = volume(1)
    slices.add(small, {"m": small.image})
    found = slices.measure("m", torch.device("cpu"))
    assert (found["images"], found["learned"], found["vanished"]) == ({}, False, 2)
