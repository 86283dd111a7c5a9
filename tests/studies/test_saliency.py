"""Where networks look: measured by hand-made maps, and by a study that goes on where it was stopped."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.networks import UNetSegmentor
from pipeline.studies import saliency
from pipeline.studies.saliency import (
    UNIFORM,
    Classification,
    LesionScore,
    SliceClassifier,
    agreement,
    saliencies,
)


def square(value: float, size: int = 4) -> Tensor:
    maps = torch.zeros(1, 1, 8, 8)
    maps[..., :size, :size] = value
    return maps


def test_a_map_of_the_lesion_itself_agrees_fully_whatever_its_scale() -> None:
    found = agreement(square(7.0), square(1.0) > 0)
    assert (float(found["mass"]), float(found["overlap"])) == (1, 1)


def test_mass_and_overlap_by_hand() -> None:
    # The map's three highest pixels are (0, 0), (0, 1) and (7, 7); the lesion's are (0, 0), (0, 1) and (0, 2).
    maps, lesion = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    for place, value in (((0, 0), 4.0), ((0, 1), 3.0), ((7, 7), 2.0), ((0, 2), 1.0)):
        maps[0, 0, place[0], place[1]] = value
    lesion[..., 0, :3] = True
    found = agreement(maps, lesion)
    assert float(found["mass"]) == pytest.approx((4 + 3 + 1) / 10)
    assert float(found["overlap"]) == pytest.approx(2 / 3)


def test_a_map_that_is_alike_everywhere_agrees_as_chance_does() -> None:
    found = agreement(torch.ones(1, 1, 8, 8), square(1.0) > 0)
    assert float(found["mass"]) == pytest.approx(16 / 64)
    assert float(found["overlap"]) == pytest.approx(16 / 64)


def test_a_map_that_is_zero_agrees_with_nothing() -> None:
    found = agreement(torch.zeros(1, 1, 8, 8), square(1.0) > 0)
    assert (float(found["mass"]), float(found["overlap"])) == (0, 0)


def test_the_segmentors_score_counts_what_it_calls_lesion() -> None:
    class Logits(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image - 0.5

    image = torch.tensor([[[[1.0, 0.75, 0.0]]], [[[0.0, 0.1, 0.2]]]])
    assert LesionScore(Logits())(image).tolist() == [[0.75], [0.0]]


def test_a_classifier_learns_whether_there_is_a_lesion_at_all() -> None:
    mask = torch.zeros(2, 1, 32, 32)
    mask[1, :, 3, 3] = 1
    certain = torch.tensor([[-50.0], [50.0]])
    (term,) = Classification(_Constant(certain)).supervise({"image": mask, "mask": mask}, {}).values()
    assert float(term) == pytest.approx(0)
    (term,) = Classification(_Constant(-certain)).supervise({"image": mask, "mask": mask}, {}).values()
    assert float(term) == pytest.approx(50)


class _Constant(nn.Module):
    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, image: Tensor) -> Tensor:
        return self.output


def test_maps_are_as_large_as_the_image_and_not_negative() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 48, 64)
    segmentor = UNetSegmentor(filters=4)
    nn.init.constant_(segmentor.unet.final_conv.bias, 5.0)  # all is lesion
    maps = saliencies(SliceClassifier(4).eval(), segmentor.eval())
    found = {name: saliency_of(image) for name, saliency_of in maps.items()}
    for name, map_ in found.items():
        assert map_.shape == image.shape
        assert (map_ >= 0).all()
        assert map_.any(), name
    assert torch.equal(found[UNIFORM], (image > 0.04).float())


@pytest.mark.slow
def test_a_stopped_study_ends_as_one_that_was_not(
    phantom_cohort: Path, tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    def go(folder: Path) -> str:
        return saliency(phantom_cohort, folder, seeds=1, epochs=2, judge_iterations=1, device="cpu")

    table = go(tmp_path / "whole")
    epochs_trained(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "stopped")
    rest = epochs_trained()
    assert go(tmp_path / "stopped") == table
    assert rest == [2]
    for name in ("summary.json", "table.csv", "table.md", "plot.png"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert [row["mass_n"] for row in summary["table"]] == [1] * 5  # one patient
    chance = next(row for row in summary["table"] if row["saliency"] == UNIFORM)
    assert 0 < chance["mass"] < 0.2
    assert chance["overlap"] == pytest.approx(chance["mass"])
    assert summary["results"][0]["segmentor_dice"]["patients"] == 1
