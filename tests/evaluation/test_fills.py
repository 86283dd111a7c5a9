"""Fills of the field, where the truth is known: what each makes of a hole."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.evaluation import fills
from pipeline.evaluation.fills import FILLS
from pipeline.evaluation.volumes import Volume

SHAPE = (10, 40, 48)
MM = (4.0, 2.0, 2.0)
ROUNDING = 5e-5  # OpenCV fills images of 16 bits
Hole = NDArray[np.bool_]
NAMES = [
    "ring mean",
    "harmonic in 3-D",
    "biharmonic",
    "Navier-Stokes",
    "Telea",
    "registered mirror",
]


def block(*sides: tuple[int, int]) -> Hole:
    hole = np.zeros(SHAPE, bool)
    hole[tuple(slice(*side) for side in sides)] = True
    return hole


HOLE = block((3, 7), (8, 16), (10, 20))


def volume(image: NDArray[np.float32], hole: Hole, foreground: Hole | None = None, slab: Hole | None = None) -> Volume:
    """The slices with a lesion; `slab` may have more of it, in slices that were left out."""
    inside = np.ones(SHAPE, bool) if foreground is None else foreground
    places = np.flatnonzero(hole.any(axis=(1, 2))).tolist()
    image = image.astype(np.float32)
    tensors = (torch.from_numpy(array[places, None]) for array in (image, hole, inside))
    whole = (hole if slab is None else slab, inside)
    return Volume("s", "s", MM[1:], places, *tensors, None, MM[0], {"image": image}, whole)


def filled(name: str, of: Volume) -> NDArray[np.float32]:
    return FILLS[name].make(of)[:, 0].numpy()


@pytest.fixture(scope="module")
def noise() -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0.2, 0.8, SHAPE).astype(np.float32)


def test_each_fill_is_registered_and_installed_with_the_test_requirements() -> None:
    assert list(FILLS) == NAMES
    assert all(fill.available for fill in FILLS.values())


@pytest.mark.parametrize("name", NAMES)
def test_all_outside_the_hole_is_bit_identical_and_all_is_in_range(name: str, noise: NDArray[np.float32]) -> None:
    given = volume(noise, HOLE)
    before = given.image.clone()
    made = FILLS[name].make(given)
    assert (made.shape, made.dtype) == (given.image.shape, torch.float32)
    assert torch.equal(made[~given.lesion], given.image[~given.lesion])
    assert torch.equal(given.image, before)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_image_is_given_back(name: str) -> None:
    sick = np.where(HOLE, 0.9, 0.4)
    np.testing.assert_allclose(filled(name, volume(sick, HOLE)), 0.4, atol=ROUNDING)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_lesion_changes_nothing(name: str, noise: NDArray[np.float32]) -> None:
    empty = volume(noise, HOLE)
    empty = Volume(
        "s", "s", MM[1:], empty.places, empty.image, torch.zeros_like(empty.lesion), empty.foreground, None, MM[0],
        empty.slab, (np.zeros(SHAPE, bool), np.ones(SHAPE, bool)),
    )  # fmt: skip
    np.testing.assert_array_equal(filled(name, empty), empty.image[:, 0].numpy())


@pytest.mark.parametrize("name", NAMES)
def test_a_lesion_in_slices_that_were_left_out_is_not_continued(name: str) -> None:
    more = HOLE | block((7, 8), (8, 16), (10, 20))
    sick = np.where(more, 0.9, 0.4)
    np.testing.assert_allclose(filled(name, volume(sick, HOLE, slab=more)), 0.4, atol=ROUNDING)


@pytest.mark.parametrize("name", ["harmonic in 3-D", "biharmonic"])
def test_a_ramp_is_given_back(name: str) -> None:
    slices, h, w = np.indices(SHAPE)
    ramp = 0.1 + 0.01 * h + 0.005 * w + (0.02 * slices if "3-D" in name else 0)
    found = filled(name, volume(np.where(HOLE, 0, ramp), HOLE))
    np.testing.assert_allclose(found, ramp[3:7], atol=1e-4)


def test_three_dimensions_see_what_lies_above_and_below() -> None:
    slices = np.indices(SHAPE)[0]
    through = block((4, 5), (0, 40), (0, 48))  # nothing is left of this slice
    ramp = 0.1 * slices
    np.testing.assert_allclose(filled("harmonic in 3-D", volume(ramp, through)), 0.4, atol=1e-4)


def test_the_ring_is_that_of_each_lesion() -> None:
    other = block((3, 7), (24, 32), (30, 40))
    h = np.indices(SHAPE)[1]
    two = np.where(h < 20, 0.3, 0.7)
    found = filled("ring mean", volume(np.where(HOLE | other, 1.0, two), HOLE | other))
    assert found[HOLE[3:7]] == pytest.approx(0.3)
    assert found[other[3:7]] == pytest.approx(0.7)


def test_tissue_alone_makes_the_ring_and_air_does_not_flow_in() -> None:
    head = block((0, 10), (4, 36), (12, 48))  # the hole reaches its border
    image = np.where(head, 0.5, 0)
    for name in ("ring mean", "harmonic in 3-D"):
        found = filled(name, volume(image, HOLE & head, head))
        assert found[(HOLE & head)[3:7]] == pytest.approx(0.5)


def head(turned: float, moved: float) -> tuple[NDArray[np.float32], Hole, Callable[[float], Hole]]:
    """A head that is symmetric about a turned and moved plane, where it is, and a lesion on one of its sides."""
    shape = (16, 64, 72)
    z, x, y = (index - (size - 1) / 2 for index, size in zip(np.indices(shape), shape, strict=True))
    cos, sin = np.cos(np.deg2rad(turned)), np.sin(np.deg2rad(turned))
    across, along = (x - moved) * cos + y * sin, y * cos - (x - moved) * sin
    inside = (across / 26) ** 2 + (along / 32) ** 2 + (z / 9) ** 2 < 1
    pattern = 0.5 + 0.2 * np.sin(np.abs(across) / 3) * np.cos(along / 5 + z / 3)
    pattern -= 0.3 * (((np.abs(across) - 8) / 4) ** 2 + (along / 12) ** 2 < 1)
    return (
        np.where(inside, pattern, 0).astype(np.float32),
        inside,
        lambda side: ((across - side * 12) ** 2 + (along - 8) ** 2 + (2 * z) ** 2 < 49) & inside,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("turned", "moved"), [(0, 0), (6, 4), (-8, -3)])
def test_the_other_side_is_found_in_a_turned_head(turned: float, moved: float) -> None:
    healthy, inside, lesion = head(turned, moved)
    hole = lesion(1)
    places = np.flatnonzero(hole.any(axis=(1, 2))).tolist()
    sick = np.where(hole, 1, healthy).astype(np.float32)
    image, mask, tissue = (torch.from_numpy(array[places, None]) for array in (sick, hole, inside))
    given = Volume("s", "s", (2.0, 2.0), places, image, mask, tissue, None, 4.0, {"image": sick}, (hole, inside))
    errors = {
        name: np.abs(filled(name, given) - healthy[places])[hole[places]].mean()
        for name in ("registered mirror", "ring mean")
    }
    assert errors["registered mirror"] < 0.35 * errors["ring mean"]


def test_where_the_other_side_is_lesion_too_the_ring_is_taken() -> None:
    healthy, inside, lesion = head(0, 0)
    hole = lesion(1) | lesion(-1)
    places = np.flatnonzero(hole.any(axis=(1, 2))).tolist()
    image, mask, tissue = (torch.from_numpy(array[places, None]) for array in (healthy, hole, inside))
    given = Volume("s", "s", (2.0, 2.0), places, image, mask, tissue, None, 4.0, {"image": healthy}, (hole, inside))
    same = filled("registered mirror", given) == filled("ring mean", given)
    assert same[hole[places]].mean() > 0.8


def test_what_is_not_installed_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fills.importlib.util, "find_spec", lambda name: None if name == "cv2" else object())
    absent = {name: fill.package for name, fill in FILLS.items() if not fill.available}
    assert absent == {"Navier-Stokes": "opencv-python-headless", "Telea": "opencv-python-headless"}
