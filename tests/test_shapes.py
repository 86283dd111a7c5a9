"""Declared shapes are checked in every test: a tensor or an array of another shape fails it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

import pipeline
from pipeline.losses import difference_weights, residual_mse, weighted_cross_entropy
from pipeline.networks import JohnsonGenerator, MapCritic, PHSGenerator, UNetSegmentor
from pipeline.objectives import LeastSquares
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slices import SliceDataset
from pipeline.preprocessing.window import Window

IMAGES = torch.rand(2, 1, 32, 32)
GRID = Grid(1.0, (32, 32))

WRONG: dict[str, Callable[[], Any]] = {
    "an image without its batch": lambda: JohnsonGenerator(filters=2, residual_blocks=1)(IMAGES[0]),
    "a volume for slices": lambda: PHSGenerator(filters=2, residual_blocks=1)(IMAGES[None]),
    "images of whole numbers": lambda: UNetSegmentor(filters=2)(IMAGES.int()),
    "two channels for one": lambda: MapCritic(2)(IMAGES.expand(2, 2, 32, 32)),
    "a batch that would be broadcast": lambda: difference_weights(IMAGES, IMAGES[:1]),
    "a target that would be broadcast": lambda: residual_mse(IMAGES, IMAGES[..., :1]),
    "a mask without its channel": lambda: weighted_cross_entropy(IMAGES, IMAGES[:, 0]),
    "scores as an array": lambda: LeastSquares().generator(IMAGES.numpy()),
    "slices without a channel for a grid": lambda: GRID.images(IMAGES[:, 0], (1.0, 1.0)),
    "one number for a slice": lambda: GRID.masks(torch.tensor(1.0), (1.0, 1.0)),
    "one slice for a volume": lambda: foreground(np.zeros((8, 8), np.float32)),
    "a foreground of float64": lambda: foreground(np.zeros((8, 8, 8))),
    "a residual of another scan": lambda: Window(0, 1).residual(np.zeros((4, 4), np.float32), np.ones(4, np.float32)),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_wrong_shape_is_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(TypeCheckError):
        call()


def test_the_refusal_says_which_argument_what_it_is_and_what_is_expected() -> None:
    with pytest.raises(TypeCheckError, match=re.escape("f32[2,32,32]")) as refusal:
        residual_mse(IMAGES, IMAGES[:, 0])
    assert "'x_s'" in str(refusal.value)
    assert "batch 1 height width" in str(refusal.value)


def test_a_result_of_another_shape_is_refused() -> None:
    network = JohnsonGenerator(filters=2, residual_blocks=1)
    network.last = nn.Conv2d(2, 1, 7)
    with pytest.raises(TypeCheckError, match="return value"):
        network(IMAGES)


def test_slices_of_another_shape_than_their_masks_are_refused(
    phantom_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = SliceDataset(phantom_cohort, "training", Grid(4.0, (48, 64)))
    assert slices[0]["image"].shape == slices[0]["mask"].shape
    without_channel = slices.images[:, 0]
    monkeypatch.setattr(SliceDataset, "images", property(lambda _: without_channel))
    with pytest.raises(TypeCheckError, match="return value"):
        slices[0]


@pytest.mark.usefixtures("without_shape_checks")
def test_outside_the_tests_nothing_is_checked() -> None:
    assert JohnsonGenerator(filters=2, residual_blocks=1)(IMAGES[:, :, :31]).shape == (2, 1, 32, 32)


def test_arrays_are_declared_by_their_class() -> None:
    """`NDArray` is a class no longer, from numpy 2.5 on Python 3.12: `Float[NDArray[…], …]` fails on import there."""
    declared = re.compile(r"\b(Float|Bool|UInt|Int|Shaped|Num)\d*\[NDArray")
    sources = Path(pipeline.__file__).parent.rglob("*.py")
    assert [path for path in sources if declared.search(path.read_text())] == []
